import { describe, expect, test } from "vitest";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import { type LinkVerdict, REASONS } from "../../mesh/elect/types.ts";
import { desiredKernel } from "../../mesh/kernel/desired.ts";
import { GatewayHealth } from "../../mesh/model/health.ts";
import type { Plan } from "../../mesh/model/plan.ts";
import type { Cidr, IpAddress, NodeName, WgPublicKey } from "../../mesh/model/scalars.ts";
import { electAll, type Elections, formatElections, NO_ELECTIONS, parseElections } from "../../node-agent/elections.ts";
import type { Pass } from "../../node-agent/reconcile.ts";
import { moveEvents, resultsOf, hopsIn } from "../../node-agent/results.ts";
import { hopsOf } from "../../mesh/model/wire.ts";
import { HOST, key, name, rawViews } from "./plans.ts";

const ROUTER = "203.0.113.9" as IpAddress;
const LAN = "lanroute/office";

function planOf(router = ROUTER, destination = "192.0.2.0/24"): Plan {
  const { plan } = parsePlan(rawViews());
  if (plan === undefined) throw new Error("no plan");
  const lan = {
    created: 2,
    gateways: [router],
    table: 254,
    strategy: "Failover",
    health: GatewayHealth.parse({}),
    destinations: [destination as Cidr],
  };
  return { ...plan, lanRoutes: new Map([[LAN, lan]]) } as Plan;
}

/** Elections one after the other, and what is told of each. */
function story(
  plan = planOf(),
  first: Elections = NO_ELECTIONS,
): (g1: LinkVerdict | undefined, g2: LinkVerdict | undefined, lan: LinkVerdict, stalled?: boolean) => Told {
  let before = first;
  let now = 0;
  return (g1, g2, lan, stalled = false) => {
    const verdicts = { g1, g2 };
    const links = new Map(
      Object.entries(verdicts).flatMap(([node, verdict]) =>
        verdict === undefined ? [] : [[name(node), { node: name(node), verdict, since: 0, gateway: "Serving" as const, srttMs: 1 }] as const],
      ),
    );
    const gateways = plan.lanRoutes.get(LAN)?.gateways ?? [];
    const health = new Map([[LAN, new Map(gateways.map((gateway) => [gateway, { verdict: lan, since: 0 }]))]]);
    const elections = electAll(plan, { links, stalled, lan: health }, before, ++now);
    const numbers = new Map<NodeName, number>([
      [name("g1"), 1],
      [name("g2"), 2],
    ]);
    const input = {
      plan,
      host: HOST,
      publicKey: key(1) as WgPublicKey,
      links: numbers,
      choices: elections.paths,
      deadLinks: new Set<NodeName>(),
      dial: new Map(),
      lanChoices: new Map([...elections.lans].map(([id, choice]) => [id, choice.gateways])),
    };
    const pass: Pass = {
      input,
      desired: desiredKernel(input),
      elections,
      before,
      withoutLink: [],
      mute: [],
      failures: [],
      operations: 0,
      tookMs: 0,
    };
    before = elections;
    return {
      elections,
      results: resultsOf(pass, (at) => at),
      events: moveEvents(pass).map(({ type, reason, about }) => `${type} ${reason} ${about}`),
    };
  };
}
interface Told {
  readonly elections: Elections;
  readonly results: ReturnType<typeof resultsOf>;
  readonly events: string[];
}

test("a gateway that failed is named beside the one that carries, and no longer once it is back", () => {
  const at = story();
  expect(at("Up", "Up", "Up").results["egress/web"]).not.toHaveProperty("unusable");
  expect(at("Down", "Up", "Up").results["egress/web"]).toMatchObject({ ok: true, nextHop: "g2", unusable: [{ gateway: "g1", why: "Down" }] });
  expect(at("Up", "Up", "Up").results["egress/web"]).not.toHaveProperty("unusable");
});

test("a result names the drains that it was made in knowledge of, one from the next", () => {
  const drained = (more: object): Plan => {
    const plan = planOf();
    const web = plan.paths.get("egress/web");
    if (web === undefined) throw new Error("no path");
    const gateways = web.gateways.map((one) => (one.node === "g1" ? { ...one, ...more } : one));
    return { ...plan, paths: new Map([...plan.paths, ["egress/web", { ...web, gateways }]]) };
  };
  const told = (more: object) => story(drained(more))("Up", "Up", "Up").results["egress/web"];
  expect(told({})).toMatchObject({ nextHop: "g1" });
  expect(told({})).not.toHaveProperty("cordons");
  for (const cordon of ["", "2026-11-21T23:00:00.000Z"])
    expect(told({ drainMs: 60_000, cordon })).toMatchObject({ nextHop: "g2", cordons: [{ gateway: "g1", cordon }] });
});

