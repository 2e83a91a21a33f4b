/**
 * Traffic of one host during a drain; runs inside it: `node flows.ts ADDRESS`. Prints `ready` when every long connection is
 * open, and the report when stdin ends.
 *   packets  one UDP echo every 5 ms, one flow
 *   long     TCP connections to the echo port, kept open, a line to and fro every 20 ms
 *   short    a new HTTP connection every 25 ms, which learns the source address that the server sees
 */
import { createSocket } from "node:dgram";
import { get } from "node:http";
import { connect, type Socket } from "node:net";

export interface FlowReport {
  readonly packets: { readonly sent: number; readonly lost: number };
  readonly long: { readonly opened: number; readonly broken: number };
  readonly short: { readonly tried: number; readonly failed: number; readonly sources: readonly string[] };
}

const ECHO_PORT = 7;
const PACKET_MS = 5;
const LONG = 10;
const LINE_MS = 20;
const SHORT_MS = 25;
/** Longer without an echo is a broken connection; TCP's first retransmissions are well within. */
const STALL_MS = 2_000;
/** Answers that are under way when all ends. */
const LINGER_MS = 1_500;

const address = process.argv[2] ?? "";

const socket = createSocket("udp4");
const answered = new Set<number>();
let sent = 0;
socket.on("message", (message) => answered.add(message.readUInt32BE(0)));
socket.on("error", () => undefined);
const packet = (): void => {
  const message = Buffer.alloc(16);
  message.writeUInt32BE(sent++);
  socket.send(message, ECHO_PORT, address, () => undefined);
};

interface Long {
  readonly socket: Socket;
  broken: boolean;
  heard: number;
}
const open = (): Promise<Long> =>
  new Promise((done, failed) => {
    const made: Long = { socket: connect(ECHO_PORT, address), broken: false, heard: performance.now() };
    made.socket.setNoDelay(true);
    made.socket.once("connect", () => done(made));
    made.socket.on("data", () => (made.heard = performance.now()));
    made.socket.on("error", (error) => {
      made.broken = true;
      failed(error);
    });
    made.socket.on("close", () => (made.broken = true));
  });

const sources = new Set<string>();
let tried = 0;
let done = 0;
const short = (): void => {
  tried++;
  get({ host: address, agent: false, timeout: STALL_MS }, (answer) => {
    answer.setEncoding("utf8").on("data", (text: string) => sources.add(text.trim()));
    answer.on("end", () => done++);
  }).on("error", () => undefined);
};

const longs = await Promise.all(Array.from({ length: LONG }, open));
const timers = [
  setInterval(packet, PACKET_MS),
  setInterval(() => {
    for (const { socket: one, broken } of longs) if (!broken) one.write("x\n");
  }, LINE_MS),
  setInterval(short, SHORT_MS),
];
process.stdout.write("ready\n");
await new Promise<void>((ended) => process.stdin.on("end", ended).on("error", ended).resume());
for (const timer of timers) clearInterval(timer);
const allIsBack = (): boolean => done === tried && answered.size === sent;
for (let waited = 0; waited < LINGER_MS && !allIsBack(); waited += 20) await new Promise((next) => setTimeout(next, 20));
const now = performance.now();
const report: FlowReport = {
  packets: { sent, lost: sent - answered.size },
  long: { opened: LONG, broken: longs.filter(({ broken, heard }) => broken || now - heard > STALL_MS).length },
  short: { tried, failed: tried - done, sources: [...sources].toSorted() },
};
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
