import { join } from "node:path";
import { expect, test } from "vitest";
import type { Tombstone } from "../../../controller/join/records.ts";
import { forgetTombstones } from "../../../controller/join/tombstones.ts";
import { NODE_DAYS } from "../../../controller/pki/authority.ts";
import { commit } from "../../../controller/reconcile/draft.ts";
import { FOLDER } from "../../../controller/reconcile/keys.ts";
import { openMirror } from "../../../controller/reconcile/mirror.ts";
import { openSqliteStore } from "../../../controller/store/sqlite.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { temporaryFolder } from "../harness.ts";

const DAY = 86_400_000;

test("that a node was removed is kept for longer than any certificate of it lasts, and not for ever", async () => {
  const folder = temporaryFolder();
  const store = openSqliteStore(join(folder.path, "store.db"));
  const mirror = await openMirror(store, (error) => {
    throw error;
  });
  const removedAt = (day: number): Tombstone => ({ node: "gone" as NodeName, at: new Date(day * DAY).toISOString() });
  await commit(store, mirror, (draft) => {
    for (let i = 0; i < 1_200; i++) draft.write(`${FOLDER.removed}${i}`, removedAt(0));
    draft.write(`${FOLDER.removed}later`, removedAt(50));
  });
  const left = (): number => mirror.folder(FOLDER.removed).size;
  await forgetTombstones(store, mirror, (NODE_DAYS + 1) * DAY);
  expect(left()).toBe(1_201);
  while ((await forgetTombstones(store, mirror, 100 * DAY)) > 0);
  expect([...mirror.folder(FOLDER.removed).keys()]).toEqual(["later"]);
  const { revision } = await store.state();
  await forgetTombstones(store, mirror, 100 * DAY);
  expect((await store.state()).revision).toBe(revision);
  await mirror.close();
  await store.close();
  folder.remove();
});
