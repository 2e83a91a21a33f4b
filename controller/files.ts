/** Files that hold secrets: modes are set when they are made and checked when they are used (I8). */
import { mkdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { IsthmusError } from "../mesh/errors.ts";

/** @throws {IsthmusError} `FileMode` when others than the owner may do more than `mode` allows. */
export function requireMode(path: string, mode: 0o600 | 0o700): void {
  const found = statSync(path).mode & 0o777;
  if ((found & ~mode) === 0) return;
  const [have, want] = [found, mode].map((bits) => bits.toString(8).padStart(4, "0"));
  throw new IsthmusError("FileMode", `${path} has mode ${have}, which lets others read or change it`, { remedy: `Run: chmod ${want} ${path}` });
}

/** Makes the folder with mode 0700, or checks the one that is there. */
export function privateFolder(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  requireMode(path, 0o700);
}

/** Writes a file of mode 0600 whole or not at all. */
export function writePrivate(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = `${path}.${process.pid}.new`;
  try {
    writeFileSync(temporary, content, { mode: 0o600, flush: true });
    renameSync(temporary, path);
  } catch (thrown) {
    rmSync(temporary, { force: true });
    throw thrown;
  }
}
