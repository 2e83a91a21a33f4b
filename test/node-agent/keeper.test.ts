import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { IsthmusError } from "../../mesh/errors.ts";
import { createKeeper } from "../../node-agent/keeper.ts";
import { eventually } from "./fake-controller.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ist-f-keeper-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("the newest text ends up in the file, which root alone may read, and nothing else is left", async () => {
  const path = join(folder, "x.json");
  const keeper = createKeeper({ path, afterMs: 1, onResult: () => {} });
  for (let i = 0; i <= 20; i++) {
    keeper.set(() => `text ${i}`);
    if (i % 5 === 0) await new Promise((done) => setTimeout(done, 2));
  }
  await eventually("written", () => readdirSync(folder).includes("x.json") && readFileSync(path, "utf8") === "text 20");
  expect(statSync(path).mode & 0o777).toBe(0o600);
  await eventually("tidy", () => readdirSync(folder).length === 1);
});

test("what waits is written when the process ends", () => {
  const path = join(folder, "x.json");
  const keeper = createKeeper({ path, afterMs: 60_000, onResult: () => {} });
  keeper.set(() => "last words");
  keeper.flush();
  expect(readFileSync(path, "utf8")).toBe("last words");
});

test("a write that fails is told and leaves the last good file", async () => {
  const path = join(folder, "gone", "x.json");
  const told: (IsthmusError | undefined)[] = [];
  const keeper = createKeeper({ path, afterMs: 1, onResult: (error) => told.push(error) });
  keeper.set(() => "a");
  await eventually("told", () => told.length > 0);
  expect(told[0]?.message).toContain(path);
  mkdirSync(join(folder, "gone"));
  chmodSync(join(folder, "gone"), 0o700);
  keeper.flush();
  expect(readFileSync(path, "utf8")).toBe("a");
});

test("a failure is over, too, when what found no room is no longer wanted", async () => {
  const [path, aside] = [join(folder, "there", "x.json"), join(folder, "aside")];
  mkdirSync(join(folder, "there"));
  const told: (IsthmusError | undefined)[] = [];
  const keeper = createKeeper({ path, afterMs: 1, onResult: (error) => told.push(error) });
  keeper.set(() => "as before");
  await eventually("written", () => told.length === 1);
  renameSync(join(folder, "there"), aside);
  keeper.set(() => "of a moment");
  await eventually("told", () => told.at(-1) !== undefined);
  renameSync(aside, join(folder, "there"));
  keeper.set(() => "as before");
  await eventually("no failure any more", () => told.at(-1) === undefined, 40_000);
  expect(readFileSync(path, "utf8")).toBe("as before");
});

test("a flush beside a write that is under way leaves the newest text, also after that write ends", async () => {
  const path = join(folder, "x.json");
  const old = "o".repeat(30_000_000);
  const keeper = createKeeper({ path, afterMs: 1, onResult: () => {} });
  keeper.set(() => old);
  await eventually("under way", () => readdirSync(folder).some((name) => name.includes("later")));
  keeper.set(() => "newest");
  keeper.flush();
  expect(readFileSync(path, "utf8")).toBe("newest");
  for (let i = 0, tidy = 0; tidy < 20 && i < 5_000; i++) {
    expect(statSync(path).size).toBe("newest".length);
    if (readdirSync(folder).length === 1) tidy++;
    await new Promise((done) => setTimeout(done, 1));
  }
  expect(readdirSync(folder)).toEqual(["x.json"]);
});

test("what a write under way holds is not lost when the process ends before it does", async () => {
  const path = join(folder, "x.json");
  const text = "o".repeat(30_000_000);
  const keeper = createKeeper({ path, afterMs: 1, onResult: () => {} });
  keeper.set(() => text);
  await eventually("under way", () => readdirSync(folder).some((name) => name.includes("later")));
  keeper.flush();
  expect(readFileSync(path, "utf8").length).toBe(text.length);
});
