/** One long-running `ping`: a datagram socket of Node cannot send ICMP. */
import type { LineProcess, SpawnLines } from "../drivers/exec.ts";

const FIRST_BACKOFF_MS = 200;
const MAX_BACKOFF_MS = 5_000;

export interface PingOptions {
  readonly spawn: SpawnLines;
  readonly address: string;
  readonly intervalMs: number;
  /** The child was started: it numbers its requests from 1 again. */
  readonly onStart: () => void;
  readonly onReply: (request: number, rttMs: number) => void;
  /** No reply came until the next request was sent, or somebody on the way says that none will. */
  readonly onLate: (request: number) => void;
}

/** One long-running `ping`, started again with a growing pause whenever it ends. */
export function createPing({ spawn, address, intervalMs, onStart, onReply, onLate }: PingOptions): LineProcess {
  // -O writes a line per lost packet too: a miss is told by the one who sent the request. (And should this process be killed, the
  // child notices at its next line.)
  const args = ["-n", "-O", "-i", (intervalMs / 1000).toFixed(3), "-W", "1", "-s", "16", address];
  let child: LineProcess | undefined;
  let timer: NodeJS.Timeout | undefined;
  let backoff = FIRST_BACKOFF_MS;
  let closed = false;
  const start = (): void => {
    let last = 0;
    onStart();
    child = spawn(
      "ping",
      args,
      (line) => {
        const raw = /\bicmp_seq=(\d+)/.exec(line)?.[1];
        if (raw === undefined) return;
        // Numbers have 16 bits; an answer may be to a request before the newest.
        const request = last + signed16(Number(raw) - last);
        last = Math.max(last, request);
        if (!line.includes(" bytes from ")) return onLate(request);
        backoff = FIRST_BACKOFF_MS;
        onReply(request, Number(/\btime=([\d.]+) ms/.exec(line)?.[1] ?? 0));
      },
      () => {
        if (closed) return;
        timer = setTimeout(start, backoff);
        backoff = Math.min(backoff * 2, MAX_BACKOFF_MS);
      },
    );
  };
  start();
  return {
    close() {
      closed = true;
      clearTimeout(timer);
      child?.close();
    },
  };
}

function signed16(value: number): number {
  return (value << 16) >> 16;
}
