/**
 * Folders and processes that go with the process that made them: at its end, by a signal too. What one left that was killed
 * without warning is removed when the next one makes such a folder.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { identify, isAlive } from "../../lab/process.ts";

const OWNED = /^([0-9]+)-([0-9]+)-/;
const running = new Set<ChildProcess>();

/** A new folder in `parent`, whose name says whose it is. */
export function ownFolder(parent: string, prefix: string): string {
  mkdirSync(parent, { recursive: true, mode: 0o755 });
  removeOrphans(parent, prefix);
  const folder = mkdtempSync(join(parent, `${prefix}${process.pid}-${identify(process.pid)?.start}-`));
  process.once("exit", () => removeFolder(folder));
  return folder;
}

/** Whatever still writes there has been killed, but may not be gone yet. */
export function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
}

function removeOrphans(parent: string, prefix: string): void {
  for (const name of readdirSync(parent)) {
    const owner = name.startsWith(prefix) ? OWNED.exec(name.slice(prefix.length)) : null;
    if (owner !== null && !isAlive({ pid: Number(owner[1]), start: owner[2]! })) removeFolder(join(parent, name));
  }
}

/** Before others' words: the command that they are ends with this process, however this one ends. */
export const WITH_US: readonly string[] = ["setpriv", "--pdeathsig", "KILL"];

/** Starts a command that ends with this process; the caller waits for its end. */
export function start(argv: readonly string[], options: Parameters<typeof spawn>[2]): ChildProcess {
  const [command = "", ...words] = [...WITH_US, ...argv];
  const child = spawn(command, words, options);
  running.add(child);
  child.once("exit", () => running.delete(child));
  return child;
}

/** From now on these signals end the process in order: its children are killed, its folders removed. */
export function endInOrder(): void {
  process.once("exit", () => running.forEach((child) => child.kill("SIGKILL")));
  for (const [signal, status] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const)
    process.once(signal, () => process.exit(status));
}
