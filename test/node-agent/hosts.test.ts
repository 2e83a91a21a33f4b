import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { IpAddress } from "../../mesh/model/scalars.ts";
import { observeHosts, writeHosts } from "../../node-agent/drivers/hosts.ts";

let folder = "";
let file = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ist-f-hosts-"));
  file = join(folder, "hosts");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const HOSTS = new Map([["do1.isthmus", ["10.101.0.3" as IpAddress]]]);
const NEXT = new Map([["do2.isthmus", ["10.101.0.4" as IpAddress]]]);
const USERS = "127.0.0.1 localhost\n";

test("a last line of ours that someone deleted costs no line of theirs, whatever comes after", () => {
  writeFileSync(file, USERS);
  writeHosts(file, HOSTS);
  writeFileSync(file, `${readFileSync(file, "utf8").replace("# isthmus end\n", "")}192.0.2.7 printer\n`);
  expect([...observeHosts(file).keys()]).toEqual([]);
  writeHosts(file, HOSTS);
  expect(observeHosts(file)).toEqual(HOSTS);
  writeHosts(file, NEXT);
  expect(observeHosts(file)).toEqual(NEXT);
  expect(readFileSync(file, "utf8").match(/isthmus begin/g)?.length).toBe(1);
  writeHosts(file, new Map());
  expect(readFileSync(file, "utf8")).toBe(`${USERS}192.0.2.7 printer\n`);
});

test("two blocks become one", () => {
  writeFileSync(file, USERS);
  writeHosts(file, HOSTS);
  const block = readFileSync(file, "utf8").slice(USERS.length);
  writeFileSync(file, `${USERS}${block}192.0.2.7 printer\n${block.replace("do1", "do9")}192.0.2.8 scanner`);
  expect(observeHosts(file)).not.toEqual(HOSTS);
  writeHosts(file, HOSTS);
  expect(readFileSync(file, "utf8")).toBe(`${USERS}192.0.2.7 printer\n192.0.2.8 scanner\n${block}`);
});