describe("where every gateway is believed dead (I4)", () => {
  test("the choice stays, and is told as a fault with what can be done", () => {
    const at = story();
    expect(at("Up", "Up", "Up").results).toMatchObject({ "egress/web": { ok: true }, [LAN]: { ok: true } });
    const dead = at("Down", "Down", "Down");
    expect(dead.results["egress/web"]).toMatchObject({ ok: false, reason: "LastKnown", nextHop: "g1", message: expect.stringContaining("uplink") });
    expect(dead.results[LAN]).toMatchObject({ ok: false, reason: "LastKnown", nextHop: ROUTER, message: expect.stringContaining("health.type") });
    expect(dead.events).toEqual(["Warning LastKnown egress/web", `Warning LastKnown ${LAN}`]);
    expect(at("Down", "Down", "Down").events).toEqual([]);
    const back = at("Up", "Down", "Up");
    expect(back.results).toMatchObject({ "egress/web": { ok: true }, [LAN]: { ok: true } });
    expect(back.events).toEqual(["Normal Preferred egress/web", `Normal Preferred ${LAN}`]);
  });

  test("a standstill of the own probing in between hides no end of it, and makes no second warning", () => {
    for (const [g1, events] of [
      ["Up", ["Normal Preferred egress/web"]],
      ["Down", []],
    ] as const) {
      const at = story();
      at("Up", "Up", "Up");
      expect(at("Down", "Down", "Up").events).toEqual(["Warning LastKnown egress/web"]);
      const stalled = at("Down", "Up", "Up", true);
      expect(stalled.elections.paths.get("egress/web")?.reason).toBe("OwnStall");
      expect(stalled.events).toEqual([]);
      expect(at(g1, "Down", "Up").events).toEqual(events);
    }
  });

  test("why nothing carries a path is said in words, with what to do", () => {
    const at = story();
    expect(at(undefined, undefined, "Up").results["egress/web"]).toMatchObject({ ok: false, reason: "NotHeardYet", message: REASONS.NotHeardYet });
    const dead = at("Down", "Down", "Up").results["egress/web"];
    expect(dead).toMatchObject({ ok: false, reason: "NoneEverAlive" });
    expect(dead?.message).toMatch(/^no gateway was ever alive; look at the gateways/);
    const { plan } = parsePlan(rawViews());
    const path = plan?.paths.get("egress/web");
    if (plan === undefined || path === undefined) throw new Error("no plan");
    const empty = story({ ...planOf(), paths: new Map([["egress/web", { ...path, gateways: [] }]]) }, story()("Up", "Up", "Up").elections);
    const none = empty("Up", "Up", "Up");
    expect(none.results["egress/web"]).toMatchObject({ ok: false, reason: "NoGateway", message: REASONS.NoGateway });
    expect(none.events).toEqual(["Warning NoGateway egress/web"]);
  });

  test("a router that never answered is a fault only once its check has failed", () => {
    const at = story();
    expect(at("Up", "Up", "Unknown").results[LAN]).toMatchObject({ ok: true, reason: "NotHeardYet" });
    const dead = at("Up", "Up", "Down");
    expect(dead.results[LAN]).toMatchObject({ ok: false, reason: "NoneEverAlive", nextHop: ROUTER });
    expect(dead.events).toEqual([`Warning NoneEverAlive ${LAN}`]);
  });
});

describe("after a restart (I2)", () => {
  const restarted = (elections: Elections): Elections => parseElections(JSON.parse(formatElections(elections, (at) => at)), 0, (at) => at);

  test("nothing is told of gateways that the new process has not heard yet", () => {
    const { elections } = story()("Up", "Up", "Up");
    const at = story(planOf(), restarted(elections));
    for (const told of [at(undefined, undefined, "Unknown"), at("Unknown", "Unknown", "Unknown"), at("Up", "Unknown", "Up"), at("Up", "Up", "Up")]) {
      expect(told.events).toEqual([]);
      expect(told.results).toMatchObject({ "egress/web": { ok: true, reason: "Preferred" }, [LAN]: { ok: true, reason: "Preferred" } });
    }
  });

  test("what the process before it believed dead stays so until it is heard", () => {
    const before = story();
    before("Up", "Up", "Up");
    const { elections } = before("Down", "Down", "Down");
    const at = story(planOf(), restarted(elections));
    for (const told of [at(undefined, undefined, "Unknown"), at("Unknown", "Unknown", "Unknown"), at("Down", "Down", "Down")]) {
      expect(told.events).toEqual([]);
      expect(told.results).toMatchObject({ "egress/web": { ok: false, reason: "LastKnown" }, [LAN]: { ok: false, reason: "LastKnown" } });
    }
  });

  test("gateways that died meanwhile are told as soon as their probes have failed", () => {
    const { elections } = story()("Up", "Up", "Up");
    const at = story(planOf(), restarted(elections));
    at("Unknown", "Unknown", "Unknown");
    expect(at("Down", "Down", "Down").events).toEqual(["Warning LastKnown egress/web", `Warning LastKnown ${LAN}`]);
  });
});

test("no gateway is named for an intent of which nothing is routed, and no move of it is told", () => {
  const at = story(planOf("10.99.0.1" as IpAddress));
  const { results, events } = at("Up", "Up", "Unknown");
  expect([...events, ...at("Up", "Up", "Down").events].filter((event) => event.includes(LAN))).toEqual([]);
  expect(results[LAN]).toMatchObject({ ok: false, reason: "NotReachable" });
  expect(results[LAN]).not.toHaveProperty("nextHop");
  const taken = story(planOf(ROUTER, "198.51.100.0/24"))("Up", "Up", "Up");
  expect(taken.results[LAN]).toMatchObject({ ok: false, reason: "Conflict" });
  expect(taken.results[LAN]?.message).toBe(
    "not routed: 198.51.100.0/24: Conflict (egress/web has it already and is older): change or delete one of the two",
  );
  expect(taken.results[LAN]).not.toHaveProperty("nextHop");
  expect(taken.results["egress/web"]).toMatchObject({ ok: true, nextHop: "g1" });
});

test("all gateways of a path are named, however many and however long their names", () => {
  const gateways = Array.from({ length: 8 }, (_, i) => `gw-frankfurt-${i}`);
  const told = hopsIn(gateways, true);
  expect(told.nextHop).toHaveLength(64);
  expect(hopsOf(told)).toEqual(gateways);
  expect(hopsIn(["g1", "g2"], true)).toEqual({ nextHop: "g1,g2" });
});
