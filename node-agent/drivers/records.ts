/** What must be known to undo our doing, kept in the data directory: written before the deed, removed after its undoing. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { IsthmusError } from "../../mesh/errors.ts";

export interface Records {
  /** Sysctls that we set: the value before. */
  readonly sysctls: Readonly<Record<string, string>>;
  /** The nft body that we applied, and a digest of how the kernel lists it. */
  readonly nft?: { readonly body: string; readonly digest: string };
  /** Files that we made outside our own directories, and iptables or firewalld rules. */
  readonly files: readonly string[];
  readonly undo: readonly (readonly string[])[];
}

const EMPTY: Records = { sysctls: {}, files: [], undo: [] };

export interface RecordStore {
  read(): Records;
  /** @throws {IsthmusError} DiskFull or FileMode when it cannot be kept: then the deed must not be done either. */
  update(change: (records: Records) => Records): void;
}

export function openRecords(dataDir: string): RecordStore {
  const file = join(dataDir, "kernel.json");
  let current: Records | undefined;
  const read = (): Records => (current ??= load(file));
  return {
    read,
    update(change) {
      const next = change(read());
      if (next === current) return;
      // Nothing left to undo: no trace of us either.
      if (isEmpty(next)) rmSync(file, { force: true });
      else writeAtomically(file, `${JSON.stringify(next, undefined, 1)}\n`);
      current = next;
    },
  };
}

function isEmpty({ sysctls, nft, files, undo }: Records): boolean {
  return Object.keys(sysctls).length === 0 && nft === undefined && files.length === 0 && undo.length === 0;
}

function load(file: string): Records {
  try {
    return { ...EMPTY, ...(JSON.parse(readFileSync(file, "utf8")) as Partial<Records>) };
  } catch {
    // Absent at the first start. Damaged: what it held is lost, and the next write makes it whole again.
    return EMPTY;
  }
}

/** Readers see the old file or the new one. @throws {IsthmusError} */
export function writeAtomically(file: string, text: string, mode = 0o600): void {
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    const temporary = `${file}.${process.pid}.new`;
    writeFileSync(temporary, text, { mode, flush: true });
    renameSync(temporary, file);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    const full = code === "ENOSPC" || code === "EDQUOT";
    throw new IsthmusError(full ? "DiskFull" : "FileMode", `${file} cannot be written (${code ?? String(cause)})`, {
      remedy: full ? "free some disk space" : "check the owner and mode of the directory",
      cause,
    });
  }
}
