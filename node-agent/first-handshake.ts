/**
 * The first handshake with a peer. An initiation that arrives before the other side knows this node is dropped without a
 * word, and WireGuard repeats it after 5 s only (REKEY_TIMEOUT), however the peer is touched. So a peer that was never heard is
 * removed and added again after a moment, a few times and each time later. Pure; time and chance are parameters.
 */

/** How long the first, second … initiation waits for its answer; after these WireGuard's own time and the dialer's turns hold. */
export const PATIENCE_MS = [350, 700, 1_400] as const;

/** What is remembered of one peer on one interface until it answers. */
export interface Tries {
  /** Initiations that were made anew. */
  readonly made: number;
  readonly dueAt: number;
  /** The endpoints that the plan names: other ones are news, and worth new tries. */
  readonly offered: string;
}

export interface FirstTry {
  readonly tries: Tries;
  /** Begin the handshake anew. */
  readonly again: boolean;
}

/**
 * One look at a peer that is dialed and was never heard since it was written.
 * @param now milliseconds @param random in [0, 1): two nodes that dial each other do not go on doing so in step
 */
export function tryAgain(before: Tries | undefined, offered: string, now: number, random: number): FirstTry {
  const due = (made: number): number => now + (PATIENCE_MS[made] ?? Infinity) * (0.75 + random / 2);
  if (before === undefined || before.offered !== offered) return { tries: { made: 0, dueAt: due(0), offered }, again: false };
  if (now < before.dueAt) return { tries: before, again: false };
  const made = before.made + 1;
  return { tries: { made, dueAt: due(made), offered }, again: true };
}
