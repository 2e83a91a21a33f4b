/** Runs the host's tools. The only place that starts processes. */
import { Socket } from "node:net";
import { createInterface } from "node:readline";
import { execa } from "execa";
import { IsthmusError } from "../../mesh/errors.ts";

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
};

export interface RunOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
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
    ...(options.input === undefined ? { stdin: "ignore" as const } : { input: options.input }),
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
  if (result.code === "EACCES" || result.code === "EPERM")
    throw new IsthmusError("NotRoot", `${tool} may not be run by this user`, { remedy: "run isthmus as root" });
  if (result.timedOut) throw new IsthmusError("Timeout", `${tool} did not end within ${options.timeoutMs ?? 15_000} ms`);
  if (result.isCanceled) throw new IsthmusError("Internal", `${tool} was given up because the agent is stopping`);
  return { ok: result.exitCode === 0, stdout: result.stdout, stderr: result.stderr };
}

/** Runs a tool that must succeed. @throws {IsthmusError} also KernelRefused or NotRoot, with what the tool said */
export async function must(tool: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { ok, stdout, stderr } = await run(tool, args, options);
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

/** A tool that is run again and again. */
export interface StandbyTool {
  /** What it prints this time. @throws {IsthmusError} as `must` */
  ask(): Promise<string>;
}

/** Ends what the tool prints; its exit status and a line's end follow. No tool that we ask prints the byte. */
const END = "\x04";

/**
 * For a tool that is asked every second: a small shell starts it, and costs us a write and a read. With 50 peers on five
 * interfaces a look at WireGuard took 9.5 ms of processor time when started from here, and 2 ms by the shell (measured). The
 * shell ends with us, and gives way to another one when it does not answer in time.
 */
export function standBy(tool: string, args: readonly string[], timeoutMs = 5_000): StandbyTool {
  const script = `while read -r _; do "$@" 2>&1; printf '\\004%s\\n' "$?"; done`;
  let tail: Promise<unknown> = Promise.resolve();
  let shell: Shell | undefined;
  const once = async (): Promise<string> => {
    shell ??= openShell(script, [tool, ...args]);
    const mine = shell;
    try {
      const answer = await mine.ask(timeoutMs);
      const [said = "", status] = answer.trimEnd().split(END);
      if (status === "127") throw missing(tool);
      if (status !== "0") throw refused(`${tool} ${args.slice(0, 3).join(" ")}`, said);
      return said;
    } finally {
      if (mine.ended()) shell = undefined;
    }
  };
  return {
    ask() {
      const next = tail.then(once, once);
      tail = next.catch(() => undefined);
      return next;
    },
  };
}

interface Shell {
  ask(timeoutMs: number): Promise<string>;
  ended(): boolean;
}

function openShell(script: string, words: readonly string[]): Shell {
  // A process group of its own: what hangs is ended together with the shell that waits for it.
  const child = execa("sh", ["-c", script, "sh", ...words], {
    stdin: "pipe",
    stderr: "ignore",
    buffer: false,
    reject: false,
    detached: true,
    env: ENVIRONMENT,
  });
  let ended = false;
  const end = (): void => {
    if (ended) return;
    ended = true;
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // It is gone already.
    }
    child.stdout.destroy();
  };
  // Waiting for a question does not keep this process alive; the deadline of an answer does.
  child.nodeChildProcess.unref();
  for (const pipe of [child.stdin, child.stdout] as unknown[]) if (pipe instanceof Socket) pipe.unref();
  child.stdin.on("error", end);
  child.stdout.setEncoding("utf8");
  void child.then(end, end);
  return {
    ended: () => ended,
    ask: (timeoutMs) =>
      new Promise((resolve, reject) => {
        let answer = "";
        const finish = (error?: IsthmusError): void => {
          clearTimeout(timer);
          child.stdout.off("data", read).off("close", closed);
          if (error === undefined) resolve(answer);
          else {
            end();
            reject(error);
          }
        };
        const what = words.slice(0, 3).join(" ");
        const read = (text: string): void => {
          answer += text;
          if (answer.endsWith("\n") && answer.includes(END)) finish();
        };
        const closed = (): void => finish(new IsthmusError("KernelRefused", `${what}: the shell that runs it ended`));
        const timer = setTimeout(() => finish(new IsthmusError("Timeout", `${what} did not end within ${timeoutMs} ms`)), timeoutMs);
        child.stdout.on("data", read).on("close", closed);
        child.stdin.write("\n");
      }),
  };
}

export function missing(tool: string): IsthmusError {
  const name = PACKAGES[tool] ?? tool;
  return new IsthmusError("ToolMissing", `${tool} is not installed`, { remedy: `install the Debian package ${name} (apt install ${name})` });
}
