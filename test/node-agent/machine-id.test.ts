import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { machineId, machineIdLike } from "../../node-agent/machine-id.ts";

const UUID = "sys/class/dmi/id/product_uuid";
const MAC = "02:15:f0:00:00:01";
let root = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "ist-f-machine-"));
  put("etc/machine-id", "0123456789abcdef\n");
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function put(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}
function nic(name: string, address: string): void {
  mkdirSync(join(root, "sys/class/net", name, "device"), { recursive: true });
  put(`sys/class/net/${name}/address`, `${address}\n`);
}
const id = (): string => machineId({}, root);
const sha = (...parts: string[]): string => createHash("sha256").update(parts.join("\n")).digest("hex");

test("an interface that is plugged in changes nothing where the firmware has an id", () => {
  put(UUID, "4c4c4544-0042-3510-8052-b4c04f4d3232\n");
  nic("eth0", MAC);
  const before = id();
  nic("usb0", "02:15:f0:00:00:09");
  expect(id()).toBe(before);
});

test.each([
  ["another disk", "etc/machine-id"],
  ["another machine", UUID],
])("%s is another id", (_what, path) => {
  put(UUID, "4c4c4544-0042-3510-8052-b4c04f4d3232\n");
  const before = id();
  put(path, "fedcba98-7654\n");
  expect(id()).not.toBe(before);
});

test.each([
  ["none", undefined],
  ["zeros", "00000000-0000-0000-0000-000000000000\n"],
  ["ones", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n"],
])("with no id of the firmware (%s) hardware addresses tell a machine from a copy of its disk", (_what, uuid) => {
  if (uuid !== undefined) put(UUID, uuid);
  nic("eth0", MAC);
  const before = id();
  nic("eth0", "02:15:f0:00:00:02");
  expect(id()).not.toBe(before);
});

test("who joined with the hash of everything keeps it while that still holds", () => {
  put(UUID, "4c4c4544\n");
  nic("eth0", MAC);
  const stored = sha("0123456789abcdef", "4c4c4544", MAC);
  expect(id()).not.toBe(stored);
  expect(machineIdLike(stored, {}, root)).toBe(stored);
  expect(machineIdLike(id(), {}, root)).toBe(id());
  expect(machineIdLike(sha("another"), {}, root)).toBe(id());
});

test("where several nodes share a machine, what stands in for it counts", () => {
  expect(machineId({ ISTHMUS_MACHINE_ID: "x" }, root)).toBe(sha("x"));
  expect(machineIdLike("y", { ISTHMUS_MACHINE_ID: "x" }, root)).toBe(sha("x"));
});
