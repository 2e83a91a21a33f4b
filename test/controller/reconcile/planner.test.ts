import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ensureNetwork } from "../../../controller/first-start.ts";
import { commit } from "../../../controller/reconcile/draft.ts";
import { FOLDER } from "../../../controller/reconcile/keys.ts";
import { openMirror, type Mirror } from "../../../controller/reconcile/mirror.ts";
import { startPlanner, type Planner } from "../../../controller/reconcile/planner.ts";
import { openSqliteStore, type SqliteStore } from "../../../controller/store/sqlite.ts";
import { eventually, temporaryFolder } from "../harness.ts";

let folder: ReturnType<typeof temporaryFolder>;
let store: SqliteStore;
let mirror: Mirror;
let planner: Planner;
let broken: Error | undefined;
let published: number[];
let failures: unknown[];

beforeEach(async () => {
  folder = temporaryFolder();
  store = openSqliteStore(join(folder.path, "store.db"));
  mirror = await openMirror(store, (error) => {
    throw error;
  });
  await ensureNetwork(store, mirror, { now: () => 0, newUid: () => "uid", randomBytes: (size) => new Uint8Array(size) }, {});
  [broken, published, failures] = [undefined, [], []];
  planner = startPlanner({
    mirror,
    monotonic: () => performance.now(),
    random: () => 0,
    publish: (_, revision) => {
      if (broken !== undefined) throw broken;
      published.push(revision);
    },
    onRound: () => {},
    onFailure: (thrown) => failures.push(thrown),
  });
});
afterEach(async () => {
  planner.close();
  await mirror.close();
  await store.close();
  folder.remove();
});

/** A change that the plan depends on. */
async function change(to: string): Promise<number> {
  return (await commit(store, mirror, (draft) => draft.write(`${FOLDER.controllers}c`, { addresses: [to] }))).revision;
}

test("a change whose plan failed is made into one later, without another change, and whoever waits for it is told the truth", async () => {
  broken = new Error("a defect");
  const revision = await change("192.0.2.1:1");
  await expect(planner.settled(revision)).rejects.toMatchObject({ code: "Unreachable", message: expect.stringMatching(/stored.*a defect/) });
  await expect(planner.settled(revision)).rejects.toMatchObject({ code: "Unreachable" });
  expect(failures).toContain(broken);
  broken = undefined;
  await eventually(() => expect(published).toContain(revision));
  await planner.settled(revision);
});

test("the next change does not wait for the back-off of one that failed", async () => {
  broken = new Error("a defect");
  // By then it waits for seconds.
  await change("192.0.2.1:1");
  await eventually(() => expect(failures.length).toBeGreaterThan(3), 15_000);
  broken = undefined;
  const before = failures.length;
  const revision = await change("192.0.2.2:2");
  await planner.settled(revision);
  expect(published.at(-1)).toBe(revision);
  expect(failures.length).toBe(before);
});
