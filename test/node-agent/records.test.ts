import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openRecords } from "../../node-agent/drivers/records.ts";
import { writeAtomic } from "../../node-agent/whole-file.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ist-f-records-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test.each([["{ not json"], ["null"], [""], ['{"files": 3}'], ['{"undo": ["rm"]}']])("a damaged file (%s) is set aside and told, once", (text) => {
  writeFileSync(join(folder, "kernel.json"), text);
  const said: string[] = [];
  const records = openRecords(folder, (line) => void said.push(line));
  expect(records.read().files).toEqual([]);
  records.update((all) => ({ ...all, files: ["/etc/x"] }));
  expect(said).toEqual([expect.stringContaining("kernel.json.damaged")]);
  expect(readdirSync(folder).toSorted()).toEqual(["kernel.json", "kernel.json.damaged"]);
  expect(readFileSync(join(folder, "kernel.json.damaged"), "utf8")).toBe(text);
  expect(openRecords(folder, (line) => void said.push(line)).read().files).toEqual(["/etc/x"]);
  expect(said.length).toBe(1);
});

test("no file is no damage", () => {
  const said: string[] = [];
  expect(openRecords(folder, (line) => void said.push(line)).read().undo).toEqual([]);
  expect(said).toEqual([]);
});

test("a table that stands is known although the disk did not take its record, and a write that failed leaves nothing behind", () => {
  mkdirSync(join(folder, "kernel.json", "in the way"), { recursive: true });
  const full = openRecords(join(folder, "none"));
  full.read();
  writeFileSync(join(folder, "none"), "");
  const nft = { body: "chain x {}", digest: "d" };
  expect(() => full.update((all) => ({ ...all, nft }))).toThrow("none cannot be made");
  full.note((all) => ({ ...all, nft }));
  expect(full.read().nft).toEqual(nft);
  expect(() => writeAtomic(join(folder, "kernel.json"), "{}")).toThrow("cannot be written");
  expect(readdirSync(folder).toSorted()).toEqual(["kernel.json", "none"]);
});
