/**
 * WireGuard in user space, where the kernel has none. Its process belongs to nobody: it must live on when the agent's
 * process group or control group is killed (DATAPLANE §6).
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { asIsthmusError, IsthmusError } from "../../mesh/errors.ts";
import { makeFolder, namesIn } from "../files.ts";
import { missing, must, run, startDetached } from "./exec.ts";

const SOCKETS = "/var/run/wireguard";
const START_DEADLINE_MS = 5_000;
const END_DEADLINE_MS = 2_000;
/** All others wait meanwhile: for a systemd that is busy with itself not for long. */
const SYSTEMD_MS = 2_000;
const MOST_LOG_BYTES = 1024 * 1024;
/** Its last words are at the end of it. */
const WORDS_BYTES = 4096;

export function socketOf(name: string): string {
  return join(SOCKETS, `${name}.sock`);
}

export function isUserspace(name: string): boolean {
  return existsSync(socketOf(name));
}

/** Starts wireguard-go for a new interface and returns once it answers. @throws {IsthmusError} ToolMissing, NoWireGuard, FileMode, DiskFull */
export async function startWireguardGo(name: string, runDir: string): Promise<void> {
  // Its interface may have been taken away from it while it answered nobody. A socket that nobody listens on goes with it.
  await killWireguardGo(name, runDir);
  if (systemdOwnsThisHost()) return startUnderSystemd(name);
  makeFolder(runDir);
  const logFile = join(runDir, `wireguard-go.${name}.log`);
  boundLogs(runDir);
  const pid = await startDetached("wireguard-go", ["-f", name], logFile);
  leaveControlGroup(pid);
  writeFileSync(pidFile(runDir, name), `${pid} ${processState(pid)?.startTime ?? ""}\n`, { mode: 0o600 });
  await untilAnswers(name, () => existsSync(`/proc/${pid}`), logFile);
}

/**
 * Ends what we started for an interface, and returns when it is gone. One that hangs hears no SIGTERM, and one that ends in its own
 * time takes away the socket of the one that comes after it.
 */
export async function killWireguardGo(name: string, runDir: string): Promise<void> {
  if (systemdOwnsThisHost()) await endUnit(name);
  const pid = recordedProcess(name, runDir);
  if (pid !== undefined) {
    process.kill(pid, "SIGKILL");
    for (const deadline = performance.now() + END_DEADLINE_MS; performance.now() < deadline && runs(pid);) await delay(2);
  }
  rmSync(pidFile(runDir, name), { force: true });
  rmSync(socketOf(name), { force: true });
}

/** Whether a process has, or had, this interface: the kernel's WireGuard has neither socket nor TUN device. Asked before it is removed. */
export function hasProcess(name: string, runDir: string): boolean {
  return isUserspace(name) || existsSync(pidFile(runDir, name)) || existsSync(`/sys/class/net/${name}/tun_flags`);
}

/** A process whose device is gone ends by itself: what systemd does not do in time is not waited for. */
async function endUnit(name: string): Promise<void> {
  try {
    await run("systemctl", ["kill", "--signal=SIGKILL", unitOf(name)], { timeoutMs: SYSTEMD_MS });
    await run("systemctl", ["stop", unitOf(name)], { timeoutMs: SYSTEMD_MS });
  } catch (error) {
    if (asIsthmusError(error).code !== "Timeout") throw error;
  }
}

/**
 * Where systemd does not take what the processes say, nobody else does: one whose uplink is away for a night would fill /run with a line
 * per peer and attempt. They append, so that a log that is emptied goes on from its beginning.
 */
export function boundLogs(runDir: string): void {
  for (const name of namesIn(runDir)) {
    const file = join(runDir, name);
    if (/^wireguard-go\..*\.log$/.test(name) && (statSync(file, { throwIfNoEntry: false })?.size ?? 0) > MOST_LOG_BYTES) truncateSync(file);
  }
}

function endOf(file: string): string {
  if (!existsSync(file)) return "";
  const handle = openSync(file, "r");
  try {
    const from = Math.max(0, fstatSync(handle).size - WORDS_BYTES);
    const bytes = Buffer.alloc(WORDS_BYTES);
    return bytes.toString("utf8", 0, readSync(handle, bytes, 0, WORDS_BYTES, from));
  } finally {
    closeSync(handle);
  }
}

/** Process ids are given again: it is ours while it began when ours did. */
function recordedProcess(name: string, runDir: string): number | undefined {
  try {
    const [pid, startTime] = readFileSync(pidFile(runDir, name), "utf8").trim().split(" ");
    const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    const same = startTime === undefined || processState(Number(pid))?.startTime === startTime;
    return same && words[0]?.endsWith("wireguard-go") && words.includes(name) ? Number(pid) : undefined;
  } catch {
    return undefined;
  }
}

function runs(pid: number): boolean {
  const state = processState(pid)?.state;
  return state !== undefined && state !== "Z" && state !== "X";
}

