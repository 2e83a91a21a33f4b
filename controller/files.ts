/** Files that hold secrets: modes are set when they are made and checked when they are used (I8). */
import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { IsthmusError } from "../mesh/errors.ts";
import { makeFolders } from "../mesh/folders.ts";

/** @throws {IsthmusError} `FileMode` when others than the owner may do more than `mode` allows. */
export function requireMode(path: string, mode: 0o600 | 0o700): void {
  const found = statSync(path).mode & 0o777;
  if ((found & ~mode) === 0) return;
  const [have, want] = [found, mode].map((bits) => bits.toString(8).padStart(4, "0"));
  throw new IsthmusError("FileMode", `${path} has mode ${have}, which lets others read or change it`, { remedy: `Run: chmod ${want} ${path}` });
}

/** Makes the folder, and those above it, with mode 0700; one that is there stays as it is. @throws {IsthmusError} `FileMode`, `DiskFull` */
export function makeFolder(path: string): void {
  makeFolders(resolve(path), 0o700, { mkdirSync, statSync }, "Choose another place with --data or --socket.");
}

/** Makes the folder with mode 0700, or checks the one that is there. */
export function privateFolder(path: string): void {
  makeFolder(path);
  requireMode(path, 0o700);
}

const HALF = /\.\d+\.new$/;
/** A copy of the store that a backup is made of. */
export const BACKUP = ".backup-";

/** Removes what a controller that was killed left half-written in its data folder. Nobody else may be writing there. */
export function dropHalves(data: string): void {
  const names = readdirSync(data, { recursive: true, encoding: "utf8" });
  for (const name of names) if (HALF.test(name) || name.startsWith(BACKUP)) rmSync(join(data, name), { recursive: true, force: true });
}

/** Writes a file of mode 0600 whole or not at all; on the disk when it returns. @throws {IsthmusError} `DiskFull` */
export function writePrivate(path: string, content: string | Uint8Array): void {
  const temporary = `${path}.${process.pid}.new`;
  try {
    makeFolder(dirname(path));
    writeFileSync(temporary, content, { mode: 0o600, flush: true });
    renameSync(temporary, path);
    syncFolder(dirname(path));
  } catch (thrown) {
    rmSync(temporary, { force: true });
    throw diskFull(path, thrown);
  }
}

/** A rename is on the disk only with its folder (fsync(2)). */
export function syncFolder(path: string): void {
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** The table's error for a disk without room; anything else as it is. */
export function diskFull(path: string, thrown: unknown): unknown {
  const { code } = thrown as NodeJS.ErrnoException;
  if (code !== "ENOSPC" && code !== "EDQUOT") return thrown;
  return new IsthmusError("DiskFull", `${path}: no space left to write it`, { remedy: "Free disk space; nothing was half written.", cause: thrown });
}
