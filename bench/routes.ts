/**
 * 2,000 destinations on a real kernel, through the agent's own loop and drivers, in a network namespace of its own. The part
 * in the namespace is `routes-inside.ts`.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { BenchOptions } from "./main.ts";
import type { Moves, Sample } from "./routes-inside.ts";
import type { Row } from "./stats.ts";

const TIMES = 50;
const INSIDE = fileURLToPath(new URL("routes-inside.ts", import.meta.url));

export async function routes(options: BenchOptions): Promise<Row[]> {
  const times = options.n ?? TIMES;
  const dir = mkdtempSync(join(tmpdir(), "isthmus-bench-"));
  try {
    options.log(`${times} rounds`);
    const moves = await inside(dir, times, options.signal);
    const row = (what: string, target: number, of: readonly Sample[]): Row[] => [
      { what: `${what}: applied`, unit: "ms", samples: of.map(({ applyMs }) => applyMs), judge: "median", target },
      { what: `${what}: end to end in the agent`, unit: "ms", samples: of.map(({ passMs }) => passMs), judge: "median", target },
    ];
    return [
      ...row("2,000 overlay destinations programmed", 100, moves.program),
      ...row("all moved to another gateway", 20, moves.move),
      ...row("one changed among them", 10, moves.change),
      ...row("2,000 LAN routes moved", 60, moves.lanMove),
      ...row("one LAN route changed among them", 10, moves.lanChange),
    ];
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Namespaces end with their last process: wireguard-go dies with the pid namespace. */
function inside(dir: string, times: number, signal: AbortSignal): Promise<Moves> {
  const argv = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", process.execPath, INSIDE, dir, String(times)];
  const child = spawn("unshare", argv, { stdio: ["ignore", "pipe", "inherit"], signal });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => (text += part));
  return new Promise((done, failed) => {
    child.on("error", failed);
    child.on("close", (status) => {
      if (status === 0) done(JSON.parse(text) as Moves);
      else failed(new Error(`the part in the namespace ended with exit status ${status ?? "none"}`));
    });
  });
}
