/** The nearest valid name to a misspelt one, for "did you mean". */

/** Edit distance with transpositions (optimal string alignment): `gatewya` is one step from `gateway`. */
export function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let best = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, (beforeLast[j - 2] ?? 0) + 1);
      row.push(best);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length] ?? 0;
}

/**
 * The candidate nearest to `word`, or undefined when none is near enough to be what was meant: a third of the word's
 * length, at least one step; case does not count. A candidate that begins with the word counts as near. Among equals the
 * one of the most similar length wins, then the first.
 */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  const wanted = word.slice(0, 64).toLowerCase();
  if (wanted === "") return undefined;
  let best: { name: string; distance: number; length: number } | undefined;
  for (const name of candidates) {
    const lower = name.toLowerCase();
    const steps = editDistance(wanted, lower);
    const distance = wanted.length >= 3 && lower.startsWith(wanted) ? Math.min(steps, 1) : steps;
    const length = Math.abs(lower.length - wanted.length);
    const nearer = best === undefined || distance < best.distance || (distance === best.distance && length < best.length);
    if (distance <= Math.max(1, Math.floor(wanted.length / 3)) && nearer) best = { name, distance, length };
  }
  return best?.name;
}
