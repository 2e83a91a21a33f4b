/**
 * Views as both ends of the stream hold them: entries with a hash that is the sum, modulo 2^64, of the hashes of all
 * entries. A sum does not depend on order and follows a change at the cost of that change. Entries fall into 256 buckets
 * by the hash of their key, so that two ends that differ find out where.
 */
import type { ViewData } from "../model/plan.ts";
import type { CompileOutput, ViewChange, ViewId } from "./types.ts";

export const BUCKETS = 256;

/** A 64-bit hash as two unsigned 32-bit halves. */
export interface Hash64 {
  readonly hi: number;
  readonly lo: number;
}

/** One view with its hashes. A value: changing it gives a new one. */
export interface ViewState {
  readonly data: ViewData;
  /** `[hi, lo]` of each bucket. */
  readonly sums: Uint32Array;
}

/** A view with these entries; empty without any. */
export function createView(entries: Iterable<readonly [string, unknown]> = []): ViewState {
  const data = new Map(entries);
  const sums = new Uint32Array(2 * BUCKETS);
  for (const [key, value] of data) addEntry(sums, key, value);
  return { data, sums };
}

/** The view after a delta. Deleting what is absent does nothing; a key in both is put. */
export function applyPutDelete(view: ViewState, put: Iterable<readonly [string, unknown]>, remove: Iterable<string> = []): ViewState {
  const data = new Map(view.data);
  const sums = view.sums.slice();
  for (const key of remove) {
    if (!data.has(key)) continue;
    subtractEntry(sums, key, data.get(key));
    data.delete(key);
  }
  for (const [key, value] of put) {
    if (data.has(key)) subtractEntry(sums, key, data.get(key));
    addEntry(sums, key, value);
    data.set(key, value);
  }
  return { data, sums };
}

/** The view after its named buckets, or all of it, were replaced (message `fill`). */
export function applyFill(view: ViewState, buckets: readonly number[] | undefined, put: Iterable<readonly [string, unknown]>): ViewState {
  if (buckets === undefined) return createView(put);
  const replaced = new Set(buckets);
  return applyPutDelete(
    view,
    put,
    [...view.data.keys()].filter((key) => replaced.has(bucketOf(key))),
  );
}

/** Hash of the whole view: 16 hexadecimal digits. */
export function viewHash(view: ViewState): string {
  let hi = 0;
  let lo = 0;
  for (let i = 0; i < view.sums.length; i += 2) {
    lo += view.sums[i + 1] ?? 0;
    hi += view.sums[i] ?? 0;
  }
  // 256 halves of 32 bits stay far below 2^53, so the carry is exact.
  return hexOf({ hi: (hi + Math.floor(lo / 2 ** 32)) >>> 0, lo: lo >>> 0 });
}

/** Hash of every bucket, 256 texts of 16 hexadecimal digits. */
export function bucketHashes(view: ViewState): string[] {
  return Array.from({ length: BUCKETS }, (_, i) => hexOf({ hi: view.sums[2 * i] ?? 0, lo: view.sums[2 * i + 1] ?? 0 }));
}

/** Buckets in which two lists of `bucketHashes` differ. */
export function differingBuckets(ours: readonly string[], theirs: readonly string[]): number[] {
  return ours.flatMap((hash, bucket) => (hash === theirs[bucket] ? [] : [bucket]));
}

/** Entries of the named buckets, for the message `fill`. */
export function entriesInBuckets(view: ViewState, buckets: readonly number[]): Map<string, unknown> {
  const wanted = new Set(buckets);
  return new Map([...view.data].filter(([key]) => wanted.has(bucketOf(key))));
}

/** The bucket of a key: the first byte of its hash. */
export function bucketOf(key: string): number {
  seed();
  absorb(key);
  return finish().hi >>> 24;
}

/** Hash of one entry, over the key and the JSON text of the value. */
export function keyHash(key: string, json: string): Hash64 {
  seed();
  absorb(key);
  absorb("\n");
  absorb(json);
  return finish();
}

