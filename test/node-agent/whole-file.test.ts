import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { syncFolder, writeAtomic, writeLater } from "../../node-agent/whole-file.ts";

test("a file is written whole, with nothing left beside it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "isthmus-whole-"));
  const path = join(folder, "file");
  writeAtomic(path, "one");
  expect(readFileSync(path, "utf8")).toBe("one");
  await writeLater(path, "two", () => true);
  expect(readFileSync(path, "utf8")).toBe("two");
  rmSync(folder, { recursive: true });
});

test("a folder of a file system that cannot sync folders is no failure, one that is not there is", () => {
  // fsync(2) says EINVAL there.
  syncFolder("/proc");
  expect(() => syncFolder("/proc/none")).toThrow("ENOENT");
});
