/**
 * One agent per host. Two marks, both of which the kernel takes away with the process, in whatever pid namespace it is:
 *
 * The run folder, which only root can open, is locked (flock(2)): nobody else can keep an agent from starting.
 *
 * What two agents would fight over is one network namespace's kernel state, so one with another run folder, or in a container
 * with a /run of its own, is found by an abstract unix socket, which belongs to the network namespace. Anybody can bind that
 * name; it counts only where its holder may change the network, or cannot be seen from here.
 */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { IsthmusError } from "../mesh/errors.ts";
import { run as exec } from "./drivers/exec.ts";
import { codeOf, readIfThere } from "./files.ts";

const NAME = "isthmus-agent";
/** capabilities(7) */
const CAP_NET_ADMIN = 12n;
/** namespaces(7): there every process can be seen. */
const INITIAL_PID_NAMESPACE = "pid:[4026531836]";
/** Whoever asks whether an agent runs has the folder's lock for a moment. */
const ASKED_MS = 1_000;

export interface Lock {
  release(): Promise<void>;
}

/** The agent that runs here, as this pid namespace numbers it; its own word, the pid file, is what its own namespace says. */
export function agentPid(run: string): string | undefined {
  const { pid, harmless } = nameHolder();
  return (harmless ? undefined : pid) ?? (readIfThere(pidFileOf(run))?.trim() || undefined);
}

export function pidFileOf(run: string): string {
  return join(run, "agent.pid");
}

/** @throws AlreadyRunning */
export async function takeLock(run: string, log: (line: string) => void): Promise<Lock> {
  const folder = await lockFolder(run, ASKED_MS);
  if (folder === undefined) throw alreadyRunning(agentPid(run));
  const name = await bindName();
  if (name === undefined) {
    const { pid, harmless } = nameHolder();
    if (!harmless) {
      closeSync(folder);
      throw alreadyRunning(pid);
    }
    const who = pid === undefined ? "somebody" : `process ${pid}`;
    log(`${who} holds the name of an agent (@${NAME}) and is none: it may not change the network. It is passed over.`);
  }
  const pidFile = pidFileOf(run);
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
  const folder = await lockFolder(run, 0).catch((thrown: unknown) => {
    if (codeOf(thrown) === "ENOENT") return "none" as const;
    throw thrown;
  });
  if (folder === undefined) return true;
  if (folder !== "none") closeSync(folder);
  const name = await bindName();
  await close(name);
  return name === undefined && !nameHolder().harmless;
}

/** The descriptor that holds the lock; undefined while another process does. */
async function lockFolder(run: string, withinMs: number): Promise<number | undefined> {
  const folder = openSync(run, "r");
  try {
    // The lock is one of the open folder, which the tool shares with us: it stays with us when the tool has ended.
    const { ok, stderr } = await exec("flock", ["--timeout", String(withinMs / 1_000), "0"], { stdin: folder });
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

/** Whether the name keeps an agent from starting: one of its holders may change this network, or may be where it cannot be seen. */
function nameHolder(): { readonly pid?: string; readonly harmless: boolean } {
  const inode = readFileSync("/proc/self/net/unix", "utf8")
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .find((fields) => fields[7] === `@${NAME}`)?.[6];
  const holders = processes().filter((pid) => socketsOf(pid).includes(`socket:[${inode}]`));
  const agent = holders.find(mayChangeNetwork);
  if (agent !== undefined) return { pid: agent, harmless: false };
  if (holders[0] !== undefined) return { pid: holders[0], harmless: true };
  // A socket that is under way between processes has no holder at all.
  return { harmless: readlinkSync("/proc/self/ns/pid") === INITIAL_PID_NAMESPACE };
}

function processes(): string[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name));
}

function socketsOf(pid: string): string[] {
  return seen(() => readdirSync(`/proc/${pid}/fd`))?.flatMap((fd) => seen(() => readlinkSync(`/proc/${pid}/fd/${fd}`)) ?? []) ?? [];
}

/** One that has ended meanwhile may not. */
function mayChangeNetwork(pid: string): boolean {
  const capabilities = seen(() => /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
  // In a user namespace of one's own everybody has all capabilities, and none over our network.
  const apart = seen(() => readlinkSync(`/proc/${pid}/ns/user`)) !== readlinkSync("/proc/self/ns/user");
  return !apart && capabilities !== undefined && ((BigInt(`0x${capabilities}`) >> CAP_NET_ADMIN) & 1n) === 1n;
}

/** Undefined of a process or descriptor that is gone. */
function seen<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}

function alreadyRunning(pid: string | undefined): IsthmusError {
  const which = pid === undefined ? "" : ` (process ${pid})`;
  return new IsthmusError("AlreadyRunning", `an isthmus agent runs on this host already${which}`, {
    remedy: "see `isthmus status`; stop the other agent before starting a second one",
  });
}
