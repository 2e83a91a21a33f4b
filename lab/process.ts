/** Processes by identity: a pid together with its start time, so that a reused pid is never taken for ours. */
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";

export interface ProcessId {
  readonly pid: number;
  /** Start time in clock ticks since boot, proc_pid_stat(5) field 22. */
  readonly start: string;
}

/** Undefined when there is no such process, or only its zombie. */
export function identify(pid: number): ProcessId | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const [state, start] = [fields[0], fields[19]];
    return state === "Z" || state === "X" || start === undefined ? undefined : { pid, start };
  } catch {
    return undefined;
  }
}

export function isAlive(id: ProcessId): boolean {
  return identify(id.pid)?.start === id.start;
}

/** True when a signal was sent to exactly this process. */
export function kill(id: ProcessId, signal: NodeJS.Signals = "SIGKILL"): boolean {
  if (!isAlive(id)) return false;
  try {
    process.kill(id.pid, signal);
    return true;
  } catch {
    return false;
  }
}

export interface ProcessInfo extends ProcessId {
  readonly parent: number;
  readonly session: number;
  readonly argv: readonly string[];
}

/** All processes inside the pid namespace that has `init` as its first process, `init` included. */
export function processesUnder(init: ProcessId): ProcessInfo[] {
  const namespace = namespaceOf(init.pid, "pid");
  if (namespace === undefined || !isAlive(init)) return [];
  return allPids().flatMap((pid) => (namespaceOf(pid, "pid") === namespace ? (describe(pid) ?? []) : []));
}

/** Processes whose network namespace is the one bound at `file` (e.g. /run/netns/NAME). */
export function processesInNetns(file: string): ProcessId[] {
  let inode: string;
  try {
    inode = `net:[${statSync(file).ino}]`;
  } catch {
    return [];
  }
  return allPids().flatMap((pid) => (namespaceOf(pid, "net") === inode ? (identify(pid) ?? []) : []));
}

/** The process and all that descends from it, parents first. */
export function descendants(all: readonly ProcessInfo[], root: number): ProcessInfo[] {
  const found = all.filter((one) => one.pid === root);
  for (let i = 0; i < found.length; i++) found.push(...all.filter((one) => one.parent === found[i]!.pid));
  return found;
}

function allPids(): number[] {
  return readdirSync("/proc").flatMap((name) => (/^[0-9]+$/.test(name) ? Number(name) : []));
}

function namespaceOf(pid: number, kind: "pid" | "net"): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/${kind}`);
  } catch {
    return undefined;
  }
}

function describe(pid: number): ProcessInfo | undefined {
  const id = identify(pid);
  if (id === undefined) return undefined;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const argv = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, -1);
    return { ...id, parent: Number(fields[1]), session: Number(fields[3]), argv };
  } catch {
    return undefined;
  }
}
