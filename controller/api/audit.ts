/**
 * Who did what, before and after: JSON lines, mode 0600. Objects hold no secret, so none can get here (I8). A full file is put
 * aside as `audit.jsonl.1`, the one before it as `.2` and so on, and the oldest goes.
 */
import { closeSync, existsSync, fstatSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { requireMode } from "../files.ts";

export interface AuditEntry {
  readonly who: string;
  readonly action: string;
  readonly kind?: string;
  readonly name?: string;
  readonly before?: unknown;
  readonly after?: unknown;
  readonly revision?: number;
}

export interface Audit {
  record(entry: AuditEntry): void;
  close(): void;
}

export interface AuditLimits {
  /** A file that would grow beyond it is put aside first. */
  readonly bytes: number;
  /** Files put aside that are kept. */
  readonly kept: number;
}

/** About 100,000 changes of small objects. */
const LIMITS: AuditLimits = { bytes: 32 * 1024 * 1024, kept: 4 };

/** @throws {IsthmusError} `FileMode` */
export function openAudit(file: string, now: () => number, onFailure: (error: unknown) => void, limits: AuditLimits = LIMITS): Audit {
  for (const path of [file, ...aside(file, limits)]) if (existsSync(path)) requireMode(path, 0o600);
  let handle: number | undefined;
  let size = 0;

  function open(): number {
    handle = openSync(file, "a", 0o600);
    size = fstatSync(handle).size;
    return handle;
  }

  function close(): void {
    if (handle !== undefined) closeSync(handle);
    handle = undefined;
  }

  /** Where it fails, the file grows on: an entry matters more than the limit. */
  function rotate(): void {
    close();
    try {
      let to: string | undefined;
      for (const from of [file, ...aside(file, limits)].toReversed()) {
        if (to === undefined) rmSync(from, { force: true });
        else if (existsSync(from)) renameSync(from, to);
        to = from;
      }
    } catch (thrown) {
      onFailure(thrown);
    }
  }

  open();
  return {
    record(entry) {
      try {
        const line = Buffer.from(`${JSON.stringify({ at: new Date(now()).toISOString(), ...entry })}\n`);
        if (size > 0 && size + line.length > limits.bytes) rotate();
        const written = writeSync(handle ?? open(), line);
        size += written;
      } catch (thrown) {
        onFailure(thrown);
      }
    },
    close,
  };
}

function aside(file: string, { kept }: AuditLimits): string[] {
  return Array.from({ length: kept }, (_, i) => `${file}.${i + 1}`);
}
