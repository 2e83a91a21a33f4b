/**
 * How a folder is made with those above it, and which of them need no sync. Node's own recursive mkdir tries again for ever, deaf to
 * signals, where mkdir(2) says ENOENT below a folder that is there: /proc does, and so may autofs and FUSE. The calls come from
 * outside: nothing here touches a disk by itself.
 */
import { type ErrorCode, IsthmusError } from "./errors.ts";

/** Of node:fs. */
export interface FolderCalls {
  readonly mkdirSync: (path: string, options: { readonly mode: number }) => unknown;
  readonly statSync: (path: string, options: { readonly throwIfNoEntry: false }) => { isDirectory(): boolean } | undefined;
}

/** @param path absolute. @throws {IsthmusError} DiskFull, or FileMode with the remedy where the folder cannot be made */
export function makeFolders(path: string, mode: number, calls: FolderCalls, remedy: string): void {
  try {
    make(path, mode, calls);
  } catch (cause) {
    const { code = "", message } = cause as { readonly code?: string; readonly message: string };
    const full: ErrorCode | undefined = code === "ENOSPC" || code === "EDQUOT" ? "DiskFull" : undefined;
    throw new IsthmusError(full ?? "FileMode", `the folder ${path} cannot be made: ${message}`, {
      remedy: full === undefined ? remedy : "Free disk space, then try again.",
      cause,
    });
  }
}

/** Some file systems cannot sync a folder, and say so (fsync(2)): what was written there stands all the same. Throws what else failed. */
export function refuseUnlessUnable(error: unknown): void {
  const { code } = error as { readonly code?: string };
  if (code !== "EINVAL" && code !== "ENOTSUP") throw error;
}

function make(path: string, mode: number, calls: FolderCalls): void {
  if (isThere(path, calls)) return;
  const parent = path.slice(0, Math.max(1, path.lastIndexOf("/")));
  if (parent !== path) make(parent, mode, calls);
  try {
    calls.mkdirSync(path, { mode });
  } catch (error) {
    // Somebody else was faster.
    if (!isThere(path, calls)) throw error;
  }
}

function isThere(path: string, calls: FolderCalls): boolean {
  return calls.statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
