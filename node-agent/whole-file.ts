/**
 * Files that are whole at any time: written beside themselves, to the disk, and renamed. What a process that was killed leaves
 * beside them has a name that `dropHalves` knows.
 */
import { closeSync, fchmodSync, fchownSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { open, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { refuseUnlessUnable } from "../mesh/folders.ts";
import { namesIn, onDisk } from "./files.ts";

/** Whose the file is and who may do what, whatever our umask is: root alone (0600) when absent. */
export interface Access {
  readonly mode?: number;
  readonly owner?: { readonly uid: number; readonly gid: number };
}

const HALF = /\.\d+\.isthmus-new$/;

function halfOf(path: string): string {
  return `${path}.${process.pid}.isthmus-new`;
}

/** A crash leaves the old file or the new one. @throws DiskFull, FileMode */
export function writeAtomic(path: string, content: string, { mode = 0o600, owner }: Access = {}): void {
  const half = halfOf(path);
  onDisk(path, () => {
    try {
      const file = openSync(half, "w", 0o600);
      try {
        writeFileSync(file, content);
        if (owner !== undefined) fchownSync(file, owner.uid, owner.gid);
        fchmodSync(file, mode);
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      renameSync(half, path);
    } catch (error) {
      discard(half);
      throw error;
    }
    syncFolder(dirname(path));
  });
}

/** A rename is on the disk only with its folder (fsync(2)). */
export function syncFolder(path: string): void {
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } catch (error) {
    refuseUnlessUnable(error);
  } finally {
    closeSync(folder);
  }
}

/** As `writeAtomic`, without holding the event loop up; drops the text when it is no longer `wanted`. What fails is thrown as it is. */
export async function writeLater(path: string, content: string, wanted: () => boolean): Promise<void> {
  // Another name than that of a `writeAtomic` beside it.
  const half = halfOf(`${path}.later`);
  try {
    await using file = await open(half, "w", 0o600);
    await file.writeFile(content);
    await file.sync();
    // At once with the question: nothing can come between.
    if (!wanted()) return await rm(half, { force: true });
    renameSync(half, path);
  } catch (error) {
    await rm(half, { force: true });
    throw error;
  }
  await using folder = await open(dirname(path), "r");
  await folder.sync().catch(refuseUnlessUnable);
}

/** Removes what was left half-written in a folder, of the file of that name or of all. Nobody else may be writing there. */
export function dropHalves(folder: string, of = ""): void {
  for (const name of namesIn(folder)) if (HALF.test(name) && (of === "" || name.startsWith(`${of}.`))) discard(join(folder, name));
}

/** The failure that is told is the one before. */
function discard(file: string): void {
  try {
    rmSync(file, { force: true });
  } catch {
    // Its folder is no folder, or read-only.
  }
}
