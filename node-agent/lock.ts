/**
 * One agent per host. Two marks, both of which the kernel takes away with the process, in whatever pid namespace it is:
 *
 * The run folder, which only root can open, is locked (flock(2)): nobody else can keep an agent from starting.
 *
 * What two agents would fight over is one network namespace's kernel state, so one with another run folder, or in a container
 * with a /run of its own, is found by an abstract unix socket, which belongs to the network namespace. Anybody can bind that
 * name; it counts only where its holder may change the network, or cannot be seen from here.
 */
import { closeSync, openSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { IsthmusError } from "../mesh/errors.ts";
import { run as exec } from "./drivers/exec.ts";
import { codeOf, readIfThere } from "./files.ts";

const NAME = "isthmus-agent";
/** capabilities(7) */
const CAP_NET_ADMIN = 12n;

export interface Lock {
  release(): Promise<void>;
}

export function pidFileOf(run: string): string {
  return join(run, "agent.pid");
}

/** @throws AlreadyRunning */
export async function takeLock(run: string, log: (line: string) => void): Promise<Lock> {
  const folder = await lockFolder(run);
  const pidFile = pidFileOf(run);
  if (folder === undefined) throw alreadyRunning(readIfThere(pidFile)?.trim());
  const name = await bindName();
  if (name === undefined) {
    const holder = await nameHolder();
    if (holder?.harmless !== true) {
      closeSync(folder);
      throw alreadyRunning(holder?.pid);
    }
    log(`process ${holder.pid} holds the name of an agent (@${NAME}) and is none: it may not change the network. It is passed over.`);
  }
  writeFileSync(pidFile, `${process.pid}\n`, { mode: 0o600 });
  return {
    async release() {
      rmSync(pidFile, { force: true });
      await close(name);
      closeSync(folder);
    },
  };
}

/** Whether an agent runs on this host. */
export async function isRunning(run: string): Promise<boolean> {
  const folder = await lockFolder(run).catch((thrown: unknown) => {
    if (codeOf(thrown) === "ENOENT") return "none" as const;
    throw thrown;
  });
  if (folder === undefined) return true;
  if (folder !== "none") closeSync(folder);
  const name = await bindName();
  await close(name);
  return name === undefined && (await nameHolder())?.harmless !== true;
}

/** The descriptor that holds the lock; undefined while another process does. */
async function lockFolder(run: string): Promise<number | undefined> {
  const folder = openSync(run, "r");
  try {
    // The lock is one of the open folder, which the tool shares with us: it stays with us when the tool has ended.
    const { ok, stderr } = await exec("flock", ["--nonblock", "0"], { stdin: folder });
    if (ok) return folder;
    if (stderr !== "") throw new IsthmusError("Internal", `${run} cannot be locked: ${stderr.trim()}`);
  } catch (thrown) {
    closeSync(folder);
    throw thrown;
  }
  closeSync(folder);
  return undefined;
}

/** Undefined where somebody has it. */
function bindName(): Promise<Server | undefined> {
  const server = createServer((socket) => socket.destroy());
  return new Promise((done, failed) => {
    server.once("error", (error) => (codeOf(error) === "EADDRINUSE" ? done(undefined) : failed(error)));
    server.listen(`\0${NAME}`, () => done(server.unref()));
  });
}

function close(server: Server | undefined): Promise<void> {
  return new Promise((done) => (server === undefined ? done() : server.close(() => done())));
}

/** Who has the name, where that can be seen from here. */
async function nameHolder(): Promise<{ readonly pid: string; readonly harmless: boolean } | undefined> {
  const { stdout } = await exec("ss", ["--no-header", "--unix", "--listening", "--processes", "src", `@${NAME}`]);
  const pid = /\bpid=(\d+)/.exec(stdout)?.[1];
  if (pid === undefined) return undefined;
  try {
    const may = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    // In a user namespace of one's own everybody has all capabilities, and none over our network.
    const apart = readlinkSync(`/proc/${pid}/ns/user`) !== readlinkSync("/proc/self/ns/user");
    return { pid, harmless: apart || (may !== undefined && ((BigInt(`0x${may}`) >> CAP_NET_ADMIN) & 1n) === 0n) };
  } catch {
    return { pid, harmless: false };
  }
}

function alreadyRunning(pid: string | undefined): IsthmusError {
  const which = pid === undefined || pid === "" ? "" : ` (process ${pid})`;
  return new IsthmusError("AlreadyRunning", `an isthmus agent runs on this host already${which}`, {
    remedy: "see `isthmus status`; stop the other agent before starting a second one",
  });
}
