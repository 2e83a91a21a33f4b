import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { adoptedChoice, electPath, SETTLE_MS } from "../../../mesh/elect/path.ts";
import { isAlive, TIER, tierOf } from "../../../mesh/elect/rank.ts";
import type { Choice, GatewayState, LinkVerdict, LinkView } from "../../../mesh/elect/types.ts";
import type { PathPlan } from "../../../mesh/model/plan.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";

const id = "egress/e" as const;
const n = (name: string): NodeName => name as NodeName;
const self = n("client");

function plan(names: string, change: Partial<PathPlan> = {}): PathPlan {
  return {
    created: 0,
    gateways: names.split("").map((name) => ({ node: n(name), priority: name === name.toUpperCase() ? 200 : 100 })),
    intervalMs: 100,
    threshold: 3,
    holdDownMs: 5_000,
    strategy: "Failover",
    failback: { type: "Delayed", delayMs: 60_000 },
    drainTimeoutMs: 30_000,
    onNoGateway: "Unreachable",
    ...change,
  };
}

type Short = "up" | "down" | "unknown" | "drain" | "nouplink" | "hold";
function view(node: NodeName, short: Short): LinkView {
  const verdict: LinkVerdict = short === "unknown" ? "Unknown" : short === "down" || short === "hold" ? "Down" : "Up";
  const gateway: GatewayState = short === "drain" ? "Draining" : short === "nouplink" ? "UplinkDown" : "Serving";
  return { node, verdict, since: 0, gateway, srttMs: 10, ...(short === "hold" ? { holdDownUntil: 99_000 } : {}) };
}
const views = (states: Record<string, Short>): Map<NodeName, LinkView> =>
  new Map(Object.entries(states).map(([name, short]) => [n(name), view(n(name), short)]));

/** Elections one after the other, each with the choice before. */
function story(path: PathPlan): (now: number, states: Record<string, Short>, change?: { path?: PathPlan; stalled?: boolean }) => Choice {
  let previous: Choice | undefined;
  return (now, states, change = {}) => {
    previous = electPath({ id, path: change.path ?? path, self, links: views(states), previous, stalled: change.stalled ?? false, now });
    return previous;
  };
}

