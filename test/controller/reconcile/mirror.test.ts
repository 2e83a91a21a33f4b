import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { openMirror } from "../../../controller/reconcile/mirror.ts";
import { openSqliteStore } from "../../../controller/store/sqlite.ts";
import type { Store } from "../../../controller/store/types.ts";
import { eventually } from "../harness.ts";

const folder = mkdtempSync(join(tmpdir(), "ist-mirror-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("a listener that throws keeps neither the others nor later changes from being told", async () => {
  const store = openSqliteStore(join(folder, "listeners.db"));
  const failures: unknown[] = [];
  const mirror = await openMirror(store, (error) => failures.push(error));
  const told: string[] = [];
  mirror.subscribe(() => {
    throw new Error("a faulty listener");
  });
  mirror.subscribe((changes) => told.push(...changes.map(({ key }) => key)));
  for (const key of ["a/1", "a/2"]) await store.txn({ put: [{ key, value: 1 }] });
  await eventually(() => expect(told).toEqual(["a/1", "a/2"]));
  expect(failures).toEqual([expect.objectContaining({ message: "a faulty listener" }), expect.anything()]);
  await mirror.close();
  await store.close();
});

test("a watch that breaks is taken up again, without a gap", async () => {
  const store = openSqliteStore(join(folder, "watch.db"));
  let broken = 0;
  const flaky: Store = {
    ...store,
    watch: async function* (since, signal) {
      if (broken++ > 0) return yield* store.watch(since, signal);
      for await (const event of store.watch(since, signal)) {
        yield event;
        throw new Error("the disk hiccuped");
      }
    },
  };
  const failures: unknown[] = [];
  const mirror = await openMirror(flaky, (error) => failures.push(error));
  const told: string[] = [];
  mirror.subscribe((changes) => told.push(...changes.map(({ key }) => key)));
  for (const key of ["a/1", "a/2", "a/3"]) await store.txn({ put: [{ key, value: 1 }] });
  await eventually(() => expect(mirror.folder("a/").size).toBe(3));
  expect(new Set(told)).toEqual(new Set(["a/1", "a/2", "a/3"]));
  expect(failures).toHaveLength(1);
  await mirror.close();
  await store.close();
});
