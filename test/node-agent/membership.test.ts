import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { places } from "../../node-agent/files.ts";
import { renew } from "../../node-agent/join.ts";
import { type Membership, openMembership } from "../../node-agent/membership.ts";
import { fakePki } from "./fake-controller.ts";

// Time since boot, which no fake clock shows.
vi.mock("node:os", async (original) => ({ ...(await original<typeof import("node:os")>()), uptime: () => performance.now() / 1_000 }));
vi.mock("../../node-agent/join.ts", () => ({ renew: vi.fn(async (_at: unknown, identity: unknown) => identity) }));

const DAY = 24 * 3_600_000;

afterEach(() => {
  vi.useRealTimers();
  vi.mocked(renew).mockClear();
});

interface Member {
  readonly membership: Membership;
  /** What is said of the clock. */
  clock(): string | undefined;
  /** How often something else was said of it. */
  words(): number;
  end(): Promise<void>;
}

/**
 * A member with a certificate that lasts 30 days, connected a moment ago, on a machine whose clock is off by so much.
 * @param looks whether the looks at the clock come in fake time too: there are very many of them in a month
 */
async function member(offset: number, { looks }: { readonly looks: boolean }): Promise<Member> {
  const folder = mkdtempSync(join(tmpdir(), "ist-membership-"));
  const at = places(join(folder, "data"), join(folder, "run"));
  mkdirSync(at.data, { mode: 0o700 });
  writeFileSync(at.certificate, (await (await fakePki()).leaf("node", "a", 30)).chain);
  const joined = Date.now();
  const intervals = looks ? (["setInterval", "clearInterval"] as const) : [];
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date", "performance", ...intervals], now: joined + offset });
  const stop = new AbortController();
  const said: (string | undefined)[] = [];
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
    condition: (type, _reason, message) => void (type === "ClockWrong" && said.push(message)),
    log: () => {},
    signal: stop.signal,
  });
  membership.accepted(joined);
  const running = membership.run();
  return {
    membership,
    clock: () => said.at(-1),
    words: () => said.length,
    async end() {
      stop.abort();
      await running;
      rmSync(folder, { recursive: true });
    },
  };
}

/** Renewals within so many days. */
async function renewals(offset: number, days: number): Promise<number> {
  const { end } = await member(offset, { looks: false });
  await vi.advanceTimersByTimeAsync(days * DAY);
  await end();
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

test("a clock that is set while the agent runs is said within seconds, and no longer than it is wrong", async () => {
  const { clock, words, end } = await member(0, { looks: true });
  const set = async (by: number): Promise<void> => {
    vi.setSystemTime(Date.now() + by);
    await vi.advanceTimersByTimeAsync(10_000);
  };
  await set(30_000);
  expect(clock()).toBeUndefined();
  await set(-30_000);
  await set(DAY);
  expect(clock()).toBe("this node's clock is 86400 s ahead of the controller's");
  await set(-2 * DAY);
  expect(clock()).toBe("this node's clock is 86400 s behind the controller's");
  const before = words();
  await vi.advanceTimersByTimeAsync(DAY / 24);
  expect(words()).toBe(before);
  await set(DAY);
  expect(clock()).toBeUndefined();
  await end();
});

test("a clock that was wrong when the controller was reached is said at once", async () => {
  const { membership, clock, end } = await member(-DAY, { looks: true });
  expect(clock()).toBe("this node's clock is 86400 s behind the controller's");
  // Another controller has the same wrong clock.
  membership.accepted(Date.now());
  expect(clock()).toBeUndefined();
  await end();
});
