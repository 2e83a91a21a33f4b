/** Runs the host's tools. The only place that starts processes. */
import { randomBytes } from "node:crypto";
import { Socket } from "node:net";
import { createInterface } from "node:readline";
import { execa } from "execa";
import { asIsthmusError, IsthmusError } from "../../mesh/errors.ts";

/** Debian packages of the tools that we call. */
const PACKAGES: Readonly<Record<string, string>> = {
  ip: "iproute2",
  wg: "wireguard-tools",
  "wireguard-go": "wireguard-go",
  nft: "nftables",
  systemctl: "systemd",
  "systemd-run": "systemd",
  iptables: "iptables",
  ping: "iputils-ping",
  conntrack: "conntrack",
  flock: "util-linux",
};

export interface RunOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** A descriptor of ours that is the tool's standard input. */
  readonly stdin?: number;
}

export interface Ran {
  readonly ok: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

const ENVIRONMENT = { LC_ALL: "C" };

/**
 * Runs a tool to its end. A bad exit status is an answer (`ok: false`), not an exception.
 * @throws {IsthmusError} ToolMissing, NotRoot (the tool may not be run), Timeout, or Internal when aborted
 */
export async function run(tool: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const child = execa(tool, args, {
    // Its types know the numbers of the standard streams only.
    ...(options.input === undefined ? { stdin: (options.stdin ?? "ignore") as 0 | "ignore" } : { input: options.input }),
    timeout: options.timeoutMs ?? 15_000,
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    reject: false,
    stripFinalNewline: false,
    env: ENVIRONMENT,
  });
  // What a stopped tool has left behind may hold its pipes open for ever.
  child.nodeChildProcess.once("exit", (_status, killedBy) => {
    if (killedBy === null) return;
    child.nodeChildProcess.stdout?.destroy();
    child.nodeChildProcess.stderr?.destroy();
  });
  const result = await child;
  if (result.code === "ENOENT") throw missing(tool);
  if (result.code === "EACCES" || result.code === "EPERM") throw forbidden(tool);
  if (result.timedOut) throw new IsthmusError("Timeout", `${tool} did not end within ${options.timeoutMs ?? 15_000} ms`);
  if (result.isCanceled) throw stopping(tool);
  return { ok: result.exitCode === 0, stdout: result.stdout, stderr: result.stderr };
}

/** Runs a tool that must succeed. @throws {IsthmusError} also KernelRefused or NotRoot, with what the tool said */
export async function must(tool: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  return worked(tool, args, await run(tool, args, options));
}

/** What a tool that must succeed printed. @throws {IsthmusError} KernelRefused or NotRoot, with what it said */
export function worked(tool: string, args: readonly string[], { ok, stdout, stderr }: Ran): string {
  if (!ok) throw refused(`${tool} ${args.slice(0, 3).join(" ")}`, stderr);
  return stdout;
}

/** The error for what a tool said on stderr. */
export function refused(what: string, said: string): IsthmusError {
  const text = said.trim().split("\n").slice(0, 3).join("; ");
  if (/not permitted|permission denied|must be root/i.test(text))
    return new IsthmusError("NotRoot", `${what}: ${text}`, { remedy: "run isthmus as root (CAP_NET_ADMIN)" });
  if (/address already in use/i.test(text))
    return new IsthmusError("PortTaken", `${what}: ${text}`, {
      remedy: "stop what listens on that UDP port, or choose other ports in the MeshNetwork",
    });
  if (/no space left/i.test(text)) return new IsthmusError("DiskFull", `${what}: ${text}`, { remedy: "free some disk space" });
  return new IsthmusError("KernelRefused", `${what}: ${text}`);
}

/** Calls back with what a long-running tool prints, until it ends or the signal fires. */
export async function follow(tool: string, args: readonly string[], onData: (text: string) => void, signal: AbortSignal): Promise<void> {
  const child = execa(tool, args, { stdin: "ignore", stderr: "ignore", buffer: false, reject: false, cancelSignal: signal, env: ENVIRONMENT });
  child.stdout.setEncoding("utf8").on("data", onData);
  const result = await child;
  if (result.code === "ENOENT") throw missing(tool);
}

export interface LineProcess {
  /** Ends the child; `onExit` is not called after it. */
  close(): void;
}

/** Starts a tool, gives every line of its standard output, and tells when it ended (also when it could not start). */
export type SpawnLines = (tool: string, args: readonly string[], onLine: (line: string) => void, onExit: (why: string) => void) => LineProcess;

export const spawnLines: SpawnLines = (tool, args, onLine, onExit) => {
  const child = execa(tool, args, { stdin: "ignore", stderr: "ignore", buffer: false, reject: false, env: ENVIRONMENT });
  let over = false;
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (!over) onLine(line);
  });
  void child.then(({ code, signal, exitCode }) => {
    if (over) return;
    over = true;
    onExit(code === "ENOENT" ? missing(tool).message : (signal ?? `exit status ${String(exitCode)}`));
  });
  return {
    close() {
      over = true;
      child.kill("SIGKILL");
    },
  };
};

