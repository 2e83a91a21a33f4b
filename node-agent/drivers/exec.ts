/**
 * Runs the host's tools. The only place that starts processes. On `node:child_process`: a library for it costs the agent
 * 10 MiB and 60 ms at every start (docs/decisions/012-agent-weight.md).
 */
import { spawn } from "node:child_process";
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
const LIMIT_MS = 15_000;
/** After SIGTERM, for a tool that does not listen. */
const KILL_AFTER_MS = 5_000;

/**
 * Runs a tool to its end. A bad exit status is an answer (`ok: false`), not an exception.
 * @throws {IsthmusError} ToolMissing, NotRoot (the tool may not be run), Timeout, or Internal when aborted
 */
export function run(tool: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const { input, signal, timeoutMs = LIMIT_MS } = options;
  return new Promise((done, failed) => {
    const givenUp = (): IsthmusError => new IsthmusError("Internal", `${tool} was given up because the agent is stopping`);
    if (signal?.aborted === true) return failed(givenUp());
    const child = spawn(tool, args, { stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"], env: { ...process.env, ...ENVIRONMENT } });
    let stopped: IsthmusError | undefined;
    let force: NodeJS.Timeout | undefined;
    const stop = (why: IsthmusError): void => {
      stopped ??= why;
      child.kill();
      force ??= setTimeout(() => child.kill("SIGKILL"), KILL_AFTER_MS);
    };
    const abort = (): void => stop(givenUp());
    const limit = setTimeout(() => stop(new IsthmusError("Timeout", `${tool} did not end within ${timeoutMs} ms`)), timeoutMs);
    signal?.addEventListener("abort", abort, { once: true });
    const settle = (): void => {
      clearTimeout(limit);
      clearTimeout(force);
      signal?.removeEventListener("abort", abort);
    };
    child.on("error", (error: NodeJS.ErrnoException) => {
      if (child.pid !== undefined) return;
      settle();
      failed(startFailure(tool, error));
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout?.on("data", (part: Buffer) => stdout.push(part));
    child.stderr?.on("data", (part: Buffer) => stderr.push(part));
    // What a stopped tool has started may hold the pipes open.
    child.on("exit", () => stopped !== undefined && [child.stdout, child.stderr].forEach((stream) => stream?.destroy()));
    child.on("close", (status) => {
      settle();
      if (stopped !== undefined) failed(stopped);
      else done({ ok: status === 0, stdout: Buffer.concat(stdout).toString("utf8"), stderr: Buffer.concat(stderr).toString("utf8") });
    });
    // A tool that ends without reading all of it says why in its own words.
    child.stdin?.on("error", () => undefined).end(input);
  });
}

function startFailure(tool: string, error: NodeJS.ErrnoException): IsthmusError {
  if (error.code === "ENOENT") return missing(tool);
  if (error.code === "EACCES" || error.code === "EPERM")
    return new IsthmusError("NotRoot", `${tool} may not be run by this user`, { remedy: "run isthmus as root" });
  return new IsthmusError("Internal", `${tool} cannot be started: ${error.message}`, { cause: error });
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
export function follow(tool: string, args: readonly string[], onData: (text: string) => void, signal: AbortSignal): Promise<void> {
  return new Promise((done, failed) => {
    if (signal.aborted) return done();
    const child = spawn(tool, args, { stdio: ["ignore", "pipe", "ignore"], env: { ...process.env, ...ENVIRONMENT } });
    const kill = (): void => void child.kill();
    const settle = (): void => {
      signal.removeEventListener("abort", kill);
      process.off("exit", kill);
    };
    signal.addEventListener("abort", kill, { once: true });
    process.once("exit", kill);
    child.stdout.setEncoding("utf8").on("data", onData);
    child.on("error", (error: NodeJS.ErrnoException) => {
      if (child.pid !== undefined) return;
      settle();
      failed(startFailure(tool, error));
    });
    child.on("close", () => {
      settle();
      done();
    });
  });
}

/**
 * Starts a process that outlives us: a session of its own, and files instead of pipes to us (a pipe would kill it at its
 * first word after our death). Returns its process id.
 */
export async function startDetached(tool: string, args: readonly string[], logFile: string): Promise<number> {
  // The shell opens the log and becomes the tool, so that a full disk is the tool's trouble and not ours.
  const script = 'log=$1; shift; command -v "$1" >/dev/null || exit 127; exec "$@" >>"$log" 2>&1';
  const child = spawn("sh", ["-c", script, "sh", logFile, tool, ...args], {
    detached: true,
    stdio: "ignore",
    env: { ...process.env, ...ENVIRONMENT, LOG_LEVEL: "error" },
  });
  child.on("error", () => undefined);
  child.unref();
  if (child.pid === undefined) throw missing("sh");
  return child.pid;
}

export function missing(tool: string): IsthmusError {
  const name = PACKAGES[tool] ?? tool;
  return new IsthmusError("ToolMissing", `${tool} is not installed`, { remedy: `install the Debian package ${name} (apt install ${name})` });
}