describe("failover", () => {
  test("the first in order that is alive is chosen", () => {
    const at = story(plan("abc"));
    expect(at(0, { a: "up", b: "up", c: "up" })).toMatchObject({
      active: ["a"],
      reason: "Preferred",
      rejected: [
        { node: "b", why: "LowerPreference" },
        { node: "c", why: "LowerPreference" },
      ],
    });
  });

  test("when it dies the next one takes over, with the reason and the time", () => {
    const at = story(plan("ab"));
    at(0, { a: "up", b: "up" });
    expect(at(500, { a: "down", b: "up" })).toMatchObject({
      active: ["b"],
      reason: "GatewayDown",
      since: 500,
      draining: [],
      rejected: [{ node: "a", why: "Down" }],
    });
    expect(at(900, { a: "down", b: "up" })).toMatchObject({ active: ["b"], reason: "GatewayDown", since: 500 });
  });

  test("failback waits for the delay, asks to be woken, and drains what it leaves", () => {
    const at = story(plan("ab"));
    at(0, { a: "up", b: "up" });
    at(500, { a: "down", b: "up" });
    expect(at(1_000, { a: "up", b: "up" })).toMatchObject({
      active: ["b"],
      reason: "Sticky",
      wakeAt: 61_000,
      rejected: [{ node: "a", why: "Failback", since: 1_000 }],
    });
    expect(at(60_999, { a: "up", b: "up" }).active).toEqual(["b"]);
    const back = at(61_000, { a: "up", b: "up" });
    expect(back).toMatchObject({ active: ["a"], reason: "Preferred", draining: [{ node: "b", until: 91_000 }], wakeAt: 91_000 });
    expect(at(91_000, { a: "up", b: "up" })).toMatchObject({ draining: [], wakeAt: undefined });
  });

  test("a gateway that dies while its failback waits starts to wait anew", () => {
    const at = story(plan("ab"));
    at(0, { a: "up", b: "up" });
    at(500, { a: "down", b: "up" });
    at(1_000, { a: "up", b: "up" });
    at(50_000, { a: "down", b: "up" });
    at(51_000, { a: "up", b: "up" });
    expect(at(61_000, { a: "up", b: "up" }).active).toEqual(["b"]);
    expect(at(111_000, { a: "up", b: "up" }).active).toEqual(["a"]);
  });

  test("manual failback never comes by itself; immediate comes at once", () => {
    const manual = story(plan("ab", { failback: { type: "Manual", delayMs: 0 } }));
    manual(0, { a: "down", b: "up" });
    expect(manual(1_000_000, { a: "up", b: "up" })).toMatchObject({ active: ["b"], reason: "Sticky", wakeAt: undefined });
    const immediate = story(plan("ab", { failback: { type: "Immediate", delayMs: 0 } }));
    immediate(0, { a: "down", b: "up" });
    expect(immediate(1, { a: "up", b: "up" }).active).toEqual(["a"]);
  });

  test("a link that was lost while it drains keeps no flows", () => {
    const at = story(plan("ab", { failback: { type: "Immediate", delayMs: 0 } }));
    at(0, { a: "down", b: "up" });
    expect(at(1, { a: "up", b: "up" }).draining).toHaveLength(1);
    expect(at(2, { a: "up", b: "down" }).draining).toEqual([]);
  });

  test("a gateway that the intent let go is left at once for one that is proven, and keeps its flows", () => {
    const retired = plan("ba", { failback: { type: "Manual", delayMs: 0 } });
    const path = { ...retired, gateways: retired.gateways.map((one) => (one.node === "a" ? { ...one, retiring: true as const } : one)) };
    const at = story(plan("ab"));
    at(0, { a: "up", b: "up" });
    // Not before the other one is heard: the new path is up before the old one goes.
    expect(at(100, { a: "up", b: "unknown" }, { path })).toMatchObject({ active: ["a"], draining: [] });
    expect(at(200, { a: "up", b: "up" }, { path })).toMatchObject({
      active: ["b"],
      reason: "PlanChanged",
      draining: [{ node: "a", since: 200, until: 30_200 }],
      rejected: [{ node: "a", why: "Retiring" }],
    });
    // Gone from the plan, its flows stay until their time is over.
    expect(at(300, { a: "up", b: "up" }, { path: plan("b") })).toMatchObject({ active: ["b"], draining: [{ node: "a", until: 30_200 }] });
    expect(at(30_200, { a: "up", b: "up" }, { path: plan("b") }).draining).toEqual([]);
  });

  test("a gateway that is being drained is better than one that the intent let go, and that one better than none", () => {
    const path = plan("ba");
    const change = { path: { ...path, gateways: path.gateways.map((one) => (one.node === "a" ? { ...one, retiring: true as const } : one)) } };
    const at = story(plan("ab"));
    at(0, { a: "up", b: "drain" });
    expect(at(100, { a: "up", b: "drain" }, change)).toMatchObject({ active: ["b"], reason: "PlanChanged" });
    expect(at(200, { a: "up", b: "down" }, change)).toMatchObject({ active: ["a"] });
    expect(at(300, { a: "up", b: "up" }, change)).toMatchObject({ active: ["b"] });
  });

  test("draining moves new flows away at once and keeps the old ones", () => {
    const at = story(plan("ab"));
    at(0, { a: "up", b: "up" });
    expect(at(100, { a: "drain", b: "up" })).toMatchObject({
      active: ["b"],
      reason: "Draining",
      draining: [{ node: "a", until: 30_100 }],
      rejected: [{ node: "a", why: "Draining" }],
    });
  });

  test("a drain's own timeout replaces the path's, also when it is heard after the move, and it counts from the move", () => {
    const at = story(plan("ab"));
    at(0, { a: "up", b: "up" });
    expect(at(100, { a: "drain", b: "up" }).draining).toMatchObject([{ node: "a", until: 30_100 }]);
    const path = plan("ab", {
      gateways: [
        { node: n("a"), priority: 100, drainMs: 3_000 },
        { node: n("b"), priority: 100 },
      ],
    });
    expect(at(400, { a: "drain", b: "up" }, { path })).toMatchObject({ draining: [{ node: "a", until: 3_100 }], wakeAt: 3_100 });
    expect(at(3_100, { a: "drain", b: "up" }, { path })).toMatchObject({ active: ["b"], draining: [] });
  });

  test("the plan's word of a drain counts before the gateway's own: nobody goes back there meanwhile", () => {
    const failback = { type: "Immediate", delayMs: 0 } as const;
    const drained = plan("ab", {
      failback,
      gateways: [
        { node: n("a"), priority: 100, drainMs: 3_000, cordon: "1" },
        { node: n("b"), priority: 100 },
      ],
    });
    const at = story(plan("ab", { failback }));
    at(0, { a: "down", b: "up" });
    expect(at(100, { a: "up", b: "up" }, { path: drained })).toMatchObject({ active: ["b"], rejected: [{ node: "a", why: "Draining" }] });
    expect(at(200, { a: "up", b: "down" }, { path: drained })).toMatchObject({ active: ["a"] });
    expect(at(300, { a: "up", b: "up" }, { path: drained })).toMatchObject({ active: ["b"], draining: [{ node: "a", until: 3_300 }] });
    expect(at(400, { a: "up", b: "up" })).toMatchObject({ active: ["a"] });
  });

  test("a draining gateway stays where it is the only one alive", () => {
    const at = story(plan("ab"));
    at(0, { a: "up", b: "down" });
    expect(at(100, { a: "drain", b: "down" }).active).toEqual(["a"]);
    expect(at(200, { a: "drain", b: "nouplink" }).active).toEqual(["a"]);
  });

  test("a lost uplink is left for a gateway that has one, per path", () => {
    const at = story(plan("ab"));
    at(0, { a: "up", b: "up" });
    expect(at(100, { a: "nouplink", b: "up" })).toMatchObject({ active: ["b"], reason: "UplinkDown", draining: [] });
    const links = new Map([
      [n("a"), { ...view(n("a"), "up"), downPaths: ["egress/other"] }],
      [n("b"), view(n("b"), "up")],
    ]);
    expect(electPath({ id, path: plan("ab"), self, links, previous: undefined, stalled: false, now: 0 }).active).toEqual(["a"]);
  });

  test("nobody alive: the last working choice stays; nobody ever alive: none", () => {
    const at = story(plan("ab"));
    expect(at(0, { a: "down", b: "down" })).toMatchObject({ active: [], reason: "NoneEverAlive" });
    at(1, { a: "down", b: "up" });
    expect(at(2, { a: "down", b: "down" })).toMatchObject({ active: ["b"], reason: "LastKnown", since: 2 });
    expect(at(3, { a: "nouplink", b: "down" }).active).toEqual(["b"]);
    expect(at(4, { a: "down", b: "up" })).toMatchObject({ active: ["b"], reason: "OnlyHealthy" });
  });

  test("nobody heard yet is not nobody alive: a link that is new is neither, one that is not made stays unheard no longer", () => {
    const at = story(plan("ab"));
    expect(at(0, {})).toMatchObject({ active: [], reason: "NotHeardYet" });
    expect(at(1, { a: "unknown", b: "down" })).toMatchObject({ active: [], reason: "NotHeardYet" });
    expect(at(2, { a: "down", b: "down" })).toMatchObject({ active: [], reason: "NoneEverAlive" });
    const unmade = story(plan("a"));
    unmade(0, {});
    expect(unmade(1, {})).toMatchObject({ active: [], reason: "NoneEverAlive" });
  });

  test("a path that lost its last gateway to a change says that nobody is selected, not that nobody was ever alive", () => {
    const at = story(plan("a"));
    at(0, { a: "up" });
    expect(at(1, { a: "up" }, { path: plan("") })).toMatchObject({ active: [], reason: "NoGateway" });
    expect(at(2, {}, { path: plan("") })).toMatchObject({ active: [], reason: "NoGateway", since: 1 });
    expect(at(3, {}, { path: plan("b") })).toMatchObject({ active: [], reason: "NotHeardYet" });
  });

  test("where all are dead, one that answers again is taken before its quiet period ends", () => {
    const at = story(plan("ab"));
    at(0, { a: "up", b: "down" });
    at(1, { a: "down", b: "down" });
    expect(at(2, { a: "down", b: "hold" }).active).toEqual(["b"]);
    expect(at(3, { a: "hold", b: "hold" }).active).toEqual(["b"]);
    expect(at(4, { a: "up", b: "hold" }).active).toEqual(["a"]);
  });

  test("a standstill of the own probing is no sign of life: the choice remembers that nobody was believed alive", () => {
    const at = story(plan("ab"));
    at(0, { a: "up", b: "up" });
    expect(at(1, { a: "down", b: "down" })).toMatchObject({ active: ["a"], reason: "LastKnown" });
    expect(at(2, { a: "down", b: "up" }, { stalled: true })).toMatchObject({ active: ["a"], reason: "OwnStall", forlorn: true });
    expect(at(3, { a: "unknown", b: "up" }, { stalled: true })).not.toMatchObject({ active: ["b"] });
    expect(at(4, { a: "up", b: "up" })).toMatchObject({ active: ["a"], reason: "Preferred" });
    expect(at(5, { a: "up", b: "up" })).not.toHaveProperty("forlorn");
  });

  test("an own stall holds everything, also planned moves", () => {
    const at = story(plan("ab"));
    at(0, { a: "up", b: "up" });
    expect(at(1, { a: "down", b: "up" }, { stalled: true })).toMatchObject({ active: ["a"], reason: "OwnStall" });
    expect(at(2, { a: "drain", b: "up" }, { stalled: true }).active).toEqual(["a"]);
    expect(at(3, { a: "up", b: "up" })).toMatchObject({ active: ["a"], reason: "Preferred" });
  });

  test("after a restart nothing moves before the gateway in use has been heard or found dead", () => {
    const step = (previous: Choice, states: Record<string, Short>, now: number): Choice =>
      electPath({ id, path: plan("ab"), self, links: views(states), previous, stalled: false, now });
    const first = step(adoptedChoice([n("b")], 0), { a: "unknown", b: "unknown" }, 0);
    expect(first.active).toEqual(["b"]);
    const second = step(first, { a: "up", b: "unknown" }, 10);
    expect(second.active).toEqual(["b"]);
    expect(step(second, { a: "up", b: "up" }, 5_000).active).toEqual(["b"]);
    expect(step(second, { a: "up", b: "down" }, 1_200)).toMatchObject({ active: ["a"], reason: "GatewayDown" });
  });

  test("at first contact a lower gateway that answers sooner gives way at once, later only by failback", () => {
    const at = story(plan("ab"));
    expect(at(0, { a: "unknown", b: "up" })).toMatchObject({ active: ["b"], provisionalUntil: SETTLE_MS });
    expect(at(50, { a: "up", b: "up" }).active).toEqual(["a"]);
    const late = story(plan("ab"));
    late(0, { a: "unknown", b: "up" });
    late(SETTLE_MS, { a: "unknown", b: "up" });
    expect(late(SETTLE_MS + 1, { a: "up", b: "up" }).active).toEqual(["b"]);
  });

  test("first contact is over with the move to the best gateway: when that one fails right after, it waits for failback", () => {
    const at = story(plan("ab"));
    at(0, { a: "unknown", b: "up" });
    expect(at(50, { a: "up", b: "up" })).not.toHaveProperty("provisionalUntil");
    at(1_000, { a: "down", b: "up" });
    expect(at(4_000, { a: "up", b: "up" })).toMatchObject({ active: ["b"], rejected: [{ node: "a", why: "Failback" }] });
  });

  test("first contact goes on while better gateways are still awaited, and while a standstill holds the move", () => {
    const at = story(plan("abc"));
    at(0, { a: "unknown", b: "unknown", c: "up" });
    expect(at(50, { a: "unknown", b: "up", c: "up" })).toMatchObject({ active: ["b"], provisionalUntil: SETTLE_MS });
    expect(at(90, { a: "up", b: "up", c: "up" }, { stalled: true })).toMatchObject({ active: ["b"], reason: "OwnStall" });
    expect(at(190, { a: "up", b: "up", c: "up" }).active).toEqual(["a"]);
  });

  test("a gateway that a new plan puts first takes over when it answers, without failback", () => {
    const at = story(plan("ab", { failback: { type: "Manual", delayMs: 0 } }));
    at(0, { a: "up", b: "up" });
    const path = plan("xab", { failback: { type: "Manual", delayMs: 0 } });
    expect(at(1, { x: "unknown", a: "up", b: "up" }, { path }).active).toEqual(["a"]);
    expect(at(2, { x: "up", a: "up", b: "up" }, { path })).toMatchObject({ active: ["x"], reason: "PlanChanged", draining: [{ node: "a" }] });
  });

  test("a gateway that the plan no longer names carries on until the new one has been heard", () => {
    const at = story(plan("a"));
    at(0, { a: "up" });
    expect(at(1, { a: "up", x: "unknown" }, { path: plan("x") })).toMatchObject({ active: ["a"], reason: "PlanChanged" });
    expect(at(2, { a: "up", x: "up" }, { path: plan("x") })).toMatchObject({ active: ["x"], reason: "PlanChanged", draining: [{ node: "a" }] });
    const dead = story(plan("a"));
    dead(0, { a: "up" });
    expect(dead(1, { a: "up", x: "down" }, { path: plan("x") }).active).toEqual([]);
  });

  test("a gateway of the path chooses nobody: its own traffic leaves there", () => {
    const choice = electPath({ id, path: plan("ab"), self: n("b"), links: views({ a: "up" }), previous: undefined, stalled: false, now: 0 });
    expect(choice).toMatchObject({
      active: [],
      reason: "SelfGateway",
      rejected: [
        { node: "a", why: "Self" },
        { node: "b", why: "Self" },
      ],
    });
  });
});

