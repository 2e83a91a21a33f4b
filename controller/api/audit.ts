/** Who did what, before and after: JSON lines, mode 0600. Objects hold no secret, so none can get here (I8). */
import { closeSync, existsSync, openSync, writeSync } from "node:fs";
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

export function openAudit(file: string, now: () => number, onFailure: (error: unknown) => void): Audit {
  if (existsSync(file)) requireMode(file, 0o600);
  const handle = openSync(file, "a", 0o600);
  return {
    record: (entry) => {
      try {
        writeSync(handle, `${JSON.stringify({ at: new Date(now()).toISOString(), ...entry })}\n`);
      } catch (thrown) {
        onFailure(thrown);
      }
    },
    close: () => closeSync(handle),
  };
}
