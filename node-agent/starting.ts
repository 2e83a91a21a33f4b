/**
 * An agent's first moments: until its plan is in the kernel and the first handshakes are over, the node is not ready for anybody.
 * After a restart that found all in place this is over with the first look (I2). Pure; time is a parameter.
 */
import type { NodeName } from "../mesh/model/scalars.ts";

/** Peers that have not answered by then are likely switched off; conditions name them. */
const LONGEST_MS = 5_000;
const NAMED = 8;

export const NO_PLAN_YET = "the plan is not in the kernel yet";

export interface Starting {
  /**
   * What is still on its way; undefined from the moment on when it was over.
   * @param silent peers that could answer and have not @param now monotonic milliseconds
   */
  look(silent: readonly NodeName[], now: number): string | undefined;
}

export function createStarting(): Starting {
  let since: number | undefined;
  let over = false;
  return {
    look(silent, now) {
      since ??= now;
      over ||= silent.length === 0 || now - since >= LONGEST_MS;
      if (over) return undefined;
      const more = silent.length > NAMED ? ` and ${silent.length - NAMED} more` : "";
      return `first handshakes are on their way: ${silent.slice(0, NAMED).join(", ")}${more}`;
    },
  };
}