describe("spread", () => {
  const path = plan("ABcd", { strategy: "Spread" });
  test("all healthy gateways of the best priority share", () => {
    const at = story(path);
    expect(at(0, { A: "up", B: "up", c: "up", d: "up" })).toMatchObject({ active: ["A", "B"], reason: "Spread" });
    expect(at(1, { A: "up", B: "down", c: "up", d: "up" }).active).toEqual(["A"]);
    expect(at(2, { A: "up", B: "up", c: "up", d: "up" }).active).toEqual(["A", "B"]);
    expect(at(3, { A: "up", B: "drain", c: "up", d: "up" })).toMatchObject({ active: ["A"], draining: [{ node: "B" }] });
  });

  test("the next priority takes over when the best is dead, and fails back as the intent says", () => {
    const at = story(path);
    at(0, { A: "up", B: "up", c: "up", d: "up" });
    expect(at(1, { A: "down", B: "down", c: "up", d: "up" }).active).toEqual(["c", "d"]);
    expect(at(2, { A: "up", B: "down", c: "up", d: "up" })).toMatchObject({ active: ["c", "d"], wakeAt: 60_002 });
    expect(at(60_002, { A: "up", B: "up", c: "up", d: "up" })).toMatchObject({ active: ["A", "B"], draining: [{ node: "c" }, { node: "d" }] });
  });

  test("nobody alive: all of the last ones stay", () => {
    const at = story(path);
    at(0, { A: "up", B: "up", c: "down", d: "down" });
    expect(at(1, { A: "down", B: "down", c: "down", d: "down" })).toMatchObject({ active: ["A", "B"], reason: "LastKnown" });
  });
});

