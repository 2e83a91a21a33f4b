import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ensureNetwork } from "../../../controller/first-start.ts";
import { POOL_KEY } from "../../../controller/reconcile/keys.ts";
import { openSeals } from "../../../controller/pki/seals.ts";
import type { Principal } from "../../../controller/pki/principal.ts";
import type { Events } from "../../../controller/reconcile/events.ts";
import { type Mirror, openMirror } from "../../../controller/reconcile/mirror.ts";
import { openRecovery, type Recovery, type RecoveryOptions } from "../../../controller/reconcile/recovery.ts";
import { openSqliteStore } from "../../../controller/store/sqlite.ts";
import type { Store } from "../../../controller/store/types.ts";
import { IsthmusError } from "../../../mesh/errors.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import type { AgentHello, Position } from "../../../mesh/model/wire.ts";
import type { AllocationState } from "../../../mesh/net/allocate.ts";
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

test("a Recovery that a full disk kept from beginning begins when the agent calls again", async () => {
  const seals = sealsHere();
  let full = true;
  const recovery = await open({
    store: { ...store, raise: (to) => (full ? Promise.reject(new IsthmusError("DiskFull", "no space left")) : store.raise(to)) },
    seals,
  });
  const { recovering: _, ...position } = await store.state();
  const ahead: Position = { ...position, revision: position.revision + 7 };
  const node = "ahead" as NodeName;
  const hello: AgentHello = {
    t: "hello",
    node,
    format: 1,
    version: "0",
    bootId: "b",
    machineId: "m",
    views: {},
    seen: { ...ahead, seal: seals.seal(ahead) },
  };
  const principal: Principal = { kind: "node", name: node, keyHash: "k" };
  await expect(recovery.onHello(hello, principal)).rejects.toMatchObject({ code: "DiskFull" });
  expect(recovery).toMatchObject({ active: false, cause: "the store was restored" });
  full = false;
  await recovery.onHello(hello, principal);
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

test("a Recovery that a full disk keeps from ending leaves one gap of indexes, and two who end it at once end it once", async () => {
  await store.raise({ recovering: true });
  await ensureNetwork(store, mirror, { now: Date.now, newUid: () => "uid", randomBytes }, {});
  let full = true;
  const told: string[] = [];
  const changes: boolean[] = [];
  const recovery = await open({
    store: { ...store, raise: (to) => (full ? Promise.reject(new IsthmusError("DiskFull", "no space left")) : store.raise(to)) },
    events: { record: (_node: unknown, { reason }: { reason: string }) => told.push(reason) } as unknown as Events,
    onChange: (active) => changes.push(active),
    quietMs: -1,
  });
  const next = async (): Promise<number> => ((await store.get(POOL_KEY))?.value as AllocationState | undefined)?.next ?? 0;
  await expect(recovery.check()).rejects.toMatchObject({ code: "DiskFull" });
  const gap = await next();
  expect(gap).toBeGreaterThan(0);
  await expect(recovery.check()).rejects.toMatchObject({ code: "DiskFull" });
  await expect(recovery.confirm()).rejects.toMatchObject({ code: "DiskFull" });
  expect(await next()).toBe(gap);
  full = false;
  await Promise.all([recovery.check(), recovery.confirm(), recovery.check()]);
  expect({ active: recovery.active, told, changes, next: await next() }).toEqual({ active: false, told: ["Recovered"], changes: [false], next: gap });
});
