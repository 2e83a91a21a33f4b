import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { describeNodeChanges, describeRetirement } from "../../../mesh/compile/describe.ts";
import { compile } from "../../../mesh/compile/plan.ts";
import { isTooLong, nextEnd, nextServing, RETIRE_GRACE_MS, type Serving } from "../../../mesh/compile/retiring.ts";
import type { PathPlan, ServePlan } from "../../../mesh/model/plan.ts";
import type { Cidr, NodeName } from "../../../mesh/model/scalars.ts";
import { conditionsOf, fourNodes, keysOf, resource } from "./fixtures.ts";

const INTENT = { destinations: ["34.160.111.145", "34.160.112.0/24"], gateways: [{ site: "fra" }, { site: "ams" }], drainTimeout: "30s" };
const n = (...names: string[]): NodeName[] => names as NodeName[];
const c = (...cidrs: string[]): Cidr[] => cidrs as Cidr[];
const NOTHING: Serving["retiring"] = { gateways: {}, destinations: {} };
const was = (gateways: string[], destinations: string[], retiring: Serving["retiring"] = NOTHING): Serving => ({
  gateways: n(...gateways),
  destinations: c(...destinations),
  retiring,
});
const egress = (spec: object, serving?: Serving, more: Parameters<typeof fourNodes>[0] = {}) =>
  compile({
    ...fourNodes({ egress: [resource("EgressGateway", "e", { ...INTENT, ...spec })], ...more }),
    ...(serving === undefined ? {} : { serving: new Map([["egress/e", serving]]) }),
  });
type Output = ReturnType<typeof egress>;
const pathOf = (out: Output, id = "egress/e") => out.views.get(id)?.get("path") as PathPlan;
const serveOf = (out: Output, name: string, id = "egress/e") => out.views.get(`node/${name}`)?.get(`serve/${id}`) as ServePlan | undefined;
const BOTH = was(["do1", "do2"], ["34.160.111.145/32", "34.160.112.0/24"]);
const ALL = { nodeSelector: {} };

describe("a gateway that an intent let go", () => {
  const out = egress({ gateways: [{ site: "ams" }], sources: ALL }, BOTH);

  it("stays in the plan, last and retiring, with its clients and what it does for them", () => {
    expect(pathOf(out).gateways).toEqual([
      { node: "do2", priority: 100 },
      { node: "do1", priority: 0, retiring: true },
    ]);
    expect(keysOf(out.views.get("node/do1"))).toContain("client/datacenter1");
    expect(serveOf(out, "do1")).toEqual(serveOf(out, "do2"));
    expect(out.audience.get("do1" as NodeName)).toContain("egress/e");
  });

  it("is no client of the path before it has retired, and one after, where the sources select it", () => {
    const client = (output: Output): boolean => keysOf(output.views.get("node/do2")).includes("client/do1");
    expect(client(out)).toBe(false);
    const after = egress({ gateways: [{ site: "ams" }], sources: ALL }, was(["do2"], []));
    expect(client(after)).toBe(true);
    expect(serveOf(after, "do1")).toBeUndefined();
  });

  it("is told in the intent's status, with the time where that is known", () => {
    const status = out.intentStatus.get("EgressGateway/e");
    expect(status).toMatchObject({ gateways: ["do2"], retiring: ["do1"] });
    expect(conditionsOf(status)).toContain("Retiring=True/PlannedMove");
    const later = egress({ gateways: [{ site: "ams" }] }, was(["do2"], [], { gateways: { do1: Date.UTC(2026, 0, 1) }, destinations: {} }));
    expect(later.intentStatus.get("EgressGateway/e")?.conditions.find(({ type }) => type === "Retiring")?.message).toBe(
      "gateway do1 serves established flows until 2026-01-01T00:00:00.000Z",
    );
  });

  it("is told by diff, on the node itself and on its clients", () => {
    const before = egress({}, BOTH);
    expect(describeRetirement("do1" as NodeName, before, out)).toEqual([
      {
        area: "nat",
        action: "change",
        what: "serving egress/e",
        from: "gateway",
        to: "for established flows only, until the drain timeout",
      },
    ]);
    expect(describeRetirement("do2" as NodeName, before, out)).toEqual([]);
    expect(describeNodeChanges("datacenter1" as NodeName, before, out)).toContainEqual({
      area: "nexthop",
      action: "change",
      what: "egress/e",
      from: "first of do1, do2",
      to: "first of do2; do1 until established flows have moved",
    });
  });

  it("goes at once with its node, and with the whole intent", () => {
    const { nodes } = fourNodes();
    const without = egress({ gateways: [{ site: "ams" }] }, BOTH, { nodes: nodes.filter(({ metadata }) => metadata.name !== "do1") });
    expect(pathOf(without).gateways).toEqual([{ node: "do2", priority: 100 }]);
    const deleted = compile({ ...fourNodes(), serving: new Map([["egress/e", BOTH]]) });
    expect(deleted.views.has("egress/e")).toBe(false);
    expect(serveOf(deleted, "do1")).toBeUndefined();
  });

  it("leaves no trace when it is a gateway again", () => {
    const serving = was(["do2"], ["34.160.111.145/32", "34.160.112.0/24"], { gateways: { do1: 1 }, destinations: {} });
    expect([...egress({}, serving).views]).toEqual([...egress({}).views]);
  });
});

