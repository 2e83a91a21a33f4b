/**
 * What a host on the lab's internet offers, for people and benches:
 *   HTTP 80   the client's source address and a newline
 *   TCP 7     echo (RFC 862), for connections that must survive
 *   TCP 19    a line every 100 ms for as long as the client stays
 *   UDP 7     echo
 * Runs as the host's service: `node inet-server.ts`.
 */
import { createSocket } from "node:dgram";
import { createServer as createHttpServer } from "node:http";
import { createServer, type Socket } from "node:net";

const ECHO_PORT = 7;
const STREAM_PORT = 19;

const quiet = (socket: Socket): Socket => socket.setNoDelay(true).on("error", () => socket.destroy());

createHttpServer((request, response) => {
  const source = (request.socket.remoteAddress ?? "").replace(/^::ffff:/, "");
  response.writeHead(200, { "content-type": "text/plain", connection: "close" }).end(`${source}\n`);
}).listen(80, "0.0.0.0");

createServer((socket) => {
  quiet(socket).pipe(socket);
}).listen(ECHO_PORT, "0.0.0.0");

createServer((socket) => {
  let line = 0;
  const timer = setInterval(() => socket.write(`${line++}\n`), 100);
  quiet(socket)
    .on("close", () => clearInterval(timer))
    .resume();
}).listen(STREAM_PORT, "0.0.0.0");

const udp = createSocket("udp4");
udp.on("message", (message, from) => udp.send(message, from.port, from.address, () => {}));
udp.bind(ECHO_PORT, "0.0.0.0");