/** proc_pid_stat(5): the name in brackets may hold anything; the state is the field after it, the start time the twentieth from there. */
function processState(pid: number): { readonly state: string; readonly startTime: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { state: fields[0] ?? "", startTime: fields[19] ?? "" };
  } catch {
    return undefined;
  }
}

/** Sends a configuration (https://www.wireguard.com/xplatform/) and checks the answer. Holds no secret in an error. */
export function configureUserspace(name: string, request: string, timeoutMs = 5_000): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (what: string, cause?: unknown): void => reject(new IsthmusError("KernelRefused", `wireguard-go ${name}: ${what}`, { cause }));
    const socket = connect(socketOf(name));
    let answer = "";
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error("no answer in time")));
    socket.setEncoding("utf8").on("data", (text: string) => {
      answer += text;
      if (!answer.endsWith("\n\n")) return;
      socket.end();
      const errno = /errno=(-?\d+)/.exec(answer)?.[1];
      if (errno === "0") resolve();
      else fail(`refused the configuration (errno ${errno ?? "missing"})`);
    });
    socket.on("error", (error) => fail(error.message, error));
    socket.on("close", () => fail("closed the connection without an answer"));
    socket.write(`set=1\n${request}\n\n`);
  });
}

/** Whether a process answers at its socket in time; `gone` when nobody listens there. A question `aside` holds up nobody's end. */
export function hears(name: string, timeoutMs: number, aside = false): Promise<"answer" | "silence" | "gone"> {
  return new Promise((resolve) => {
    const socket = connect(socketOf(name));
    const end = (heard: "answer" | "silence" | "gone"): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(heard);
    };
    // An answer that came while this process stood still is read first.
    const timer = setTimeout(() => setImmediate(end, "silence"), timeoutMs);
    if (aside) {
      timer.unref();
      socket.unref();
    }
    socket
      .once("data", () => end("answer"))
      .once("error", () => end("gone"))
      .once("close", () => end("gone"));
    socket.write("get=1\n\n");
  });
}

function unitOf(name: string): string {
  return `isthmus-wg@${name}.service`;
}

function pidFile(runDir: string, name: string): string {
  return join(runDir, `wireguard-go.${name}.pid`);
}

async function untilAnswers(name: string, alive: () => boolean, logFile: string): Promise<void> {
  for (const deadline = performance.now() + START_DEADLINE_MS; performance.now() < deadline; await delay(2)) {
    // Its socket is there before it has all it needs: one that gives up in between leaves it behind.
    if (isUserspace(name) && (await hears(name, START_DEADLINE_MS)) === "answer") return;
    if (!alive()) break;
  }
  // Not the frame with advice that it draws at every start.
  const said = endOf(logFile)
    .split("\n")
    .filter((line) => line.trim() !== "" && !/^[┌│└]/.test(line))
    .slice(-2)
    .join("; ");
  const tools = await run("sh", ["-c", "command -v wireguard-go"]);
  if (!tools.ok) throw missing("wireguard-go");
  throw new IsthmusError("NoWireGuard", `wireguard-go did not start for ${name}${said === "" ? "" : `: ${said}`}`, {
    remedy: /too many open files/i.test(said)
      ? "each interface takes an inotify instance, and this machine has no more of them: `sysctl fs.inotify.max_user_instances=1024`"
      : "check that /dev/net/tun exists and may be opened, or use a kernel with WireGuard",
  });
}

/** Systemd runs, and we are in its own network and mount namespaces: a unit started by it would see what we see. */
export function systemdOwnsThisHost(): boolean {
  if (!existsSync("/run/systemd/system")) return false;
  try {
    return ["net", "mnt"].every((kind) => readlinkSync(`/proc/self/ns/${kind}`) === readlinkSync(`/proc/1/ns/${kind}`));
  } catch {
    return false;
  }
}

async function startUnderSystemd(name: string): Promise<void> {
  const unit = unitOf(name);
  const installed = await run("systemctl", ["cat", unit], { timeoutMs: SYSTEMD_MS });
  await run("systemctl", ["reset-failed", unit], { timeoutMs: SYSTEMD_MS });
  const own = [`--unit=${unit}`, "--collect", "--quiet", "--setenv=LOG_LEVEL=error", "--property=Type=exec", "wireguard-go", "-f", name];
  const [tool, args] = installed.ok ? (["systemctl", ["start", unit]] as const) : (["systemd-run", own] as const);
  await must(tool, args, { timeoutMs: START_DEADLINE_MS });
  await untilAnswers(name, () => true, "");
}

/** Moves the process to the root of the unified hierarchy and of systemd's named one, where they can be written. */
function leaveControlGroup(pid: number): void {
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "));
  for (const [, path, type, options] of mounts) {
    const wanted = type === "cgroup2" || (type === "cgroup" && options?.split(",").includes("name=systemd"));
    if (!wanted || path === undefined) continue;
    try {
      writeFileSync(join(path, "cgroup.procs"), `${pid}\n`);
    } catch {
      // Inside a container only the own part of the tree can be written; the session of its own is what remains.
    }
  }
}
