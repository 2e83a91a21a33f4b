import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { writeSecret } from "../../cli/secret-file.ts";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "ist-b-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

it("is for its owner alone whatever was there before, also half-written by one that was killed", async () => {
  const path = join(folder, "x");
  await writeFile(path, "old", { mode: 0o644 });
  await writeFile(`${path}.${process.pid}.new`, "half", { mode: 0o644 });
  await writeSecret(path, "new");
  expect(await readFile(path, "utf8")).toBe("new");
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect(await readdir(folder)).toEqual(["x"]);
});

it("leaves nothing beside a place that takes no file, and names it", async () => {
  const path = join(folder, "x");
  await mkdir(path);
  await expect(writeSecret(path, "new")).rejects.toMatchObject({ code: "Invalid", message: expect.stringContaining(path) as string });
  expect(await readdir(folder)).toEqual(["x"]);
  await expect(writeSecret(join(folder, "none", "x"), "new")).rejects.toMatchObject({ code: "Invalid" });
});

it("stands on a file system that cannot sync folders", async () => {
  const path = join(folder, "x");
  const file = await open(join(folder, "any"), "w");
  const kind = Object.getPrototypeOf(file) as typeof file;
  await file.close();
  const sync = vi.spyOn(kind, "sync").mockImplementation(async function (this: typeof file) {
    // As fsync(2) has it of what cannot be synced.
    if ((await this.stat()).isDirectory()) throw Object.assign(new Error("EINVAL: invalid argument, fsync"), { code: "EINVAL" });
  });
  await writeSecret(path, "new");
  expect(sync).toHaveBeenCalledTimes(2);
  sync.mockRestore();
  expect(await readFile(path, "utf8")).toBe("new");
});
