/** When the next pass runs, and whether it looks at the kernel first. What comes while a pass runs is due after it. */

export interface Wakes {
  /** A pass is due. */
  rouse(): void;
  /** A pass is due that looks first. */
  look(): void;
  /** The same in so many ms. The earliest of the times that were asked for counts: a wake-up never waits for the end of a back-off. */
  lookIn(ms: number): void;
  /** Calls back at a time, in place of the one that was set before. */
  at(time: number, call: () => void): void;
  /** Resolves when a pass is due; false once the signal has aborted. */
  next(signal: AbortSignal): Promise<boolean>;
  /** Whether the pass that begins is to look first; says it once. */
  takeLook(): boolean;
  stop(): void;
}

/** @param now monotonic milliseconds */
export function createWakes(now: () => number): Wakes {
  let due = false;
  let looks = true;
  let wakeUp: (() => void) | undefined;
  let soon: { readonly at: number; readonly timer: NodeJS.Timeout } | undefined;
  let later: NodeJS.Timeout | undefined;

  const rouse = (): void => {
    due = true;
    wakeUp?.();
  };
  const look = (): void => {
    looks = true;
    rouse();
  };

  return {
    rouse,
    look,
    lookIn(ms) {
      const at = now() + ms;
      if (soon !== undefined && soon.at <= at) return;
      clearTimeout(soon?.timer);
      const timer = setTimeout(() => {
        soon = undefined;
        look();
      }, ms);
      soon = { at, timer };
    },
    at(time, call) {
      clearTimeout(later);
      later = setTimeout(call, Math.max(1, time - now()));
    },
    async next(signal) {
      if (!due && !signal.aborted) {
        const woken = Promise.withResolvers<void>();
        wakeUp = woken.resolve;
        signal.addEventListener("abort", wakeUp, { once: true });
        await woken.promise;
        signal.removeEventListener("abort", wakeUp);
        wakeUp = undefined;
      }
      if (signal.aborted) return false;
      due = false;
      return true;
    },
    takeLook() {
      const first = looks;
      looks = false;
      return first;
    },
    stop() {
      clearTimeout(soon?.timer);
      clearTimeout(later);
    },
  };
}
