/**
 * WireGuard in user space, where the kernel has none. Its process belongs to nobody: it must live on when the agent's
 * process group or control group is killed (DATAPLANE §6).
 */
import { existsSync, mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { IsthmusError } from "../../mesh/errors.ts";
import { missing, must, run, startDetached } from "./exec.ts";

const SOCKETS = "/var/run/wireguard";
const START_DEADLINE_MS = 5_000;

export function socketOf(name: string): string {
  return join(SOCKETS, `${name}.sock`);
}

export function isUserspace(name: string): boolean {
  return existsSync(socketOf(name));
}

/** Starts wireguard-go for a new interface and returns once it answers. @throws {IsthmusError} ToolMissing, NoWireGuard */
export async function startWireguardGo(name: string, runDir: string): Promise<void> {
  // A socket that nobody listens on is left over from a killed process.
  rmSync(socketOf(name), { force: true });
  if (systemdOwnsThisHost()) return startUnderSystemd(name);
  mkdirSync(runDir, { recursive: true, mode: 0o700 });
  const logFile = join(runDir, `wireguard-go.${name}.log`);
  const pid = await startDetached("wireguard-go", ["-f", name], logFile);
  leaveControlGroup(pid);
  writeFileSync(pidFile(runDir, name), `${pid}\n`, { mode: 0o600 });
  await untilAnswers(name, () => existsSync(`/proc/${pid}`), logFile);
}

/** Ends a process whose interface is broken; deleting the interface ends a healthy one. */
export function killWireguardGo(name: string, runDir: string): void {
  try {
    const pid = Number(readFileSync(pidFile(runDir, name), "utf8"));
    const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    if (words[0]?.endsWith("wireguard-go") && words.includes(name)) process.kill(pid, "SIGTERM");
  } catch {
    // It is gone already.
  }
  rmSync(pidFile(runDir, name), { force: true });
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

function answers(name: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketOf(name));
    const end = (answered: boolean): void => {
      socket.destroy();
      resolve(answered);
    };
    socket.setTimeout(START_DEADLINE_MS, () => end(false));
    socket
      .once("data", () => end(true))
      .once("error", () => end(false))
      .once("close", () => end(false));
    socket.write("get=1\n\n");
  });
}

function pidFile(runDir: string, name: string): string {
  return join(runDir, `wireguard-go.${name}.pid`);
}

async function untilAnswers(name: string, alive: () => boolean, logFile: string): Promise<void> {
  for (const deadline = performance.now() + START_DEADLINE_MS; performance.now() < deadline; await delay(2)) {
    // Its socket is there before it has all it needs: one that gives up in between leaves it behind.
    if (isUserspace(name) && (await answers(name))) return;
    if (!alive()) break;
  }
  // Not the frame with advice that it draws at every start.
  const lines = existsSync(logFile) ? readFileSync(logFile, "utf8").split("\n") : [];
  const said = lines
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
  const unit = `isthmus-wg@${name}.service`;
  const installed = await run("systemctl", ["cat", unit]);
  await run("systemctl", ["reset-failed", unit]);
  if (installed.ok) await must("systemctl", ["start", unit]);
  else
    await must("systemd-run", [
      `--unit=${unit}`,
      "--collect",
      "--quiet",
      "--setenv=LOG_LEVEL=error",
      "--property=Type=exec",
      "wireguard-go",
      "-f",
      name,
    ]);
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
