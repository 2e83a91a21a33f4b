import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ensureNetwork } from "../../../controller/first-start.ts";
import { POOL_KEY } from "../../../controller/reconcile/keys.ts";
import { openSeals, type Seals } from "../../../controller/pki/seals.ts";
import type { Principal } from "../../../controller/pki/principal.ts";
import type { Events } from "../../../controller/reconcile/events.ts";
import { type Mirror, openMirror } from "../../../controller/reconcile/mirror.ts";
import { openRecovery, type Recovery, type RecoveryOptions } from "../../../controller/reconcile/recovery.ts";
import { openSqliteStore } from "../../../controller/store/sqlite.ts";
import type { Store } from "../../../controller/store/types.ts";
import { IsthmusError } from "../../../mesh/errors.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import type { AgentHello, Position } from "../../../mesh/model/wire.ts";
import { type AllocationState, NO_ALLOCATIONS } from "../../../mesh/net/allocate.ts";
import { temporaryFolder } from "../harness.ts";

let folder: { path: string; remove: () => void };
let store: Store;
let mirror: Mirror;
beforeEach(async () => {
  folder = temporaryFolder();
  store = openSqliteStore(join(folder.path, "store.db"));
  mirror = await openMirror(store, (error) => {
    throw error;
  });
});
afterEach(async () => {
  await mirror.close();
  await store.close();
  folder.remove();
});

const sealsHere = () => openSeals(join(folder.path, "pki"));

function open(options: Partial<RecoveryOptions> = {}): Promise<Recovery> {
  return openRecovery({
    store,
    mirror,
    events: { record: () => {} } as unknown as Events,
    now: Date.now,
    newUid: () => "uid",
    cause: "the store was restored",
    seals: sealsHere(),
    surplus: () => new Map(),
    probe: () => {},
    onChange: () => {},
    ...options,
  });
}

/** Of a node that has seen more than the store holds. */
async function helloAhead(seals: Seals): Promise<[AgentHello, Principal]> {
  const { recovering: _, ...position } = await store.state();
  const ahead: Position = { ...position, revision: position.revision + 7 };
  const node = "ahead" as NodeName;
  const seen = { ...ahead, seal: seals.seal(ahead) };
  return [
    { t: "hello", node, format: 1, version: "0", bootId: "b", machineId: "m", views: {}, seen },
    { kind: "node", name: node, keyHash: "k" },
  ];
}

test("a Recovery that a full disk kept from beginning begins when the agent calls again", async () => {
  const seals = sealsHere();
  let full = true;
  const recovery = await open({
    store: { ...store, raise: (to) => (full ? Promise.reject(new IsthmusError("DiskFull", "no space left")) : store.raise(to)) },
    seals,
  });
  const hello = await helloAhead(seals);
  await expect(recovery.onHello(...hello)).rejects.toMatchObject({ code: "DiskFull" });
  expect(recovery).toMatchObject({ active: false, cause: "the store was restored" });
  full = false;
  await recovery.onHello(...hello);
  expect(recovery).toMatchObject({ active: true, cause: "node ahead has seen a newer state than this store holds: writes were lost" });
});

test("setting the controller's clock ends no Recovery before its quiet time", async () => {
  await store.raise({ recovering: true });
  let now = Date.now();
  const patient = await open({ now: () => now, quietMs: 3_600_000 });
  const hasty = await open({ now: () => now, quietMs: -1 });
  now += 24 * 3_600_000;
  await patient.check();
  expect(patient.active).toBe(true);
  // With a clock that was set back the quiet time still ends.
  now -= 48 * 3_600_000;
  await hasty.check();
  expect(hasty.active).toBe(false);
});

const newNetwork = () => ensureNetwork(store, mirror, { now: Date.now, newUid: () => "uid", randomBytes }, {});
/** The first index that no node was given yet. */
const nextIndex = async (): Promise<number> => (((await store.get(POOL_KEY))?.value as AllocationState | undefined) ?? NO_ALLOCATIONS).next;

test("a Recovery that a full disk keeps from ending leaves no gap of indexes until it ends, and two who end it at once end it once", async () => {
  await store.raise({ recovering: true });
  await newNetwork();
  const before = await nextIndex();
  let full = true;
  const told: string[] = [];
  const changes: boolean[] = [];
  const refuse = (): Promise<never> => Promise.reject(new IsthmusError("DiskFull", "no space left"));
  const recovery = await open({
    store: { ...store, raise: (to) => (full ? refuse() : store.raise(to)), txn: (one) => (full ? refuse() : store.txn(one)) },
    events: { record: (_node: unknown, { reason }: { reason: string }) => told.push(reason) } as unknown as Events,
    onChange: (active) => changes.push(active),
    quietMs: -1,
  });
  await expect(recovery.check()).rejects.toMatchObject({ code: "DiskFull" });
  await expect(recovery.confirm()).rejects.toMatchObject({ code: "DiskFull" });
  expect(await nextIndex()).toBe(before);
  full = false;
  await Promise.all([recovery.check(), recovery.confirm(), recovery.check()]);
  expect({ active: recovery.active, told, changes, gap: (await nextIndex()) - before }).toEqual({
    active: false,
    told: ["Recovered"],
    changes: [false],
    gap: 256,
  });
});

/** The store of a controller that dies at its n-th write (from 0): before the disk has it, or after. */
function dying(n: number, written: boolean): Store {
  let writes = 0;
  const mortal =
    <A extends unknown[], R>(write: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      const at = writes++;
      if (at < n) return write(...args);
      if (at === n && written) await write(...args);
      throw new Error("dead");
    };
  return { ...store, txn: mortal(store.txn), note: mortal(store.note), raise: mortal(store.raise) };
}

test.each([false, true])(
  "a controller that dies again and again while a Recovery ends leaves one gap of indexes (its last word is written: %s)",
  async (written) => {
    await newNetwork();
    await store.raise({ recovering: true });
    const before = await nextIndex();
    let deaths = 0;
    for (; (await store.state()).recovering; deaths++) await (await open({ store: dying(deaths, written) })).confirm().catch(() => undefined);
    expect(deaths).toBeGreaterThan(1);
    expect((await nextIndex()) - before).toBe(256);
  },
);

test("a Recovery that begins anew at the moment of its end goes on, and a later end ends it", async () => {
  const seals = sealsHere();
  await store.raise({ recovering: true });
  await newNetwork();
  let late: Promise<void> | undefined;
  const recovery: Recovery = await open({
    store: {
      ...store,
      txn: async (one) => {
        const outcome = await store.txn(one);
        await (late ??= helloAhead(seals).then((hello) => recovery.onHello(...hello)));
        return outcome;
      },
    },
    seals,
  });
  await recovery.confirm();
  expect([recovery.active, (await store.state()).recovering]).toEqual([true, true]);
  await recovery.confirm();
  expect([recovery.active, (await store.state()).recovering]).toEqual([false, false]);
});
