/** Remembering results between runs. It changes what a run costs, never what it says. */

/** Results by key, each valid while the objects that it was made from stay the same. */
export interface Memo<T> {
  readonly get: (key: string, madeFrom: readonly unknown[], make: () => T) => T;
  /** Ends a run: what the run did not ask for is forgotten. */
  readonly endRun: () => void;
}

export function createMemo<T>(): Memo<T> {
  type Entry = { readonly madeFrom: readonly unknown[]; readonly value: T };
  let last = new Map<string, Entry>();
  let current = new Map<string, Entry>();
  return {
    get(key, madeFrom, make) {
      const known = current.get(key) ?? last.get(key);
      const entry = known !== undefined && sameItems(known.madeFrom, madeFrom) ? known : { madeFrom, value: make() };
      current.set(key, entry);
      return entry.value;
    },
    endRun() {
      last = current;
      current = new Map();
    },
  };
}

/** The earlier object of a key as long as its content is the same: so that what is made from it can be remembered too. */
export interface Keeper<T> {
  readonly keep: (key: string, value: T) => T;
  readonly endRun: () => void;
}

export function createKeeper<T>(same: (a: T, b: T) => boolean): Keeper<T> {
  let last = new Map<string, T>();
  let current = new Map<string, T>();
  return {
    keep(key, value) {
      const earlier = last.get(key);
      const kept = earlier !== undefined && same(earlier, value) ? earlier : value;
      current.set(key, kept);
      return kept;
    },
    endRun() {
      last = current;
      current = new Map();
    },
  };
}

/** Whether both lists hold the same objects in the same order. */
export function sameItems(a: readonly unknown[], b: readonly unknown[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export function sameJson(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}
