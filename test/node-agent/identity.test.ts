import { generateKeyPairSync } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { certificateRequest } from "../../node-agent/csr.ts";
import { places } from "../../node-agent/files.ts";
import { keepAnswer, knownNow, readIdentity } from "../../node-agent/identity.ts";
import { fakePki } from "./fake-controller.ts";

const HOUR_MS = 3_600_000;

test("the controller's word about the time is taken, forward and back, and small differences cost no write", () => {
  const now = 1_700_000_000_000;
  expect(knownNow(now, now + 2 * HOUR_MS)).toBe(now + 2 * HOUR_MS);
  expect(knownNow(now, now - 2 * HOUR_MS)).toBe(now - 2 * HOUR_MS);
  expect(knownNow(now, now + 60_000)).toBe(now);
  expect(knownNow(now, now - 60_000)).toBe(now);
});

test("a join on a machine whose clock is years ahead remembers the controller's time, not its own", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ist-f-identity-"));
  const at = places(join(folder, "data"), join(folder, "run"));
  mkdirSync(at.data);
  const pki = await fakePki();
  const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "pem", type: "pkcs8" }).toString();
  const certificate = await pki.sign(await certificateRequest(key, "a"), "a");
  const before = Date.now();
  const clock = vi.spyOn(Date, "now").mockReturnValue(before + 10 * 365 * 24 * HOUR_MS);
  try {
    const answer = { node: "a", network: "isthmus", controllers: ["203.0.113.1:8443"], certificate, roots: [pki.rootPem], position: {}, views: {} };
    keepAnswer(at, answer as never, { machineId: "m", manualEndpoints: [], advertise: [] });
    expect(Math.abs((readIdentity(at)?.lastNow ?? 0) - before)).toBeLessThan(72 * HOUR_MS);
  } finally {
    clock.mockRestore();
    rmSync(folder, { recursive: true, force: true });
  }
});
