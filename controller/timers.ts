/** What a controller does now and then. */
import type { Server as HttpsServer } from "node:https";
import { secureContextOf } from "./api/http.ts";
import type { Services } from "./api/services.ts";
import { forgetTombstones } from "./join/tombstones.ts";
import { type Authority, SERVER_DAYS } from "./pki/authority.ts";
import { kindFolder } from "./reconcile/keys.ts";
import { watchReady } from "./reconcile/ready.ts";

const SWEEP_MS = 2_000;
const HOUSEKEEPING_MS = 30_000;
const DAY_MS = 86_400_000;
const RENEW_BEFORE_MS = 30 * DAY_MS;
/** Revisions that a watch may lie behind. */
const KEPT_REVISIONS = 20_000;

/** Starts the timers; returns how to stop them. */
export function startTimers(services: Services, https: HttpsServer, failed: (what: string) => (thrown: unknown) => void): () => Promise<void> {
  const { agents, recovery, reports, status, store, authority, now, mirror, events } = services;
  const saved = new Map<string, string>();
  const ready = watchReady({
    nodes: () => mirror.folder(kindFolder("MeshNode")).keys(),
    ready: (node) => status.nodeReady(node),
    events,
    before: reports.connectedBefore,
    monotonic: () => performance.now(),
  });

  async function saveContacts(): Promise<void> {
    const changed = [...reports.contacts()]
      .map(([node, contact]) => [node, JSON.stringify(contact)] as const)
      .filter(([node, text]) => saved.get(node) !== text);
    const gone = [...saved.keys()].filter((node) => reports.contact(node) === undefined);
    if (changed.length === 0 && gone.length === 0) return;
    await store.note(
      new Map<string, unknown>([
        ...changed.map(([node, text]) => [`contact/${node}`, JSON.parse(text)] as const),
        ...gone.map((node) => [`contact/${node}`, undefined] as const),
      ]),
    );
    for (const [node, text] of changed) saved.set(node, text);
    for (const node of gone) saved.delete(node);
  }

  const sweep = setInterval(() => {
    agents.sweep();
    try {
      status.fold();
      ready.sweep();
    } catch (thrown) {
      failed("working out the status failed")(thrown);
    }
    recovery.check().catch(failed("ending the recovery failed"));
  }, SWEEP_MS);
  const housekeeping = setInterval(() => {
    saveContacts().catch(failed("contacts cannot be saved"));
    renewServer(authority, https, now()).catch(failed("renewing the server's certificate failed"));
    forgetTombstones(store, mirror, now()).catch(failed("forgetting removed nodes failed"));
    store.compact(KEPT_REVISIONS).catch(failed("compacting the store failed"));
  }, HOUSEKEEPING_MS);
  return async () => {
    clearInterval(sweep);
    clearInterval(housekeeping);
    await saveContacts().catch(failed("contacts cannot be saved"));
  };
}

/**
 * Gives the listener a new certificate in good time, and one in place of what was made while the clock was ahead: agents would refuse
 * it as not valid yet. Open connections go on.
 */
export async function renewServer(authority: Authority, https: HttpsServer, now: number): Promise<void> {
  const left = authority.server.expires - now;
  if (left > RENEW_BEFORE_MS && left <= SERVER_DAYS * DAY_MS) return;
  https.setSecureContext(secureContextOf(await authority.renewServer(), authority.roots));
}
