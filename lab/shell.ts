/** Running commands for the lab. */
import { execa } from "execa";
import { IsthmusError } from "../mesh/errors.ts";
import { patient } from "./patience.ts";

export interface RunOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Return a failure instead of throwing. */
  readonly mayFail?: boolean;
}

export interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
  /** Exit status; 128 + signal when killed by one, 124 at the deadline. */
  readonly code: number;
}

/** Debian packages by command, for the message when one is missing. */
export const TOOLS: Readonly<Record<string, string>> = {
  ip: "iproute2",
  nft: "nftables",
  wg: "wireguard-tools",
  "wireguard-go": "wireguard-go",
  nsenter: "util-linux",
  unshare: "util-linux",
  setsid: "util-linux",
  ping: "iputils-ping",
  curl: "curl",
};

/** Runs one command to its end. @throws IsthmusError `ToolMissing`, `Timeout`, or `KernelRefused` with what it said. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const [command, ...args] = argv as [string, ...string[]];
  const result = await execa(command, args, {
    reject: false,
    timeout: patient(options.timeoutMs ?? 30_000),
    killSignal: "SIGKILL",
    stripFinalNewline: false,
    ...(options.input === undefined ? { stdin: "ignore" } : { input: options.input }),
    ...(options.env === undefined ? {} : { env: options.env }),
  });
  if (result.code === "ENOENT") {
    const package_ = TOOLS[command];
    throw new IsthmusError("ToolMissing", `${command} is not installed`, {
      remedy: package_ === undefined ? `Install ${command}.` : `apt-get install ${package_}`,
    });
  }
  const code = result.exitCode ?? (result.timedOut ? 124 : 137);
  const done = { stdout: result.stdout, stderr: result.stderr, code };
  if (code === 0 || options.mayFail === true) return done;
  if (result.timedOut) throw new IsthmusError("Timeout", `${argv.slice(0, 6).join(" ")} did not end in time`);
  throw new IsthmusError("KernelRefused", `${argv.slice(0, 6).join(" ")}: ${done.stderr.trim() || done.stdout.trim() || `exit status ${code}`}`);
}

/** Runs lines of `ip` commands in one go, in a network namespace when one is named. */
export async function ipBatch(lines: readonly string[], netns?: string, options: { readonly force?: boolean } = {}): Promise<RunResult> {
  if (lines.length === 0) return { stdout: "", stderr: "", code: 0 };
  const force = options.force === true;
  return run(["ip", ...(netns === undefined ? [] : ["-n", netns]), ...(force ? ["-force"] : []), "-batch", "-"], {
    input: `${lines.join("\n")}\n`,
    mayFail: force,
  });
}

/** Runs a shell script inside a network namespace (processes, files and mounts stay those of the machine). */
export async function netnsScript(netns: string, script: string): Promise<RunResult> {
  return run(["nsenter", `--net=/run/netns/${netns}`, "sh"], { input: script });
}

/** Runs `work` for each item, at most `width` at once. After a failure nothing new is begun, and nothing is still going on when it throws. */
export async function each<T>(items: readonly T[], width: number, work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
      await work(item).catch((error: unknown) => {
        queue.length = 0;
        throw error;
      });
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: Math.min(width, items.length) }, worker));
  for (const end of ends) if (end.status === "rejected") throw end.reason;
}

export interface Waiting {
  /** Default 10. */
  readonly everyMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** Asks until the answer is not undefined, as long as `patient` says. @throws IsthmusError `Timeout` saying what was waited for. */
export async function eventually<T>(
  what: string,
  deadlineMs: number,
  ask: () => Promise<T | undefined> | T | undefined,
  waiting: Waiting = {},
): Promise<T> {
  const end = performance.now() + patient(deadlineMs);
  for (;;) {
    waiting.signal?.throwIfAborted();
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > end) throw new IsthmusError("Timeout", `${what}: not within ${patient(deadlineMs)} ms`);
    await new Promise((wake) => setTimeout(wake, waiting.everyMs ?? 10));
  }
}
