import { once } from "node:events";
import { join } from "node:path";
import { connect, type TLSSocket } from "node:tls";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createListeners, listenTcp, type Listeners } from "../../../controller/api/http.ts";
import { openAuthority } from "../../../controller/pki/authority.ts";
import type { Mirror } from "../../../controller/reconcile/mirror.ts";
import { eventually, temporaryFolder } from "../harness.ts";

let folder: ReturnType<typeof temporaryFolder>;
let listeners: Listeners;
let port = 0;

beforeEach(async () => {
  folder = temporaryFolder();
  const authority = await openAuthority({ folder: join(folder.path, "pki"), name: "c", hosts: ["127.0.0.1"], now: Date.now });
  listeners = createListeners({
    ...authority.server,
    roots: authority.roots,
    issuers: authority.issuers,
    mirror: () => ({}) as Mirror,
    now: Date.now,
    log: () => {},
    requestMs: 1_000,
  });
});

afterEach(async () => {
  await listeners.app.close();
  listeners.https.close();
  folder.remove();
});

async function listen(): Promise<void> {
  await listeners.app.ready();
  port = await listenTcp(listeners.https, "127.0.0.1", 0);
}

interface Caller {
  readonly socket: TLSSocket;
  readonly heard: () => string;
  readonly gone: () => boolean;
}

function call(text: string): Caller {
  let heard = "";
  let gone = false;
  const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false }, () => socket.write(text));
  socket.on("data", (data: Buffer) => (heard += data.toString()));
  socket.on("error", () => {});
  socket.on("close", () => (gone = true));
  return { socket, heard: () => heard, gone: () => gone };
}

test("who does not finish a request is not waited for; streams and upgraded connections last", async () => {
  const { app, https } = listeners;
  app.get("/healthz", (_request, reply) => {
    reply.hijack();
    reply.raw.writeHead(200);
    const timer = setInterval(() => reply.raw.write("tick\n"), 20);
    reply.raw.once("close", () => clearInterval(timer));
  });
  app.post("/v1/join", () => "joined");
  https.on("upgrade", (_request, socket) => {
    socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    socket.pipe(socket);
  });
  await listen();

  const stream = call("GET /healthz HTTP/1.1\r\nhost: c\r\n\r\n");
  const upgraded = call("GET /v1/agent HTTP/1.1\r\nhost: c\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
  await eventually(() => expect([stream.heard(), upgraded.heard()]).toEqual([expect.stringContaining("tick"), expect.stringContaining("101")]));

  const head = "POST /v1/join HTTP/1.1\r\nhost: c\r\ncontent-type: application/json\r\ncontent-length: 2\r\n";
  const slow = [call(`${head}\r\n{`), call(head), call("")];
  await eventually(() => expect(slow.map((one) => one.gone())).toEqual([true, true, true]));
  // As an error that says "try again": an agent on a slow line does not give up.
  expect(slow[0]?.heard()).toMatch(/^HTTP\/1\.1 504 [^]*"code":"Timeout"/);

  const before = stream.heard().length;
  upgraded.socket.write("still here");
  await eventually(() => expect(upgraded.heard()).toContain("still here"));
  await eventually(() => expect(stream.heard().length).toBeGreaterThan(before));
  expect([stream.gone(), upgraded.gone()]).toEqual([false, false]);
  const closed = once(upgraded.socket, "close");
  upgraded.socket.destroy();
  stream.socket.destroy();
  await closed;
});
