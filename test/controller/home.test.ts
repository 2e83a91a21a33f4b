import { copyFileSync, cpSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { placesOf } from "../../controller/backup.ts";
import { settleHome } from "../../controller/home.ts";
import { openMirror } from "../../controller/reconcile/mirror.ts";
import { openSqliteStore } from "../../controller/store/sqlite.ts";
import type { Store } from "../../controller/store/types.ts";
import { IsthmusError } from "../../mesh/errors.ts";
import { temporaryFolder } from "./harness.ts";

let folder: { path: string; remove: () => void };
beforeEach(() => void (folder = temporaryFolder()));
afterEach(() => folder.remove());

interface Start {
  readonly foreign: boolean;
  readonly epoch: number;
  readonly recovering: boolean;
}

/** One start and stop of a controller in that folder; `made` as a file system would say it, when it is not the real one. */
async function start(
  data: string,
  { made, crash, before }: Partial<{ made: string; crash: "note" | "full"; before: (store: Store) => Promise<unknown> }> = {},
) {
  const places = placesOf(data);
  const store = openSqliteStore(places.store);
  const mirror = await openMirror(store, (error) => {
    throw error;
  });
  await before?.(store);
  const error = crash === "full" ? new IsthmusError("DiskFull", "no space left") : new Error("crashed");
  const used: Store = crash === undefined ? store : { ...store, note: () => Promise.reject(error) };
  try {
    const foreign = await (made === undefined ? settleHome(used, mirror, places) : settleHome(used, mirror, places, made));
    const { epoch, recovering } = await store.state();
    return { foreign, epoch, recovering } satisfies Start;
  } finally {
    await mirror.close();
    await store.close();
  }
}

const OURS = { foreign: false, epoch: 1, recovering: false };
const FOREIGN = { foreign: true, epoch: 2, recovering: true };

test("a store that is started again, also after its folder was renamed, is the same one", async () => {
  for (let i = 0; i < 3; i++) expect(await start(folder.path)).toEqual(OURS);
  const renamed = `${folder.path}-renamed`;
  renameSync(folder.path, renamed);
  try {
    expect(await start(renamed)).toEqual(OURS);
  } finally {
    rmSync(renamed, { recursive: true });
  }
});

test("a crash between the two marks leaves the store the same one", async () => {
  await start(folder.path);
  const file = readFileSync(join(folder.path, "writer"), "utf8");
  await expect(start(folder.path, { crash: "note" })).rejects.toThrow("crashed");
  expect(readFileSync(join(folder.path, "writer"), "utf8")).not.toBe(file);
  await expect(start(folder.path, { crash: "note" })).rejects.toThrow("crashed");
  expect(await start(folder.path)).toEqual(OURS);
  expect(await start(folder.path)).toEqual(OURS);
});

test("a full disk keeps no controller from starting, and leaves the store the same one", async () => {
  await start(folder.path);
  expect(await start(folder.path, { crash: "full" })).toEqual(OURS);
  expect(await start(folder.path)).toEqual(OURS);
});

test("a copy of the whole folder, both marks in it, is another one, and is so once", async () => {
  await start(folder.path);
  const copy = temporaryFolder();
  cpSync(folder.path, copy.path, { recursive: true, preserveTimestamps: true });
  expect(await start(folder.path)).toEqual(OURS);
  expect(await start(copy.path)).toEqual(FOREIGN);
  expect(await start(copy.path)).toEqual({ ...FOREIGN, foreign: false });
  copy.remove();
});

test("an older file written over the store is another one, although it has the inode and the age of the one before", async () => {
  await start(folder.path);
  const older = join(folder.path, "older.db");
  copyFileSync(join(folder.path, "store.db"), older);
  await start(folder.path);
  writeFileSync(join(folder.path, "store.db"), readFileSync(older));
  for (const suffix of ["-wal", "-shm"]) rmSync(join(folder.path, `store.db${suffix}`), { force: true });
  expect(await start(folder.path)).toEqual(FOREIGN);
});

test("a store that is copied while it recovers gets an epoch of its own", async () => {
  await start(folder.path, { before: (store) => store.raise({ epoch: 5, recovering: true }) });
  const copy = temporaryFolder();
  cpSync(folder.path, copy.path, { recursive: true });
  expect(await start(folder.path)).toEqual({ foreign: false, epoch: 5, recovering: true });
  expect(await start(copy.path)).toEqual({ foreign: true, epoch: 6, recovering: true });
  copy.remove();
});

test("where the file system does not say when a file was made, or says it only later, no start is a recovery", async () => {
  for (const made of ["", "", "1", "", "1"]) expect(await start(folder.path, { made })).toEqual(OURS);
  expect(await start(folder.path, { made: "2" })).toEqual(FOREIGN);
});
