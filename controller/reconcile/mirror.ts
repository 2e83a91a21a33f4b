/** The store's content in memory, at one revision: what every decision reads. Decisions are then compared in the store. */
import { setTimeout } from "node:timers/promises";
import type { Change, Item, Store } from "../store/types.ts";
import { splitKey } from "./keys.ts";

const RETRY_MS = 500;

export interface Mirror {
  readonly revision: number;
  get(key: string): Item | undefined;
  /** Items of one folder by name, in no order. */
  folder(folder: string): ReadonlyMap<string, Item>;
  /** Resolves when the mirror holds this revision. */
  at(revision: number): Promise<void>;
  /** Tells of changes after they were taken in; returns how to stop. */
  subscribe(listener: (changes: readonly Change[], revision: number) => void): () => void;
  /** After the store raised its revision by itself. */
  advance(revision: number): void;
  close(): Promise<void>;
}

export async function openMirror(store: Store, onFailure: (error: unknown) => void): Promise<Mirror> {
  const folders = new Map<string, Map<string, Item>>();
  const listeners = new Set<(changes: readonly Change[], revision: number) => void>();
  const stop = new AbortController();
  let waiting: { revision: number; done: () => void }[] = [];
  let revision = 0;

  function take(change: Change): void {
    const { folder, name } = splitKey(change.key);
    const items = folders.get(folder) ?? new Map<string, Item>();
    folders.set(folder, items);
    if (change.value === undefined) items.delete(name);
    else items.set(name, { key: change.key, value: change.value, revision: change.revision });
  }

  function reached(to: number): void {
    revision = Math.max(revision, to);
    const ready = waiting.filter((one) => one.revision <= revision);
    waiting = waiting.filter((one) => one.revision > revision);
    for (const one of ready) one.done();
  }

  /** One faulty listener takes the news from nobody else. */
  function tell(changes: readonly Change[], at: number): void {
    for (const listener of listeners) {
      try {
        listener(changes, at);
      } catch (thrown) {
        onFailure(thrown);
      }
    }
  }

  async function relist(): Promise<void> {
    const listing = await store.list("");
    const kept = new Set(listing.items.map((item) => item.key));
    const gone = [...folders.values()].flatMap((items) => [...items.values()]).filter((old) => !kept.has(old.key));
    const changes: Change[] = [
      ...listing.items.map(({ key, value, revision }) => ({ key, value, revision })),
      ...gone.map(({ key }) => ({ key, revision: listing.revision })),
    ];
    for (const change of changes) take(change);
    reached(listing.revision);
    tell(changes, listing.revision);
  }

  /** Follows the store for as long as the mirror is open: without it every decision would be made on old content. */
  async function follow(): Promise<void> {
    let whole = true;
    while (!stop.signal.aborted) {
      try {
        if (!whole) await relist();
        whole = true;
        await followWatch();
      } catch (thrown) {
        if (stop.signal.aborted) return;
        onFailure(thrown);
        whole = false;
        await setTimeout(RETRY_MS, undefined, { signal: stop.signal }).catch(() => undefined);
      }
    }
  }

  async function followWatch(): Promise<void> {
    while (!stop.signal.aborted) {
      for await (const event of store.watch(revision, stop.signal)) {
        if (event.type === "compacted") {
          await relist();
          break;
        }
        for (const change of event.changes) take(change);
        reached(event.revision);
        tell(event.changes, event.revision);
      }
    }
  }

  await relist();
  const following = follow();
  return {
    get revision() {
      return revision;
    },
    get: (key) => {
      const { folder, name } = splitKey(key);
      return folders.get(folder)?.get(name);
    },
    folder: (folder) => folders.get(folder) ?? new Map(),
    at: (to) => (to <= revision ? Promise.resolve() : new Promise((done) => waiting.push({ revision: to, done }))),
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    advance: reached,
    close: async () => {
      stop.abort();
      await following;
    },
  };
}
