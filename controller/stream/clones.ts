/**
 * Two machines with one identity (a cloned disk). A reboot leaves a boot id for good; so a boot id that comes back after
 * another was seen means that both machines run. The one unlike the join is refused; the newest connection wins otherwise.
 */

export interface BootHistory {
  /** Boot ids in the order of their first contact; the last is the current one. */
  readonly boots: readonly string[];
  /** Boot ids that were found to be a clone's. */
  readonly refused: readonly string[];
}

export const NO_BOOTS: BootHistory = { boots: [], refused: [] };

/** Boot ids that are remembered; a node that reboots more often within a controller's life forgets the oldest. */
const REMEMBERED = 32;

export interface BootVerdict {
  readonly history: BootHistory;
  readonly accept: boolean;
  /** Boot id whose connection must end, because it is the clone's. */
  readonly evict?: string;
}

/** Judges a contact with boot id `boot`; `joined` is the boot id at the join. */
export function judgeBoot(history: BootHistory, boot: string, joined: string): BootVerdict {
  if (history.refused.includes(boot)) return { history, accept: false };
  const current = history.boots.at(-1);
  if (boot === current) return { history, accept: true };
  if (!history.boots.includes(boot)) {
    return { history: { ...history, boots: [...history.boots, boot].slice(-REMEMBERED) }, accept: true };
  }
  // Both run. Unless the newer one is the machine as it joined, the one that was there first is the real one.
  const clone = current === joined ? boot : (current ?? boot);
  const next: BootHistory = {
    boots: [...history.boots.filter((id) => id !== clone && id !== boot), ...(clone === boot ? [current ?? boot] : [boot])],
    refused: [...history.refused, clone].slice(-REMEMBERED),
  };
  return clone === boot ? { history: next, accept: false } : { history: next, accept: true, evict: clone };
}
