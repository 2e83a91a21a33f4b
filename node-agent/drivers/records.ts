/** What must be known to undo our doing, kept in the data directory: written before the deed, removed after its undoing. */
import { readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { makeFolder } from "../files.ts";
import { writeAtomic } from "../whole-file.ts";

export interface Records {
  /** Sysctls that we set: the value before. */
  readonly sysctls: Readonly<Record<string, string>>;
  /** The nft body that we applied, and a digest of how the kernel lists it. */
  readonly nft?: { readonly body: string; readonly digest: string };
  /** Files that we made outside our own directories, and iptables or firewalld rules. */
  readonly files: readonly string[];
  readonly undo: readonly (readonly string[])[];
}

const Kept = z.looseObject({
  sysctls: z.record(z.string(), z.string()).default({}),
  nft: z.object({ body: z.string(), digest: z.string() }).optional(),
  files: z.array(z.string()).default([]),
  undo: z.array(z.array(z.string())).default([]),
});

const EMPTY: Records = { sysctls: {}, files: [], undo: [] };

export interface RecordStore {
  read(): Records;
  /** @throws {IsthmusError} DiskFull or FileMode when it cannot be kept: then the deed must not be done either. */
  update(change: (records: Records) => Records): void;
  /** As `update`, for what only saves work later: a disk that does not take it is no failure of what was done. */
  note(change: (records: Records) => Records): void;
}

export function openRecords(dataDir: string, log: (line: string) => void = () => {}): RecordStore {
  const file = join(dataDir, "kernel.json");
  let current: Records | undefined;
  const read = (): Records => (current ??= load(file, log));
  const update: RecordStore["update"] = (change) => {
    const next = change(read());
    if (next === current) return;
    // Nothing left to undo: no trace of us either.
    if (isEmpty(next)) rmSync(file, { force: true });
    else {
      makeFolder(dataDir);
      writeAtomic(file, `${JSON.stringify(next, undefined, 1)}\n`);
    }
    current = next;
  };
  return {
    read,
    update,
    note(change) {
      try {
        update(change);
      } catch {
        current = change(read());
      }
    },
  };
}

function isEmpty({ sysctls, nft, files, undo }: Records): boolean {
  return Object.keys(sysctls).length === 0 && nft === undefined && files.length === 0 && undo.length === 0;
}

/** Absent at the first start. Damaged: it is set aside for a person, because what it held will not be undone. */
function load(file: string, log: (line: string) => void): Records {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return EMPTY;
    throw error;
  }
  try {
    const { nft, ...kept } = Kept.parse(JSON.parse(text));
    return { ...kept, ...(nft === undefined ? {} : { nft }) };
  } catch {
    const aside = `${file}.damaged`;
    renameSync(file, aside);
    log(`${file} is damaged; it was set aside as ${aside}. Sysctls, files and firewall rules that it recorded will not be undone by cleanup.`);
    return EMPTY;
  }
}
