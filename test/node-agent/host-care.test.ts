import { expect, test, vi } from "vitest";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import { afterChangeMs, createHostCare, type HostCare } from "../../node-agent/host-care.ts";
import { name, rawViews } from "./plans.ts";

const PLAN = parsePlan(rawViews()).plan!;

interface Host {
  readonly told: (readonly number[])[];
  readonly conditions: Map<string, string>;
  readonly lines: string[];
  says: () => Promise<string[]>;
  missing: string | undefined;
  now: number;
}

function hostCare(): { host: Host; care: HostCare } {
  const host: Host = { told: [], conditions: new Map(), lines: [], says: async () => [], missing: undefined, now: 0 };
  const care = createHostCare({
    kernel: {
      configureHost: (ports) => {
        host.told.push(ports);
        return host.says();
      },
      forwardingBlockers: async () => [],
    },
    condition: (type, _reason, message) => void (message === undefined ? host.conditions.delete(type) : host.conditions.set(type, message)),
    log: (line) => void host.lines.push(line),
    now: () => host.now,
    missing: () => host.missing,
  });
  return { host, care };
}

test("the host is told when the ports change, and again at later looks: a firewall may have been started after the agent", async () => {
  const { host, care } = hostCare();
  await care.look();
  expect(host.told).toEqual([]);
  care.setPlan(PLAN, new Map([[name("g1"), 2]]));
  care.setPlan(PLAN, new Map([[name("g1"), 2]]));
  expect(host.told).toEqual([[51820, 51821, 51832]]);
  host.says = async () => ["firewalld: port 51820/udp accepted"];
  await care.look();
  expect(host.told.length).toBe(1);
  host.now = 5_000;
  await care.look();
  expect(host.told.length).toBe(2);
  expect(host.lines).toEqual(["firewalld: port 51820/udp accepted"]);
});

test("a host that cannot be told is a condition until it can", async () => {
  const { host, care } = hostCare();
  care.setPlan(PLAN, new Map());
  host.says = () => Promise.reject(new Error("no bus"));
  host.now = 30_000;
  await care.look();
  expect(host.conditions.get("HostNotConfigured")).toContain("no bus");
  host.says = async () => [];
  host.now = 60_000;
  await care.look();
  expect([...host.conditions]).toEqual([]);
});

test("a tool that checks need is missed at once, and no longer once it is installed", async () => {
  const { host, care } = hostCare();
  host.missing = "ping is not installed";
  care.setPlan(PLAN, new Map());
  expect(host.conditions.get("ToolMissing")).toBe("ping is not installed");
  host.missing = undefined;
  await care.look();
  expect(host.conditions.has("ToolMissing")).toBe(false);
});

test("a change of rules is looked at soon, changes without end now and then, and the more seldom the longer a look takes", () => {
  expect(afterChangeMs(100_000, { endedAt: 0, tookMs: 100 })).toBe(300);
  expect(afterChangeMs(100_000, { endedAt: 100_000, tookMs: 1 })).toBe(2_000);
  expect(afterChangeMs(100_000, { endedAt: 100_000, tookMs: 400 })).toBe(8_000);
  expect(afterChangeMs(100_000, { endedAt: 100_000, tookMs: 9_000 })).toBe(30_000);
});

test("nft events without end do not become looks without end", async () => {
  const { care } = hostCare();
  care.setPlan(PLAN, new Map());
  const stop = new AbortController();
  let looks = 0;
  const may = (): boolean => {
    looks++;
    return true;
  };
  const running = care.run(may, stop.signal);
  // The clock stands still: after the first look, the next one is seconds away.
  let events = 0;
  const changes = setInterval(() => {
    events++;
    care.nftChanged();
  }, 5);
  await vi.waitUntil(() => looks > 0 && events > 300, { timeout: 30_000, interval: 5 });
  clearInterval(changes);
  stop.abort();
  await running;
  expect(looks).toBe(1);
});