/** What turns the views of `before` into those of `after`, sorted by view. Views that are the same object cost nothing. */
export function diffViews(before: Pick<CompileOutput, "views"> | undefined, after: Pick<CompileOutput, "views">): Map<ViewId, ViewChange> {
  const changes = new Map<ViewId, ViewChange>();
  const earlier = before?.views ?? new Map<ViewId, ViewData>();
  for (const [id, view] of after.views) {
    const old = earlier.get(id);
    if (old === view) continue;
    const change = diffView(old, view);
    if (change !== undefined) changes.set(id, change);
  }
  let gone = false;
  for (const [id, old] of earlier) {
    if (after.views.has(id)) continue;
    gone = true;
    changes.set(id, { put: new Map(), delete: [...old.keys()].sort() });
  }
  return gone ? new Map([...changes].sort(([a], [b]) => (a < b ? -1 : 1))) : changes;
}

/** What turns `before` into `after`; nothing when they say the same. */
export function diffView(before: ViewData | undefined, after: ViewData): ViewChange | undefined {
  const old = before ?? EMPTY;
  const put = new Map<string, unknown>();
  // Both are sorted as a rule, so the other side's entry is nearly always the next one; looking it up is the exception.
  const others = old.entries();
  let next = others.next();
  let found = 0;
  for (const [key, value] of after) {
    if (next.done === true || next.value[0] !== key) {
      if (!old.has(key)) {
        put.set(key, value);
        continue;
      }
      while (next.done !== true && next.value[0] !== key) next = others.next();
    }
    const earlier = next.done === true ? old.get(key) : next.value[1];
    if (next.done !== true) next = others.next();
    found++;
    if (earlier !== value && JSON.stringify(earlier) !== JSON.stringify(value)) put.set(key, value);
  }
  const removed = found === old.size ? [] : [...old.keys()].filter((key) => !after.has(key)).sort();
  return put.size === 0 && removed.length === 0 ? undefined : { put, delete: removed };
}

const EMPTY: ViewData = new Map();

function addEntry(sums: Uint32Array, key: string, value: unknown): void {
  const { at, hi, lo } = locate(key, value);
  const sum = (sums[at + 1] ?? 0) + lo;
  sums[at + 1] = sum;
  sums[at] = (sums[at] ?? 0) + hi + (sum >= 2 ** 32 ? 1 : 0);
}

function subtractEntry(sums: Uint32Array, key: string, value: unknown): void {
  const { at, hi, lo } = locate(key, value);
  const sum = (sums[at + 1] ?? 0) - lo;
  sums[at + 1] = sum;
  sums[at] = (sums[at] ?? 0) - hi - (sum < 0 ? 1 : 0);
}

/** An entry's hash and the place of its bucket, reading the key once. */
function locate(key: string, value: unknown): { at: number; hi: number; lo: number } {
  seed();
  absorb(key);
  const at = 2 * (finish().hi >>> 24);
  absorb("\n");
  absorb(JSON.stringify(value));
  const { hi, lo } = finish();
  return { at, hi, lo };
}

function hexOf(hash: Hash64): string {
  return hash.hi.toString(16).padStart(8, "0") + hash.lo.toString(16).padStart(8, "0");
}

// Two 32-bit multiplicative lanes over UTF-16 code units, finished as in MurmurHash3 (the constants are those of the public
// domain "cyrb53" and of MurmurHash3's fmix32). Not for security: both ends are authenticated, this finds faults. The lanes are
// registers, not memory: each hash begins with `seed` and none is interrupted.
let laneA = 0;
let laneB = 0;

function seed(): void {
  laneA = 0xdeadbeef;
  laneB = 0x41c6ce57;
}

function absorb(text: string): void {
  let a = laneA;
  let b = laneB;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    a = Math.imul(a ^ unit, 2654435761);
    b = Math.imul(b ^ unit, 1597334677);
  }
  laneA = a;
  laneB = b;
}

function finish(): Hash64 {
  let a = Math.imul(laneA ^ (laneA >>> 16), 2246822507);
  a ^= Math.imul(laneB ^ (laneB >>> 13), 3266489909);
  let b = Math.imul(laneB ^ (laneB >>> 16), 2246822507);
  b ^= Math.imul(a ^ (a >>> 13), 3266489909);
  return { hi: b >>> 0, lo: a >>> 0 };
}
