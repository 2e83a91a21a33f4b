/** Files that hold secrets: modes are set when they are made and checked when they are used (I8). */
import { closeSync, existsSync, fsyncSync, lstatSync, mkdirSync, openSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { IsthmusError } from "../mesh/errors.ts";
import { makeFolders, refuseUnlessUnable } from "../mesh/folders.ts";

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

/** A copy of the store that a backup is made of; mkdtemp(3) adds six characters. */
export const BACKUP = ".backup-";
const COPY = /^\.backup-[A-Za-z0-9]{6}$/;
/** What `writePrivate` is called for, by folder. Anything else there is an administrator's. */
const HALVES: Readonly<Record<string, RegExp>> = {
  "": /^writer\.\d+\.new$/,
  pki: /^(root|intermediate|position)\.(key|crt)\.\d+\.new$/,
  "pki/issuers": /^[0-9a-f]+\.crt\.\d+\.new$/i,
};

/** Removes what a controller that was killed left half-written in its data folder. Nobody else may be writing there. */
export function dropHalves(data: string): void {
  for (const [folder, half] of Object.entries(HALVES)) {
    for (const name of namesIn(join(data, folder))) if (half.test(name)) rmSync(join(data, folder, name), { force: true });
  }
  for (const name of namesIn(data)) {
    const path = join(data, name);
    const isCopy = COPY.test(name) && lstatSync(path).isDirectory() && namesIn(path).every((one) => one.startsWith("store.db"));
    if (isCopy) rmSync(path, { recursive: true, force: true });
  }
}

function namesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
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
  } catch (thrown) {
    refuseUnlessUnable(thrown);
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
