/**
 * A leaky bucket, kept as the time at which all that was taken is paid off. Pure: time is a parameter, of a clock that nobody
 * sets.
 */

export interface Rate {
  readonly perSecond: number;
  /** What may be taken at once after a silence. */
  readonly burst: number;
}

export interface Bucket {
  /** Takes that much; gives how many milliseconds too early that was, 0 while it is within the rate. */
  take(amount: number, now: number): number;
  /** How many milliseconds it is ahead of its rate. */
  ahead(now: number): number;
  /** Whether it is full again: nothing is to be remembered. */
  idle(now: number): boolean;
}

export function createBucket({ perSecond, burst }: Rate): Bucket {
  const ms = (amount: number): number => (amount / perSecond) * 1_000;
  let paidAt = -Infinity;
  const ahead = (now: number): number => Math.max(0, paidAt - now);
  return {
    take(amount, now) {
      paidAt = Math.max(paidAt, now - ms(burst)) + ms(amount);
      return ahead(now);
    },
    ahead,
    idle: (now) => paidAt <= now - ms(burst),
  };
}
