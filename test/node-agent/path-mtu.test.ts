import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import type { Endpoint, IpAddress, NodeName } from "../../mesh/model/scalars.ts";
import { createPathMtu, formatNarrow, measureMtu, type MtuTarget, PACE_MS, parseNarrow, type PathMtu } from "../../node-agent/path-mtu.ts";

const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 10_000, interval: 5 });

describe("measuring", () => {
  test("finds what gets through, never more, and at most the padding less", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 576, max: 9_000 }), fc.integer({ min: 600, max: 9_000 }), async (carried, full) => {
        const found = await measureMtu(full, async (bytes) => bytes <= carried);
        const most = Math.min(carried, full);
        expect(found).toBeLessThanOrEqual(most);
        expect(found).toBeGreaterThan(most - 8 - 1);
      }),
    );
  });

  test("says nothing where not even a small packet is answered, and forgives a size that was lost once", async () => {
    expect(await measureMtu(1420, async () => false)).toBeUndefined();
    const lost = new Set([1420]);
    expect(await measureMtu(1420, async (bytes) => !lost.delete(bytes))).toBe(1420);
  });
});

describe("the agent", () => {
  const n = (name: string): NodeName => name as NodeName;
  const target = (name: string, endpoint = `203.0.113.1:51820`, link = false): [NodeName, MtuTarget] => [
    n(name),
    { address: name as IpAddress, endpoint: endpoint as Endpoint, link },
  ];
  interface World {
    readonly carried: Map<string, number>;
    readonly asked: string[];
    learned: number | undefined;
    now: number;
    changes: number;
    /** What the kernel would have been told when a probe was sent. */
    readonly during: { readonly bytes: number; readonly tries: number; readonly measuring: NodeName | undefined }[];
  }
  async function withMtu(stored: ReadonlyMap<NodeName, number>, work: (mtu: PathMtu, world: World) => Promise<void>): Promise<void> {
    const world: World = { carried: new Map(), asked: [], learned: undefined, now: 0, changes: 0, during: [] };
    const abort = new AbortController();
    const mtu = createPathMtu({
      stored,
      full: () => 1420,
      async probe(address, bytes, tries) {
        if (world.asked.at(-1) !== address) world.asked.push(address);
        world.during.push({ bytes, tries, measuring: mtu.measuring });
        return bytes <= (world.carried.get(address) ?? 9_000);
      },
      learned: async () => world.learned,
      settled: async () => {},
      onChange: () => world.changes++,
      now: () => world.now,
      random: () => 0.5,
      log: () => {},
    });
    const running = mtu.run(abort.signal);
    try {
      await work(mtu, world);
    } finally {
      abort.abort();
      await running;
    }
  }
  const targets = (...list: [NodeName, MtuTarget][]): [ReadonlyMap<NodeName, MtuTarget>, ReadonlySet<NodeName>] => [
    new Map(list),
    new Set(list.map(([name]) => name)),
  ];

  test("measures gateways first, and tells what is narrow", async () => {
    await withMtu(new Map(), async (mtu, world) => {
      world.carried.set("gw", 1300);
      const all = targets(target("a"), target("b"), target("gw", "203.0.113.9:51820", true));
      mtu.setTargets(...all);
      await eventually(() => expect(world.asked).toEqual(["gw", "a"]));
      // The others take turns.
      world.now += PACE_MS;
      mtu.setTargets(...all);
      await eventually(() => expect(world.asked).toEqual(["gw", "a", "b"]));
      await eventually(() => expect([...mtu.narrow]).toEqual([["gw", 1296]]));
      expect(world.changes).toBe(1);
      expect(parseNarrow(JSON.parse(formatNarrow(mtu.narrow)))).toEqual(mtu.narrow);
    });
  });

  test("measures again at another endpoint, and after a while; a way that has grown is used", async () => {
    await withMtu(new Map([[n("gw"), 1296]]), async (mtu, world) => {
      world.carried.set("gw", 1300);
      mtu.setTargets(...targets(target("gw", "203.0.113.9:1", true)));
      await eventually(() => expect(world.asked).toEqual(["gw"]));
      await eventually(() => expect(mtu.measuring).toBeUndefined());
      expect(mtu.narrow.get(n("gw"))).toBe(1296);
      // Only while the full size was asked, nothing kept large packets away from the way.
      expect(world.during).toEqual([
        { bytes: 1296, tries: 3, measuring: undefined },
        { bytes: 1420, tries: 3, measuring: "gw" },
      ]);

      world.carried.delete("gw");
      world.asked.length = 0;
      mtu.setTargets(...targets(target("gw", "203.0.113.9:1", true)));
      await new Promise((wake) => setImmediate(wake));
      expect(world.asked).toEqual([]);
      mtu.setTargets(...targets(target("gw", "203.0.113.9:2", true)));
      await eventually(() => expect(mtu.narrow.size).toBe(0));

      world.carried.set("gw", 1400);
      world.now += 2 * 3_600_000;
      mtu.setTargets(...targets(target("gw", "203.0.113.9:2", true)));
      await eventually(() => expect(mtu.narrow.get(n("gw"))).toBe(1400));

      // Narrower still, at the same endpoint; and wider than that at another one.
      world.carried.set("gw", 1300);
      world.now += 2 * 3_600_000;
      mtu.setTargets(...targets(target("gw", "203.0.113.9:2", true)));
      await eventually(() => expect(mtu.narrow.get(n("gw"))).toBeLessThan(1301));
      world.carried.set("gw", 1380);
      world.during.length = 0;
      mtu.setTargets(...targets(target("gw", "203.0.113.9:3", true)));
      await eventually(() => expect(mtu.narrow.get(n("gw"))).toBeGreaterThan(1371));
      expect(new Set(world.during.map(({ measuring }) => measuring))).toEqual(new Set(["gw"]));
    });
  });

  test("a way that stays narrow is opened for one packet, and seldomer each time, up to six hours; one that changes is asked soon again", async () => {
    await withMtu(new Map([[n("gw"), 1296]]), async (mtu, world) => {
      world.carried.set("gw", 1300);
      const all = targets(target("gw", "203.0.113.9:1", true));
      const MINUTE = 60_000;
      /** Asks of the full size, and whether a second look follows after so many minutes and not before. */
      const after = async (minutes: number): Promise<number[]> => {
        const wide = world.during.filter(({ measuring }) => measuring !== undefined);
        expect(wide.map(({ bytes }) => bytes)).toEqual([1420]);
        world.during.length = 0;
        world.now += minutes * MINUTE - 1;
        mtu.setTargets(...all);
        for (let turn = 0; turn < 5; turn++) await new Promise((wake) => setImmediate(wake));
        expect(world.during).toEqual([]);
        world.now += 1;
        mtu.setTargets(...all);
        await eventually(() => expect(world.during.length).toBeGreaterThan(1));
        await eventually(() => expect(mtu.measuring).toBeUndefined());
        return wide.map(({ tries }) => tries);
      };
      mtu.setTargets(...all);
      await eventually(() => expect(world.during.length).toBeGreaterThan(1));
      await eventually(() => expect(mtu.measuring).toBeUndefined());
      expect(await after(10)).toEqual([3]);
      for (const minutes of [20, 40, 80, 160, 320, 360, 360]) expect(await after(minutes)).toEqual([1]);
      // Narrower now: found without opening it for anybody.
      world.carried.set("gw", 1200);
      world.during.length = 0;
      world.now += 360 * MINUTE;
      mtu.setTargets(...all);
      await eventually(() => expect(mtu.narrow.get(n("gw"))).toBeLessThan(1201));
      expect(world.during.some(({ measuring }) => measuring !== undefined)).toBe(false);
      world.carried.delete("gw");
      world.now += 10 * MINUTE;
      mtu.setTargets(...all);
      await eventually(() => expect(mtu.narrow.size).toBe(0));
    });
  });

  test("believes ICMP where large packets are lost and nowhere else, and forgets nodes that are gone", async () => {
    await withMtu(new Map([[n("gone"), 1300]]), async (mtu, world) => {
      world.learned = 1400;
      world.carried.set("a", 1350).set("b", 1350);
      // It carries everything, so what was learned may be a forgery.
      mtu.setTargets(
        ...targets(target("c", "203.0.113.2:51820", true), target("a", "203.0.113.1:51820", true), target("b", "[2001:db8::1]:51820", true)),
      );
      await eventually(() =>
        expect([...mtu.narrow]).toEqual([
          ["a", 1340],
          ["b", 1320],
        ]),
      );
    });
  });

  test("a peer that answers no ping keeps the MTU that the interface says", async () => {
    await withMtu(new Map(), async (mtu, world) => {
      world.carried.set("mute", 0);
      const all = targets(target("mute", "203.0.113.1:51820", true), target("b", "203.0.113.2:51820", true));
      mtu.setTargets(...all);
      await eventually(() => expect(world.asked).toEqual(["mute", "b"]));
      expect(mtu.narrow.size).toBe(0);
      world.now += 31_000;
      mtu.setTargets(...all);
      await eventually(() => expect(world.asked).toEqual(["mute", "b", "mute"]));
    });
  });
});