describe("properties", () => {
  const short = fc.constantFrom<Short[]>("up", "up", "up", "down", "unknown", "drain", "nouplink", "hold");
  const states = fc.record({ A: short, B: short, c: short, d: short });
  const step = fc.record({ after: fc.integer({ min: 1, max: 40_000 }), states, stalled: fc.boolean() });
  const paths = fc.record({
    order: fc.constantFrom("ABcd", "BAdc", "ABc", "A", "Acd"),
    strategy: fc.constantFrom("Failover" as const, "Spread" as const),
    failback: fc.record({ type: fc.constantFrom("Immediate" as const, "Delayed" as const, "Manual" as const), delayMs: fc.constantFrom(0, 60_000) }),
  });

  test("never a gateway believed dead while another is believed alive; the same input twice changes nothing; no cause, no move", () => {
    fc.assert(
      fc.property(paths, fc.array(step, { minLength: 1, maxLength: 25 }), ({ order, ...rest }, steps) => {
        const path = plan(order, rest);
        let now = 0;
        let previous: Choice | undefined;
        for (const { after, states, stalled } of steps) {
          now += after;
          const links = views(states);
          const input = { id, path, self, links, previous, stalled, now };
          const choice = electPath(input);
          const tier = (node: NodeName): number => tierOf(id, links.get(node));
          const alive = path.gateways.filter(({ node }) => isAlive(tierOf(id, links.get(node))));
          const held = stalled && previous !== undefined && previous.active.length > 0;
          if (alive.length > 0 && !held) {
            expect(choice.active.length).toBeGreaterThan(0);
            for (const node of choice.active) expect(tier(node)).toBeLessThanOrEqual(TIER.Unheard);
          }
          if (alive.length === 0 && previous !== undefined) expect(choice.active).toEqual(previous.active);
          // Deterministic, whatever the order in which links are known.
          const shuffled = new Map([...links].toReversed());
          expect(electPath({ ...input, links: shuffled })).toEqual(choice);
          expect(electPath({ ...input, previous: choice })).toBe(choice);
          // Every candidate is either in use or rejected with a reason.
          expect([...choice.active, ...choice.rejected.map(({ node }) => node)].toSorted()).toEqual(path.gateways.map(({ node }) => node).toSorted());
          const left = previous?.active.filter((node) => !choice.active.includes(node)) ?? [];
          for (const node of left) {
            if (tier(node) === TIER.Good) expect(choice.rejected.find((one) => one.node === node)?.why).not.toBe("Failback");
            if (tier(node) <= TIER.LastResort) expect(choice.draining.map((one) => one.node)).toContain(node);
          }
          if (choice.wakeAt !== undefined) expect(choice.wakeAt).toBeGreaterThan(now);
          previous = choice;
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test("a quiet network ends at the best gateway, except with manual failback", () => {
    fc.assert(
      fc.property(paths, fc.array(step, { maxLength: 10 }), ({ order, ...rest }, steps) => {
        const path = plan(order, rest);
        let now = 0;
        let previous: Choice | undefined;
        const run = (states: Record<string, Short>, stalled: boolean): void => {
          previous = electPath({ id, path, self, links: views(states), previous, stalled, now });
        };
        for (const { after, states, stalled } of steps) {
          now += after;
          run(states, stalled);
        }
        const calm = { A: "up", B: "up", c: "up", d: "up" } as const;
        for (let asked = 0; asked < 20; asked++) {
          run(calm, false);
          if (previous?.wakeAt === undefined) break;
          now = previous.wakeAt;
        }
        expect(previous?.wakeAt).toBeUndefined();
        if (rest.failback.type === "Manual") return;
        const best = path.gateways.filter(({ priority }) => priority === path.gateways[0]!.priority).map(({ node }) => node);
        expect(previous?.active).toEqual(rest.strategy === "Spread" ? best : [path.gateways[0]!.node]);
      }),
    );
  });
});
