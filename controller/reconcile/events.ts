/** Events of agents and controller: a ring, repeated ones counted instead of kept twice, saved as notes of the store. */
import type { EventRecord } from "../../mesh/model/answers.ts";
import type { AgentEvent } from "../../mesh/model/wire.ts";
import type { Store } from "../store/types.ts";

/** Times are milliseconds since 1970; `at` is the last time. */
export interface StoredEvent extends EventRecord {
  readonly first: number;
  readonly count: number;
  /** Order of the last change. */
  readonly seq: number;
}

export interface Events {
  /** `node` is the node that reports it; undefined when the controller says it. */
  record(node: string | undefined, event: Omit<AgentEvent, "at"> & { readonly at?: number }): void;
  /** Newest last; `since`: later than this time. */
  list(filter: { readonly about?: string | undefined; readonly since?: number | undefined }): readonly StoredEvent[];
  subscribe(listener: (event: StoredEvent) => void): () => void;
  close(): Promise<void>;
}

const KEPT = 5_000;
/** Of one node: it cannot push the others' out. */
const KEPT_OF_NODE = 500;
/** The same again within this time is counted. */
const SAME_MS = 10 * 60_000;
const SAVE_MS = 500;
/** After a write that failed: on a full disk, until there is room. */
const RETRY_MS = 5_000;
const PREFIX = "event/";

export async function openEvents(store: Store, now: () => number, onFailure: (error: unknown) => void): Promise<Events> {
  const saved = [...(await store.notes(PREFIX)).values()] as StoredEvent[];
  const ring = new Map<string, StoredEvent>(saved.sort((a, b) => a.seq - b.seq).map((event) => [keyOf(event), event]));
  /** Keys that the store has. */
  const stored = new Set(ring.keys());
  const dirty = new Map<string, StoredEvent | undefined>();
  const listeners = new Set<(event: StoredEvent) => void>();
  const ofNode = new Map<string, number>();
  let seq = saved.at(-1)?.seq ?? 0;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  for (const { node } of saved) count(node, 1);

  function count(node: string | undefined, by: number): void {
    if (node === undefined) return;
    const kept = (ofNode.get(node) ?? 0) + by;
    if (kept === 0) ofNode.delete(node);
    else ofNode.set(node, kept);
  }

  function drop(oldest: readonly [string, StoredEvent] | undefined): void {
    if (oldest === undefined) return;
    const [key, { node }] = oldest;
    ring.delete(key);
    dirty.set(key, undefined);
    count(node, -1);
  }

  async function save(): Promise<void> {
    clearTimeout(timer);
    timer = undefined;
    const batch = new Map(dirty);
    if (batch.size === 0) return;
    dirty.clear();
    try {
      await store.note(new Map([...batch].map(([key, value]) => [PREFIX + key, value])));
      for (const [key, value] of batch) {
        if (value === undefined) stored.delete(key);
        else stored.add(key);
      }
    } catch (thrown) {
      onFailure(thrown);
      for (const key of batch.keys()) dirty.set(key, ring.get(key));
      // What came and went meanwhile is nothing to write: on a disk that stays full it would pile up.
      for (const [key, value] of dirty) if (value === undefined && !stored.has(key)) dirty.delete(key);
      if (!closed) timer ??= setTimeout(() => void save(), RETRY_MS);
    }
  }

  return {
    record(node, { type, reason, message, about, at }) {
      const time = Math.min(at ?? now(), now());
      const key = keyOf({ node, type, reason, about, message });
      const before = ring.get(key);
      const again = before !== undefined && time - before.at < SAME_MS;
      const event: StoredEvent = {
        at: time,
        first: again ? before.first : time,
        count: again ? before.count + 1 : 1,
        type,
        reason,
        message,
        about,
        ...(node === undefined ? {} : { node }),
        seq: ++seq,
      };
      ring.delete(key);
      ring.set(key, event);
      dirty.set(key, event);
      if (before === undefined) count(node, 1);
      if (node !== undefined && (ofNode.get(node) ?? 0) > KEPT_OF_NODE) drop(ring.entries().find(([, one]) => one.node === node));
      if (ring.size > KEPT) drop(ring.entries().next().value);
      timer ??= setTimeout(() => void save(), SAVE_MS);
      for (const listener of listeners) listener(event);
    },
    list: ({ about, since = 0 }) => [...ring.values()].filter((event) => event.at > since && (about === undefined || event.about === about)),
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close: () => {
      closed = true;
      return save();
    },
  };
}

function keyOf({
  node,
  type,
  reason,
  message,
  about,
}: Pick<EventRecord, "type" | "reason" | "message" | "about"> & { readonly node?: string | undefined }): string {
  return JSON.stringify([node ?? "", about, type, reason, message]);
}
