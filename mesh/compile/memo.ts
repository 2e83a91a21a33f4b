/** Remembering results between runs. It changes what a run costs, never what it says. */

/** Results by key, each valid while the objects that it was made from stay the same. */
export interface Memo<T> {
  readonly get: (key: string, madeFrom: readonly unknown[], make: () => T) => T;
  /** Ends a run: what the run did not ask for is forgotten. */
  readonly endRun: () => void;
}

export function createMemo<T>(): Memo<T> {
  const known = createGenerations<{ readonly madeFrom: readonly unknown[]; readonly value: T }>();
  return {
    get(key, madeFrom, make) {
      const earlier = known.use(key);
      if (earlier !== undefined && sameItems(earlier.madeFrom, madeFrom)) return earlier.value;
      const value = make();
      known.set(key, { madeFrom, value });
      return value;
    },
    endRun: known.endRun,
  };
}

/** The earlier object of a key as long as its content is the same: so that what is made from it can be remembered too. */
export interface Keeper<T> {
  readonly keep: (key: string, value: T) => T;
  readonly endRun: () => void;
}

export function createKeeper<T>(same: (a: T, b: T) => boolean): Keeper<T> {
  const known = createGenerations<T>();
  return {
    keep(key, value) {
      const earlier = known.use(key);
      if (earlier !== undefined && (earlier === value || same(earlier, value))) return earlier;
      known.set(key, value);
      return value;
    },
    endRun: known.endRun,
  };
}

interface Generations<T> {
  readonly use: (key: string) => T | undefined;
  readonly set: (key: string, value: T) => void;
  readonly endRun: () => void;
}

/** A map that forgets, at the end of a run, what the run did not use. Where all was used that costs nothing. */
function createGenerations<T>(): Generations<T> {
  const entries = new Map<string, { value: T; run: number }>();
  let run = 0;
  let used = 0;
  return {
    use(key) {
      const entry = entries.get(key);
      if (entry === undefined) return undefined;
      if (entry.run !== run) used++;
      entry.run = run;
      return entry.value;
    },
    set(key, value) {
      const entry = entries.get(key);
      if (entry?.run !== run) used++;
      if (entry === undefined) entries.set(key, { value, run });
      else Object.assign(entry, { value, run });
    },
    endRun() {
      if (used < entries.size) for (const [key, entry] of entries) if (entry.run !== run) entries.delete(key);
      run++;
      used = 0;
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
