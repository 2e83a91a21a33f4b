/** Waiting between attempts: doubled each time up to a ceiling, with jitter so that 10,000 agents do not return at once. */
export interface BackoffLimits {
  readonly firstMs: number;
  readonly mostMs: number;
}

/** Delay before attempt `failures` (1 for the first retry); `random` in [0, 1). Between half of the step and all of it. */
export function backoffMs(failures: number, limits: BackoffLimits, random: number): number {
  const step = Math.min(limits.mostMs, limits.firstMs * 2 ** Math.min(30, Math.max(0, failures - 1)));
  return step * (0.5 + random / 2);
}

/**
 * Resolves after the time, or as soon as one of the signals aborts. They are listened to one by one: `AbortSignal.any` leaves weak
 * references behind at each call, which the collector pays for.
 */
export function pause(ms: number, ...signals: readonly AbortSignal[]): Promise<void> {
  return new Promise((done) => {
    if (signals.some(({ aborted }) => aborted)) return done();
    const finish = (): void => {
      clearTimeout(timer);
      for (const signal of signals) signal.removeEventListener("abort", finish);
      done();
    };
    const timer = setTimeout(finish, ms);
    for (const signal of signals) signal.addEventListener("abort", finish, { once: true });
  });
}
