/**
 * Whether the store's file is the one that this controller wrote before. A copy that is started while the original goes on (or
 * after it went on) is another history from its first write on, and nobody could tell the two apart by their revisions: both
 * would give the next address to somebody. So a copy is treated as what was restored from a backup: Recovery, a new epoch.
 */
import { readFileSync, statSync } from "node:fs";
import type { Mirror } from "./reconcile/mirror.ts";
import type { Store } from "./store/types.ts";

const HOME = "home";

/** A file keeps its number when it is moved or its machine reboots; a copy gets one of its own. */
function homeOf(file: string): string {
  return `${statSync(file).ino} on ${machineId()}`;
}

function machineId(): string {
  try {
    return readFileSync("/etc/machine-id", "utf8").trim();
  } catch {
    return "";
  }
}

/** Puts a store that was copied into Recovery. Gives back whether it was. */
export async function settleHome(store: Store, mirror: Mirror, file: string): Promise<boolean> {
  const here = homeOf(file);
  const before = (await store.notes(HOME)).get(HOME);
  if (before === here) return false;
  const { epoch, recovering } = await store.state();
  // What `isthmus restore` wrote is in Recovery already.
  const copied = before !== undefined && !recovering;
  if (copied) mirror.advance((await store.raise({ epoch: epoch + 1, recovering: true })).revision);
  await store.note(new Map([[HOME, here]]));
  return copied;
}