/**
 * Starts a process that outlives us: a session of its own, and files instead of pipes to us (a pipe would kill it at its
 * first word after our death). Returns its process id.
 */
export async function startDetached(tool: string, args: readonly string[], logFile: string): Promise<number> {
  // The shell opens the log and becomes the tool; execa can give a child only its own pipes.
  const script = 'log=$1; shift; command -v "$1" >/dev/null || exit 127; exec "$@" >>"$log" 2>&1';
  const child = execa("sh", ["-c", script, "sh", logFile, tool, ...args], {
    detached: true,
    cleanup: false,
    stdio: "ignore",
    reject: false,
    env: { ...ENVIRONMENT, LOG_LEVEL: "error" },
  });
  child.nodeChildProcess.unref();
  child.catch(() => undefined);
  if (child.pid === undefined) throw missing("sh");
  return child.pid;
}

/** As `run`; a signal ends the tool and the shell that runs it. */
export type Look = (tool: string, args: readonly string[], signal?: AbortSignal) => Promise<Ran>;

/**
 * Words are split at spaces, and nothing else is done to them; a tool does not read the questions. Behind what a tool says stands
 * a word that only this shell knows, on its output with the exit status: what has no such end is not an answer.
 */
const STANDBY = `set -f; while read -r words; do $words </dev/null; printf '%s %s\\n' "$0" "$?"; printf '%s 0\\n' "$0" >&2; done`;
const PLAIN = /^[\w.:/@%+=,-]+$/;

/**
 * For tools that only read and are asked again and again: one question after the other. A small shell starts them, which costs us
 * a write and a read: with 50 peers a look at WireGuard took 9.5 ms of processor time when `wg` was started from here, and 2 ms
 * by the shell (measured). The shell ends with us, and gives way to another one when it does not answer in time.
 */
export function standBy(timeoutMs = 15_000): Look {
  let tail: Promise<unknown> = Promise.resolve();
  let shell: Shell | undefined;
  let asked = 0;
  /** Questions that waited behind one without an answer share its fate: they would wait as long each. */
  let lost: { readonly upTo: number; readonly error: unknown } | undefined;
  const ask = (question: string, signal: AbortSignal | undefined): Promise<Ran | undefined> => {
    if (signal?.aborted === true) throw stopping(question);
    if (shell === undefined || shell.ended()) shell = openShell();
    return shell.ask(question, timeoutMs, signal);
  };
  const once = async (number: number, question: string, signal: AbortSignal | undefined): Promise<Ran> => {
    if (lost !== undefined && number <= lost.upTo) throw lost.error;
    try {
      // Looking twice does no harm: whoever ended the shell delays nothing.
      const answer = (await ask(question, signal)) ?? (await ask(question, signal));
      if (answer === undefined) throw new IsthmusError("Timeout", `${question}: the shell that runs it ended`);
      return answer;
    } catch (error) {
      if (asIsthmusError(error).code === "Timeout") lost = { upTo: asked, error };
      throw error;
    }
  };
  return async (tool, args, signal) => {
    const words = [tool, ...args];
    if (!words.every((word) => PLAIN.test(word))) throw new IsthmusError("Internal", `${tool} cannot be asked for ${args.join(" ")}`);
    const number = ++asked;
    const next = tail.then(() => once(number, words.join(" "), signal));
    tail = next.catch(() => undefined);
    return next;
  };
}

interface Shell {
  /** Undefined when the shell ended before it had answered. @throws {IsthmusError} Timeout, ToolMissing, NotRoot, or Internal when aborted */
  ask(question: string, timeoutMs: number, signal: AbortSignal | undefined): Promise<Ran | undefined>;
  ended(): boolean;
}

