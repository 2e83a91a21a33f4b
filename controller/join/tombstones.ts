/** Records of removed nodes do not pile up for ever: where machines come and go by the thousand, they would be most of the store. */
import { commit } from "../reconcile/draft.ts";
import { FOLDER } from "../reconcile/keys.ts";
import type { Mirror } from "../reconcile/mirror.ts";
import { NODE_DAYS } from "../pki/authority.ts";
import type { Store } from "../store/types.ts";
import type { Tombstone } from "./records.ts";

/**
 * Until the last certificate has expired, the tombstone alone keeps the node out of a Recovery. As long again a machine that was
 * switched off is told that it was removed, and takes its traces away by itself.
 */
const KEPT_MS = 2 * NODE_DAYS * 86_400_000;
/** In one transaction. */
const AT_ONCE = 1_000;

/** Takes out those of nodes that were removed long ago; gives back how many. */
export async function forgetTombstones(store: Store, mirror: Mirror, now: number): Promise<number> {
  const isOld = (value: unknown): boolean => Date.parse((value as Tombstone).at) + KEPT_MS < now;
  const old = [...mirror.folder(FOLDER.removed)].filter(([, item]) => isOld(item.value)).slice(0, AT_ONCE);
  if (old.length === 0) return 0;
  await commit(store, mirror, (draft) => {
    for (const [name] of old) {
      const value = draft.read(FOLDER.removed + name);
      if (value !== undefined && isOld(value)) draft.remove(FOLDER.removed + name);
    }
  });
  return old.length;
}
