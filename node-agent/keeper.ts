/**
 * Keeps one file up to date off the beat of the event loop: an fsync on a busy disk takes a tenth of a second, and a prober
 * that stands still for so long must void its own window. Writes follow each other, never overlap, and the newest text wins.
 */
import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import type { IsthmusError } from "../mesh/errors.ts";
import { onDisk, readIfThere, writeAtomic, writeFailure } from "./files.ts";

export interface Keeper {
  /** The text is made when it is written. */
  set(text: () => string): void;
  /** Writes what is waiting, before the process ends. */
  flush(): void;
}

export interface KeeperOptions {
  readonly path: string;
  readonly afterMs: number;
  /** `undefined` once a write worked after a failure, or at the first. */
  readonly onResult: (error: IsthmusError | undefined) => void;
}

/** After a failure (a full disk) the write is tried again. */
const RETRY_MS = 10_000;

export function createKeeper({ path, afterMs, onResult }: KeeperOptions): Keeper {
  let wanted: (() => string) | undefined;
  let written = readIfThere(path);
  let timer: NodeJS.Timeout | undefined;
  let writing = false;

  const schedule = (ms: number): void => {
    timer ??= setTimeout(() => void write(), ms);
    timer.unref();
  };
  const write = async (): Promise<void> => {
    timer = undefined;
    const text = wanted?.();
    if (writing || text === undefined) return;
    wanted = undefined;
    if (text === written) return;
    writing = true;
    try {
      await writeLater(path, text);
      written = text;
      onResult(undefined);
    } catch (thrown) {
      wanted ??= () => text;
      onResult(writeFailure(path, thrown));
      schedule(RETRY_MS);
    } finally {
      writing = false;
      if (wanted !== undefined) schedule(afterMs);
    }
  };

  return {
    set(text) {
      wanted = text;
      if (!writing) schedule(afterMs);
    },
    flush() {
      clearTimeout(timer);
      const text = wanted?.();
      if (text === undefined || text === written) return;
      try {
        onDisk(path, () => writeAtomic(path, text));
      } catch (thrown) {
        onResult(writeFailure(path, thrown));
      }
    },
  };
}

/** As `writeAtomic`, without holding the event loop up. */
async function writeLater(path: string, text: string): Promise<void> {
  const temporary = `${path}.later-${process.pid}`;
  try {
    await using file = await open(temporary, "w", 0o600);
    await file.writeFile(text);
    await file.sync();
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await using folder = await open(dirname(path), "r");
  await folder.sync();
}
