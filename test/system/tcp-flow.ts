/**
 * One TCP connection to an echo service: a numbered line every 20 ms, until a word on stdin or its end. Prints `ready` at the
 * first echo, and a report. Runs inside a host: `node tcp-flow.ts '{"address":…,"port":7}'`.
 */
import { connect } from "node:net";

const { address, port, source } = JSON.parse(process.argv[2] ?? "{}") as { address: string; port: number; source?: string };
const EVERY_MS = 20;
const LAST_ECHO_MS = 5_000;

let sent = 0;
let echoed = 0;
let heard = performance.now();
let longest = 0;
let timer: NodeJS.Timeout | undefined;

const report = (error?: string): void => {
  clearInterval(timer);
  process.stdout.write(
    `${JSON.stringify({ sent, echoed, longestSilenceMs: Math.round(longest), ...(error === undefined ? {} : { error }) })}\n`,
    () => process.exit(0),
  );
};

const socket = connect({ host: address, port, ...(source === undefined ? {} : { localAddress: source }) });
socket.setNoDelay(true);
socket.on("connect", () => {
  timer = setInterval(() => socket.write(`${sent++}\n`), EVERY_MS);
});
socket.on("data", (chunk) => {
  if (echoed === 0) process.stdout.write("ready\n");
  const now = performance.now();
  longest = Math.max(longest, now - heard);
  heard = now;
  for (const byte of chunk) if (byte === 10) echoed++;
});
socket.on("error", (error) => report(error.message));
socket.on("close", () => report("closed by the other end"));

process.stdin.resume().once("data", () => {
  clearInterval(timer);
  const until = performance.now() + LAST_ECHO_MS;
  const wait = setInterval(() => {
    if (echoed < sent && performance.now() < until) return;
    clearInterval(wait);
    report();
  }, 10);
});
