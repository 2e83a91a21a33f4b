/**
 * Sends numbered UDP packets to an echo port and reports what came back; runs inside a host of the lab.
 *   node udp-stream.ts '{"address":"34.160.111.145","port":7,"intervalMs":10,"forMs":5000}'
 * Prints `ready` when the first answer is there (or the first second is over), and the report when the time is over or
 * stdin says anything.
 */
import { createSocket } from "node:dgram";
import { gapReport } from "./gap.ts";

interface Options {
  readonly address: string;
  readonly port: number;
  readonly intervalMs: number;
  /** 0: until stdin speaks. */
  readonly forMs: number;
}

/** Answers may take this long after the last packet. */
const LINGER_MS = 300;

const options = JSON.parse(process.argv[2] ?? "{}") as Options;
const sentAt: number[] = [];
const rtt: (number | undefined)[] = [];
const socket = createSocket("udp4");
const start = performance.now();
let ready = false;

const sayReady = (): void => {
  if (!ready) process.stdout.write("ready\n");
  ready = true;
};

socket.on("error", () => {});
socket.on("message", (message) => {
  const seq = message.readUInt32BE(0);
  if (seq < sentAt.length && rtt[seq] === undefined) rtt[seq] = performance.now() - sentAt[seq]!;
  sayReady();
});

function send(): void {
  const packet = Buffer.alloc(16);
  packet.writeUInt32BE(sentAt.length, 0);
  sentAt.push(performance.now());
  rtt.push(undefined);
  // "Network is unreachable" and the like are losses, which the report counts.
  socket.send(packet, options.port, options.address, () => {});
}

let timer: NodeJS.Timeout;
let tick = 0;
function next(): void {
  const now = performance.now();
  if (options.forMs > 0 && now - start >= options.forMs) return stop();
  send();
  if (now - start > 1000) sayReady();
  // A late timer skips packets instead of sending a burst; one that fires early (Node cuts off fractions) sends none twice.
  const elapsed = performance.now() - start;
  tick = Math.max(tick + 1, Math.floor(elapsed / options.intervalMs));
  timer = setTimeout(next, Math.max(0, tick * options.intervalMs - elapsed));
}

let stopping = false;
function stop(): void {
  if (stopping) return;
  stopping = true;
  clearTimeout(timer);
  const endAt = performance.now();
  const missing = (): boolean => rtt.slice(-Math.ceil(LINGER_MS / options.intervalMs)).includes(undefined);
  const wait = (): void => {
    if (missing() && performance.now() - endAt < LINGER_MS) {
      setTimeout(wait, 10);
      return;
    }
    process.stdout.write(`${JSON.stringify(gapReport(sentAt, rtt, endAt))}\n`, () => process.exit(0));
  };
  wait();
}

socket.bind(0, () => {
  process.stdin.once("data", stop).once("end", stop);
  next();
});