describe("a destination that an intent let go", () => {
  it("is served on by its gateways, but no client is steered there any more", () => {
    const out = egress({ destinations: ["34.160.112.0/24"] }, BOTH);
    expect(keysOf(out.views.get("egress/e"))).toEqual(["d/34.160.112.0/24", "path"]);
    expect(serveOf(out, "do1")?.retired).toEqual(["34.160.111.145/32"]);
    expect(out.intentStatus.get("EgressGateway/e")?.conditions.at(-1)?.message).toBe(
      "established flows to 34.160.111.145/32 go on until the drain timeout",
    );
  });

  it("is open for new flows until every client has heard, and then for established ones only", () => {
    const now = was(["do1", "do2"], ["34.160.112.0/24"], {
      gateways: {},
      destinations: { "34.160.111.145/32": 50 },
      open: { "34.160.111.145/32": 20 },
    });
    const later = { ...now, retiring: { gateways: {}, destinations: now.retiring.destinations } };
    const of = (serving: Serving) => serveOf(egress({ destinations: ["34.160.112.0/24"] }, serving), "do1");
    expect(of(BOTH)?.settled).toBeUndefined();
    expect(of(now)).toMatchObject({ retired: ["34.160.111.145/32"] });
    expect(of(now)?.settled).toBeUndefined();
    expect(of(later)).toMatchObject({ retired: ["34.160.111.145/32"], settled: ["34.160.111.145/32"] });
  });

  it("belongs to another intent at once, and the first one's gateway still serves what is established", () => {
    const other = resource("EgressGateway", "other", { destinations: ["34.160.111.145"], gateways: [{ site: "ams" }] }, 5);
    const mine = resource("EgressGateway", "e", { ...INTENT, gateways: [{ site: "fra" }], destinations: ["34.160.112.0/24"] });
    const out = egress({}, undefined, { egress: [mine, other] });
    expect(serveOf(out, "do1")?.retired).toBeUndefined();
    const moved = compile({ ...fourNodes({ egress: [mine, other] }), serving: new Map([["egress/e", BOTH]]) });
    expect(serveOf(moved, "do1")?.retired).toEqual(["34.160.111.145/32"]);
    expect(keysOf(moved.views.get("egress/other"))).toContain("d/34.160.111.145/32");
  });
});

describe("the facts", () => {
  const served = { gateways: n("do2"), destinations: c("34.160.112.0/24"), drainTimeoutMs: 30_000 };
  const isNode = (): boolean => true;

  it("begin with what the intent says, and stay as they are", () => {
    const first = nextServing(served, undefined, 1_000, isNode);
    expect(first).toEqual(was(["do2"], ["34.160.112.0/24"]));
    expect(nextServing(served, first, 99_000, isNode)).toBe(first);
    expect(nextEnd(first)).toBeUndefined();
  });

  it("give what was let go the drain timeout, once, and a moment for the change to arrive", () => {
    const until = 1_000 + 30_000 + RETIRE_GRACE_MS;
    const first = nextServing(served, BOTH, 1_000, isNode);
    const heard = 1_000 + RETIRE_GRACE_MS;
    const ends = { gateways: { do1: until }, destinations: { "34.160.111.145/32": until } };
    expect(first.retiring).toEqual({ ...ends, open: { "34.160.111.145/32": heard } });
    expect(nextServing(served, first, heard - 1, isNode)).toBe(first);
    expect(nextEnd(first)).toBe(heard);
    const settled = nextServing(served, first, heard, isNode);
    expect(settled.retiring).toEqual(ends);
    expect(nextServing(served, settled, 20_000, isNode)).toBe(settled);
    expect(nextEnd(settled)).toBe(until);
    expect(nextServing(served, settled, until, isNode).retiring).toEqual(NOTHING);
  });

  it("last no longer than the drain timeout from now when the clock was set back or the timeout made shorter", () => {
    const first = nextServing(served, BOTH, 1_000_000, isNode);
    const until = 500_000 + 30_000 + RETIRE_GRACE_MS;
    expect(nextServing(served, first, 500_000, isNode).retiring).toEqual({
      gateways: { do1: until },
      destinations: { "34.160.111.145/32": until },
      open: { "34.160.111.145/32": 500_000 + RETIRE_GRACE_MS },
    });
    expect(isTooLong(served, first, 500_000)).toBe(true);
    expect(isTooLong(served, first, 1_000_000)).toBe(false);
    expect(isTooLong({ ...served, drainTimeoutMs: 1_000 }, first, 1_000_000)).toBe(true);
  });

  it("forget a gateway that is one again, and one whose node is gone", () => {
    const first = nextServing(served, BOTH, 1_000, isNode);
    expect(nextServing({ ...served, gateways: n("do1", "do2") }, first, 2_000, isNode).retiring.gateways).toEqual({});
    expect(nextServing(served, first, 2_000, (name) => name !== "do1").retiring.gateways).toEqual({});
  });

  it("let nothing go before its time, whatever changes follow each other", () => {
    const names = fc.uniqueArray(fc.constantFrom<string>("a", "b", "c"));
    fc.assert(
      fc.property(fc.array(fc.record({ gateways: names, after: fc.integer({ min: 0, max: 30_000 }) }), { minLength: 1, maxLength: 12 }), (steps) => {
        let fact: Serving | undefined;
        let now = 0;
        const lastSeen = new Map<string, number>();
        for (const { gateways, after } of steps) {
          for (const name of fact?.gateways ?? []) lastSeen.set(name, now + after);
          now += after;
          fact = nextServing({ gateways: n(...gateways), destinations: [], drainTimeoutMs: 30_000 }, fact, now, isNode);
          for (const [name, at] of lastSeen) {
            const serves = fact.gateways.some((one) => one === name) || name in fact.retiring.gateways;
            expect(serves).toBe(gateways.includes(name) || now < at + 30_000 + RETIRE_GRACE_MS);
          }
        }
      }),
    );
  });
});
