import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { leftBehind, PROCESSES } from "../../tools/leftovers.ts";

test("what a test of this run left behind is told, and nothing of a lab that somebody else started meanwhile", () => {
  const before = ["isthmus-demo-do1", "isthmus-t-41-kd-do1"];
  const after = [...before, "isthmus-other-do1", "isthmus-t-99-kd-do1", "isthmus-t-41-b-wan", "ist-d-42-p-a", "isthmus-t-412-b-wan"];
  expect(leftBehind(before, after, ["41", "42"])).toEqual(["isthmus-t-41-b-wan", "ist-d-42-p-a"]);
});

test("a process of tests says its own id, where a run asks for it", () => {
  const folder = mkdtempSync(join(tmpdir(), "isthmus-test-"));
  const file = new URL("../../tools/name-process.ts", import.meta.url).href;
  const said = execFileSync(process.execPath, ["-e", `import(${JSON.stringify(file)}).then(() => console.log(process.pid))`], {
    encoding: "utf8",
    env: { ...process.env, [PROCESSES]: folder },
  });
  expect(readdirSync(folder)).toEqual([said.trim()]);
  rmSync(folder, { recursive: true });
});
