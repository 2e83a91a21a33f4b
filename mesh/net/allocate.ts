/**
 * Node indexes, from which all overlay addresses derive (I6). A freed index rests before it is given again: for a while
 * somebody may still hold the old node's addresses in a cache, a conntrack entry or a plan.
 */

/** How long a freed index rests, in ms. */
export const QUARANTINE_MS = 24 * 3_600_000;

/** JSON; the store keeps it and writes it by compare-and-set. */
export interface AllocationState {
  /** The lowest index that was never given. Indexes start at 1. */
  readonly next: number;
  /** Indexes that rest: freed or skipped, longest ago first; `at` in ms since 1970. */
  readonly freed: readonly { readonly index: number; readonly at: number }[];
}

export type Allocation =
  | { readonly ok: true; readonly index: number; readonly state: AllocationState }
  /** `retryAt`: when the first resting index may be given; absent when none rests. */
  | { readonly ok: false; readonly reason: "Exhausted"; readonly retryAt?: number };

export const NO_ALLOCATIONS: AllocationState = { next: 1, freed: [] };

/** The next index, up to and including `max`: a fresh one, else the one freed longest ago whose rest is over. */
export function allocate(state: AllocationState, now: number, max: number, quarantineMs: number = QUARANTINE_MS): Allocation {
  if (state.next <= max) return { ok: true, index: state.next, state: { ...state, next: state.next + 1 } };
  const usable = state.freed.filter(({ index }) => index <= max);
  const oldest = usable[0];
  if (oldest === undefined) return { ok: false, reason: "Exhausted" };
  if (oldest.at + quarantineMs > now) return { ok: false, reason: "Exhausted", retryAt: oldest.at + quarantineMs };
  return { ok: true, index: oldest.index, state: { ...state, freed: state.freed.filter((entry) => entry !== oldest) } };
}

/** Gives an index back. Giving back what nobody holds changes nothing. */
export function free(state: AllocationState, index: number, now: number): AllocationState {
  if (!isAllocated(state, index)) return state;
  return { ...state, freed: oldestFirst([...state.freed, { index, at: now }]) };
}

/** Takes an index that its owner can prove; those below it that were never given rest, as somebody may hold them. */
export function claim(state: AllocationState, index: number, now: number): AllocationState {
  const reached = index < state.next ? state : skip(state, index + 1 - state.next, now);
  return { ...reached, freed: reached.freed.filter((entry) => entry.index !== index) };
}

/** Leaves out the next fresh indexes. They rest like freed ones, so that none is lost to the range for good. */
export function skip(state: AllocationState, count: number, now: number): AllocationState {
  const skipped = Array.from({ length: count }, (_, i) => ({ index: state.next + i, at: now }));
  return { next: state.next + count, freed: oldestFirst([...state.freed, ...skipped]) };
}

/** Whether somebody holds the index. */
export function isAllocated(state: AllocationState, index: number): boolean {
  return Number.isInteger(index) && index >= 1 && index < state.next && !state.freed.some((entry) => entry.index === index);
}

function oldestFirst(freed: AllocationState["freed"]): AllocationState["freed"] {
  return freed.toSorted((a, b) => a.at - b.at || a.index - b.index);
}
