import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { places } from "../../node-agent/files.ts";
import { renew } from "../../node-agent/join.ts";
import { openMembership } from "../../node-agent/membership.ts";
import { fakePki } from "./fake-controller.ts";

vi.mock("../../node-agent/join.ts", () => ({ renew: vi.fn(async (_at: unknown, identity: unknown) => identity) }));

const DAY = 24 * 3_600_000;

afterEach(() => {
  vi.useRealTimers();
  vi.mocked(renew).mockClear();
});

/** Renewals within a month of a certificate that lasts 30 days, on a machine whose clock is off by so much. */
async function renewals(offset: number, days: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "ist-membership-"));
  const at = places(join(folder, "data"), join(folder, "run"));
  mkdirSync(at.data, { mode: 0o700 });
  writeFileSync(at.certificate, (await (await fakePki()).leaf("node", "a", 30)).chain);
  const joined = Date.now();
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date", "performance"], now: joined + offset });
  const stop = new AbortController();
  const membership = openMembership({
    at,
    identity: {
      node: "a" as never,
      network: "isthmus" as never,
      machineId: "m",
      controllers: ["h:1"],
      manualEndpoints: [],
      advertise: [],
      lastNow: joined,
    },
    condition: () => {},
    log: () => {},
    signal: stop.signal,
  });
  membership.accepted(joined);
  const running = membership.run();
  await vi.advanceTimersByTimeAsync(days * DAY);
  stop.abort();
  await running;
  rmSync(folder, { recursive: true });
  return vi.mocked(renew).mock.calls.length;
}

test.each([-400, -1, 0, 1, 400])(
  "with a clock that is %i days off a certificate is renewed at two thirds of its life, by the controller's clock",
  async (off) => {
    expect(await renewals(off * DAY, 16)).toBe(0);
    vi.useRealTimers();
    expect(await renewals(off * DAY, 21)).toBeGreaterThan(0);
  },
);
