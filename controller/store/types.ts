/**
 * The store's port. One revision covers all that compile reads: every change of an item raises it by one per transaction,
 * and everything written by one transaction carries the same revision. Backends: SQLite (`sqlite.ts`); the contract
 * suite in `test/controller/store/contract.ts` holds whatever comes after.
 */
import type { Position } from "../../mesh/model/wire.ts";

/** A JSON value under a key, and the revision that wrote it. */
export interface Item {
  readonly key: string;
  readonly value: unknown;
  readonly revision: number;
}

/** `value` is absent when the key was deleted. */
export interface Change {
  readonly key: string;
  readonly revision: number;
  readonly value?: unknown;
}

/** All or nothing. `compare` names the revision that a key must have; 0 means that it must not exist. */
export interface Transaction {
  readonly compare?: readonly { readonly key: string; readonly revision: number }[];
  readonly put?: readonly { readonly key: string; readonly value: unknown }[];
  /** Deleting what is absent succeeds. */
  readonly delete?: readonly string[];
  /** Whether the store recovers after it. */
  readonly recovering?: boolean;
}

/** `revision` is the store's revision after it. A transaction that changes nothing raises no revision. */
export type TransactionResult = { readonly ok: true; readonly revision: number } | { readonly ok: false; readonly conflict: string };

/** What a watch yields: the changes of one revision, or the news that the log no longer reaches back that far. */
export type WatchEvent =
  | { readonly type: "changes"; readonly revision: number; readonly changes: readonly Change[] }
  | { readonly type: "compacted" };

export interface Listing {
  readonly items: readonly Item[];
  readonly revision: number;
}

/** Where the store stands, and whether it recovers from lost writes (DESIGN §5). */
export interface StoreState extends Position {
  readonly recovering: boolean;
}

export interface Store {
  state(): Promise<StoreState>;
  /** Items whose key starts with the prefix, sorted by key. */
  list(prefix: string): Promise<Listing>;
  get(key: string): Promise<Item | undefined>;
  /** @throws {IsthmusError} `DiskFull`, `StoreDamaged` */
  txn(transaction: Transaction): Promise<TransactionResult>;
  /** Every change after `since`, in order, until the signal aborts. */
  watch(since: number, signal: AbortSignal): AsyncIterable<WatchEvent>;
  /** Raises epoch and revision to at least these, and says whether the store recovers. Neither ever sinks. */
  raise(to: { readonly epoch?: number; readonly revision?: number; readonly recovering?: boolean }): Promise<StoreState>;
  /** Volatile notes (last contact, events): kept, but outside the revision and unseen by watchers. `undefined` deletes. */
  note(entries: ReadonlyMap<string, unknown>): Promise<void>;
  notes(prefix: string): Promise<ReadonlyMap<string, unknown>>;
  /** Forgets the log before the last `keep` revisions. */
  compact(keep: number): Promise<void>;
  close(): Promise<void>;
}
