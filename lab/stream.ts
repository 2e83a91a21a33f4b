/** A steady stream of packets between two hosts, and the longest gap in it. */
import { execa } from "execa";
import { fileURLToPath } from "node:url";
import { IsthmusError } from "../mesh/errors.ts";
import { gapReport, type GapReport, parsePing, withoutUnderWay } from "./gap.ts";
import { enterNetwork } from "./enter.ts";

export interface StreamOptions {
  readonly lab: string;
  readonly from: string;
  /** Where the packets go. */
  readonly address: string;
  /** `udp`: to the echo port of an internet host; `icmp`: to anything. */
  readonly protocol: "udp" | "icmp";
  readonly intervalMs: number;
  /** Without it the stream runs until `stop`. */
  readonly forMs?: number;
}

export interface GapStream {
  /** Settles when packets flow (or a second has passed without an answer). */
  readonly ready: Promise<void>;
  /** Ends the stream now. */
  stop(): Promise<GapReport>;
  /** Settles when `forMs` is over. */
  readonly report: Promise<GapReport>;
}

const SENDER = fileURLToPath(new URL("udp-stream.ts", import.meta.url));

export async function startStream(options: StreamOptions): Promise<GapStream> {
  return options.protocol === "udp" ? udpStream(options) : icmpStream(options);
}

async function udpStream(options: StreamOptions): Promise<GapStream> {
  const wanted = JSON.stringify({ address: options.address, port: 7, intervalMs: options.intervalMs, forMs: options.forMs ?? 0 });
  const child = execa(...(await enterNetwork(options.lab, options.from, [process.execPath, SENDER, wanted])), {
    reject: false,
    buffer: true,
    stdin: "pipe",
  });
  const ready = firstOutput(child.stdout, () => true);
  const report = child.then((result) => {
    const last = result.stdout.trim().split("\n").at(-1) ?? "";
    if (!last.startsWith("{")) throw new IsthmusError("Internal", `the stream from ${options.from} ended early: ${result.stderr.trim()}`);
    return JSON.parse(last) as GapReport;
  });
  report.catch(() => {});
  return {
    ready,
    report,
    stop: () => {
      child.stdin.end("stop\n");
      return report;
    },
  };
}

async function icmpStream(options: StreamOptions): Promise<GapStream> {
  const seconds = String(Math.max(0.002, options.intervalMs / 1000));
  const count = options.forMs === undefined ? [] : ["-c", String(Math.max(1, Math.round(options.forMs / options.intervalMs))), "-W", "0.5"];
  const argv = ["ping", "-n", "-D", "-i", seconds, ...count, options.address];
  const child = execa(...(await enterNetwork(options.lab, options.from, argv)), {
    reject: false,
    buffer: true,
    stdin: "ignore",
    forceKillAfterDelay: 2000,
  });
  let stopped = false;
  const ready = Promise.race([firstOutput(child.stdout, (text) => text.includes("icmp_seq")), new Promise<void>((done) => setTimeout(done, 1000))]);
  const report = child.then((result) => {
    const output = result.stdout;
    if (!output.includes("packets transmitted"))
      throw new IsthmusError("Internal", `ping from ${options.from} failed: ${result.stderr.trim() || output.trim()}`);
    const all = parsePing(output, options.intervalMs);
    const { sentAt, rtt, endAt } = stopped ? withoutUnderWay(all, options.intervalMs) : all;
    return gapReport(sentAt, rtt, endAt);
  });
  report.catch(() => {});
  return {
    ready,
    report,
    stop: () => {
      stopped = true;
      child.kill("SIGINT");
      return report;
    },
  };
}

function firstOutput(stream: NodeJS.ReadableStream, seen: (text: string) => boolean): Promise<void> {
  return new Promise((done) => {
    let text = "";
    stream.on("data", (chunk: Buffer | string) => {
      text = `${text}${chunk.toString()}`.slice(-4096);
      if (seen(text)) done();
    });
    stream.on("end", () => done());
  });
}
