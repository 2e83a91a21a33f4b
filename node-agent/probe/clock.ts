/** Time for everything that measures: monotonic milliseconds, never the wall clock (a day's step must move nothing). */
export interface Clock {
  now(): number;
}

export const monotonic: Clock = { now: () => performance.now() };