function openShell(): Shell {
  const endWord = randomBytes(12).toString("hex");
  // A process group of its own: what hangs is ended together with the shell that waits for it.
  const child = execa("sh", ["-c", STANDBY, endWord], { stdin: "pipe", buffer: false, reject: false, detached: true, env: ENVIRONMENT });
  let ended = false;
  let onEnd: (() => void) | undefined;
  const end = (): void => {
    if (ended) return;
    ended = true;
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // It is gone already.
    }
    child.stdout.destroy();
    child.stderr.destroy();
    onEnd?.();
  };
  // Waiting for a question does not keep this process alive; the deadline of an answer does.
  child.nodeChildProcess.unref();
  for (const pipe of [child.stdin, child.stdout, child.stderr] as unknown[]) if (pipe instanceof Socket) pipe.unref();
  child.stdin.on("error", end);
  child.stdout.setEncoding("utf8").on("close", end);
  child.stderr.setEncoding("utf8").on("close", end);
  // A tool that outlives its shell still holds the pipes.
  child.nodeChildProcess.once("exit", end);
  void child.then(end, end);
  return {
    ended: () => ended,
    ask: (question, timeoutMs, signal) =>
      new Promise((resolve, reject) => {
        const said = hearing(endWord);
        const complaints = hearing(endWord);
        let settled = false;
        const finish = (settle: () => void): void => {
          settled = true;
          clearTimeout(timer);
          signal?.removeEventListener("abort", stop);
          onEnd = undefined;
          child.stdout.off("data", fromStdout);
          child.stderr.off("data", fromStderr);
          settle();
        };
        const heard = (): void => {
          const [stdout, stderr] = [said.whole(), complaints.whole()];
          if (stdout === undefined || stderr === undefined) return;
          const [tool = ""] = question.split(" ", 1);
          if (stdout.status === "127") return finish(() => reject(missing(tool)));
          if (stdout.status === "126") return finish(() => reject(forbidden(tool)));
          finish(() => resolve({ ok: stdout.status === "0", stdout: stdout.text, stderr: stderr.text }));
        };
        const fromStdout = (text: string): void => {
          said.hear(text);
          heard();
        };
        const fromStderr = (text: string): void => {
          complaints.hear(text);
          heard();
        };
        const giveUp = (why: IsthmusError): void => {
          finish(() => reject(why));
          end();
        };
        const late = (): void => {
          if (!settled) giveUp(new IsthmusError("Timeout", `${question} did not end within ${timeoutMs} ms`));
        };
        const stop = (): void => giveUp(stopping(question));
        signal?.addEventListener("abort", stop, { once: true });
        // An answer that came while this process stood still is read first.
        const timer = setTimeout(() => setImmediate(late), timeoutMs);
        onEnd = () => finish(() => resolve(undefined));
        child.stdout.on("data", fromStdout);
        child.stderr.on("data", fromStderr);
        child.stdin.write(`${question}\n`);
      }),
  };
}

/** Collects one answer, and gives it once its end has been heard. A long one comes in many pieces, which are put together once. */
function hearing(endWord: string): { hear(text: string): void; whole(): { text: string; status: string } | undefined } {
  const pieces: string[] = [];
  let last = "";
  return {
    hear(text) {
      pieces.push(text);
      last = (last + text).slice(-`${endWord} 255\n`.length);
    },
    whole() {
      const end = last.slice(last.lastIndexOf(endWord));
      const status = /^\S+ (\d+)\n$/.exec(end)?.[1];
      if (status === undefined || !end.startsWith(endWord)) return undefined;
      return { text: pieces.join("").slice(0, -end.length), status };
    },
  };
}

export function missing(tool: string): IsthmusError {
  const name = PACKAGES[tool] ?? tool;
  return new IsthmusError("ToolMissing", `${tool} is not installed`, { remedy: `install the Debian package ${name} (apt install ${name})` });
}

function stopping(what: string): IsthmusError {
  return new IsthmusError("Internal", `${what} was given up because the agent is stopping`);
}

function forbidden(tool: string): IsthmusError {
  return new IsthmusError("NotRoot", `${tool} may not be run by this user`, { remedy: "run isthmus as root" });
}
