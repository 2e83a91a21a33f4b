/** A draft of one transaction: reads see its own writes, and everything read is compared when it is committed. */
import { IsthmusError } from "../../mesh/errors.ts";
import type { Store, Transaction } from "../store/types.ts";
import type { Mirror } from "./mirror.ts";

export interface Draft {
  /** The value under a key, as this draft would leave it. */
  read(key: string): unknown;
  write(key: string, value: unknown): void;
  remove(key: string): void;
  /** Revision at which a key was last written; 0 when absent. Written by this draft: undefined. */
  revisionOf(key: string): number | undefined;
}

const ATTEMPTS = 20;

/**
 * Runs `work` on a draft and commits it; where another writer came between, runs it again on the newer state. Resolves
 * with the revision and the result once the mirror holds it. @param more what the transaction does beside it
 */
export async function commit<T>(
  store: Store,
  mirror: Mirror,
  work: (draft: Draft) => T,
  more: Pick<Transaction, "recovering"> = {},
): Promise<{ revision: number; result: T }> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const { draft, transaction } = newDraft(mirror);
    const result = work(draft);
    const outcome = await store.txn({ ...transaction(), ...more });
    if (outcome.ok) {
      await mirror.at(outcome.revision);
      return { revision: outcome.revision, result };
    }
    await mirror.at((await store.state()).revision);
  }
  throw new IsthmusError("Conflict", "the same objects kept being changed by somebody else", { remedy: "Try again." });
}

/** What `work` would do, without doing it. */
export function preview<T>(mirror: Mirror, work: (draft: Draft) => T): { result: T; transaction: Transaction } {
  const { draft, transaction } = newDraft(mirror);
  const result = work(draft);
  return { result, transaction: transaction() };
}

function newDraft(mirror: Mirror): { draft: Draft; transaction: () => Transaction } {
  const reads = new Map<string, number>();
  const writes = new Map<string, unknown>();
  const look = (key: string): unknown => {
    const item = mirror.get(key);
    reads.set(key, item?.revision ?? 0);
    return item?.value;
  };
  return {
    draft: {
      read: (key) => (writes.has(key) ? writes.get(key) : look(key)),
      write: (key, value) => void writes.set(key, value),
      remove: (key) => void writes.set(key, undefined),
      revisionOf: (key) => {
        if (writes.has(key)) return undefined;
        look(key);
        return reads.get(key) ?? 0;
      },
    },
    transaction: () => ({
      compare: [...reads].map(([key, revision]) => ({ key, revision })),
      put: [...writes].filter(([, value]) => value !== undefined).map(([key, value]) => ({ key, value })),
      delete: [...writes].filter(([, value]) => value === undefined).map(([key]) => key),
    }),
  };
}
