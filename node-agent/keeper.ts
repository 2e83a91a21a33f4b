/**
 * Keeps one file up to date off the beat of the event loop: an fsync on a busy disk takes a tenth of a second, and a prober
 * that stands still for so long must void its own window. Writes follow each other, never overlap, and the newest text wins.
 */
import type { IsthmusError } from "../mesh/errors.ts";
import { readIfThere, writeFailure } from "./files.ts";
import { writeAtomic, writeLater } from "./whole-file.ts";

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
  let failed = false;
  const told = (error: IsthmusError | undefined): void => {
    failed = error !== undefined;
    onResult(error);
  };
  /** What a write that is under way writes; a flush takes it over. */
  let writing: { readonly text: string; taken: boolean } | undefined;

  const schedule = (ms: number): void => {
    timer ??= setTimeout(() => void write(), ms);
    timer.unref();
  };
  const write = async (): Promise<void> => {
    timer = undefined;
    const text = wanted?.();
    if (writing !== undefined || text === undefined) return;
    wanted = undefined;
    if (text === written) {
      // What found no room is no longer wanted: the file says what it should.
      if (failed) told(undefined);
      return;
    }
    const mine = { text, taken: false };
    writing = mine;
    try {
      await writeLater(path, text, () => !mine.taken);
      if (mine.taken) return;
      written = text;
      told(undefined);
    } catch (thrown) {
      if (mine.taken) return;
      wanted ??= () => text;
      told(writeFailure(path, thrown));
      schedule(RETRY_MS);
    } finally {
      writing = undefined;
      if (wanted !== undefined) schedule(afterMs);
    }
  };

  return {
    set(text) {
      wanted = text;
      if (writing === undefined) schedule(afterMs);
    },
    flush() {
      clearTimeout(timer);
      timer = undefined;
      const text = wanted?.() ?? writing?.text;
      if (text === undefined || (writing === undefined && text === written)) return;
      wanted = undefined;
      if (writing !== undefined) writing.taken = true;
      try {
        writeAtomic(path, text);
        written = text;
      } catch (thrown) {
        wanted = () => text;
        told(writeFailure(path, thrown));
      }
    },
  };
}
