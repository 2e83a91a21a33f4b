/** What an intent says is what the packets do: failback, spread, translation, exclusions, routes through nodes and LAN routers, conflicts. Needs root. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { netnsName, WORLD } from "../../lab/names.ts";
import { eventually, netnsScript } from "../../lab/shell.ts";
import type { EventRecord } from "../../mesh/model/answers.ts";
import type { AgentStatus } from "../../node-agent/status.ts";
import { conditionOf, egress, forgetFlaps, INTERNET, type Plane, planeUp, settled, steady } from "./plane.ts";

const NAME = `t-${process.pid}-ki`;
const CLIENT = "datacenter1";
/** Addresses of the internet host that no other test claims. */
const PARTNER = "34.160.112.1";
/** A machine of the datacenter's LAN, without an agent. */
const LANHOST = "192.168.88.50";
const API = "isthmus.dev/v1alpha1";

let plane: Plane;

beforeAll(async () => {
  plane = await planeUp(NAME, { manifests: false });
}, 120_000);

afterAll(async () => plane.down());

beforeEach(async () => {
  for (const plural of ["egressgateways", "meshroutes", "staticroutes"]) {
    const { items } = (await plane.controller.call("GET", `/v1/resources/${plural}`)) as { items: { metadata: { name: string } }[] };
    for (const { metadata } of items) await plane.remove(plural, metadata.name);
  }
  await settled(plane);
  // Gone with every power-off of do1: the internet knows the way back to what is sent untranslated through do1, and to a second address of do1.
  await netnsScript(
    netnsName(NAME, WORLD),
    `ip route replace 10.101.0.0/16 via ${plane.addressOf("do1")}; ip route replace 203.0.113.77 via ${plane.addressOf("do1")}`,
  );
  await forgetFlaps(plane, CLIENT, "do1", "do2");
}, 90_000);

const activeOf = async (path = "egress/internet", node = CLIENT): Promise<string> =>
  (await plane.status(node)).paths.find(({ id }) => id === path)?.active.join(",") ?? "";
const uses = async (gateway: string, path?: string, node = CLIENT): Promise<true> =>
  eventually(`${node} uses ${gateway}`, 30_000, async () => ((await activeOf(path, node)) === gateway ? true : undefined), { everyMs: 50 });
const reaches = (from: string, to: string): Promise<true> =>
  eventually(`${from} reaches ${to}`, 30_000, async () =>
    (await plane.lab.exec(from, ["ping", "-c", "1", "-W", "1", to], { mayFail: true })).code === 0 ? true : undefined,
  );
const candidate = async (node: string, why: string): Promise<true> => {
  let last: unknown;
  return eventually(`${node} is a candidate: ${why}`, 30_000, async () => {
    const { candidates } = (last = await plane.explain(CLIENT, INTERNET));
    return candidates.some((one) => one.node === node && one.why === why) ? true : undefined;
  }).catch(async (error: unknown) => {
    throw new Error(`${String(error)}: ${JSON.stringify([last, (await plane.status(CLIENT)).links])}`, { cause: error });
  });
};
const directly = (): string => plane.addressOf("dc-router");

describe("failback", () => {
  test("Immediate goes back as soon as the better gateway counts as up", async () => {
    await plane.apply(egress());
    await steady(plane, CLIENT, "do1");
    await plane.lab.fail("node", "do1");
    await plane.becomes("do2 carries", CLIENT, plane.addressOf("do2"));
    await plane.lab.heal();
    await steady(plane, CLIENT, "do1");
  });

  test("Delayed lets the better gateway be healthy for a while first", async () => {
    await plane.apply(egress({ failback: { type: "Delayed", delay: "4s" } }));
    await steady(plane, CLIENT, "do1");
    await plane.lab.fail("link", "datacenter1", "do1");
    await uses("do2");
    await plane.lab.heal();
    await candidate("do1", "Failback");
    expect(await activeOf()).toBe("do2");
    await steady(plane, CLIENT, "do1");
  });

  test("Manual stays until the gateway in use fails", async () => {
    // A first choice is manual too: links that are up make it the better gateway, however slow this machine is.
    await plane.apply(egress());
    await steady(plane, CLIENT, "do1");
    await plane.apply(egress({ failback: { type: "Manual" } }));
    await steady(plane, CLIENT, "do1");
    await plane.lab.fail("link", "datacenter1", "do1");
    await uses("do2");
    await plane.lab.heal();
    await candidate("do1", "Failback");
    await new Promise((wake) => setTimeout(wake, 2_000));
    expect(await activeOf()).toBe("do2");
    await plane.lab.fail("link", "datacenter1", "do2");
    await uses("do1");
  });
});

describe("strategy and where no gateway is", () => {
  test("Spread uses all healthy gateways of one priority, and the rest when one dies", async () => {
    // The sites' priorities differ: equal ones are asked for.
    await plane.apply(egress({ strategy: "Spread", gateways: [{ nodeSelector: { egress: "true" }, priority: 200 }] }));
    await eventually("both are used", 30_000, async () => ((await activeOf()).split(",").length === 2 ? true : undefined));
    const seen = new Set<string>();
    await eventually("connections leave by both", 30_000, async () => {
      seen.add(await plane.seenFrom(CLIENT));
      return seen.has(plane.addressOf("do1")) && seen.has(plane.addressOf("do2")) ? true : undefined;
    });
    await plane.lab.fail("node", "do2");
    await uses("do1");
    for (let i = 0; i < 6; i++) expect(await plane.seenFrom(CLIENT)).toBe(plane.addressOf("do1"));
  });

  test("where no gateway was ever alive, traffic is refused, or goes by the underlay if the intent says so", async () => {
    await plane.lab.fail("node", "do1", "do2");
    await plane.apply(egress(), egress({ destinations: ["34.160.112.9"], onNoGateway: "Underlay" }, "maybe"));
    await eventually("the plan is there", 30_000, async () => ((await plane.explain(CLIENT, INTERNET)).verdict === "Unreachable" ? true : undefined));
    await plane.becomes("the underlay carries it", CLIENT, directly(), "34.160.112.9");
    expect(await plane.seenFrom(CLIENT)).toBe("");
    expect(await plane.explain(CLIENT, INTERNET)).toMatchObject({ verdict: "Unreachable", kernel: { agrees: true } });
    await plane.lab.heal();
    await plane.becomes("a gateway carries it", CLIENT, [plane.addressOf("do1"), plane.addressOf("do2")], "34.160.112.9");
  });
});

describe("translation and exclusions", () => {
  test("snat Address shows the given address, None the sender's own", async () => {
    await plane.sh("do1", "ip addr replace 203.0.113.77/32 dev lo");
    const byDo1 = { gateways: [{ site: "do1" }] };
    await plane.apply(egress({ ...byDo1, snat: { type: "Address", address: "203.0.113.77" } }));
    await plane.becomes("the given address is seen", CLIENT, "203.0.113.77");
    await plane.apply(egress({ ...byDo1, snat: { type: "None" } }));
    await plane.becomes("the sender is seen", CLIENT, (await plane.lab.overlayAddress(CLIENT)) ?? "");
  });

  test("excluded destinations keep their old way", async () => {
    await plane.apply(egress({ destinations: ["34.160.112.0/24"], excludedDestinations: ["34.160.112.128/25"], gateways: [{ site: "do1" }] }));
    await plane.becomes("the rest is steered", CLIENT, plane.addressOf("do1"), PARTNER);
    expect(await plane.seenFrom(CLIENT, "34.160.112.200")).toBe(directly());
  });

  test("a MeshRoute through nodes goes over their links untranslated, and to the next one when the first dies", async () => {
    // Links that are up already: the first choice is the first of the list.
    await plane.apply(egress());
    await steady(plane, CLIENT, "do1");
    const spec = {
      destinations: ["34.160.112.0/24"],
      nodeSelector: { location: "onprem" },
      gateways: [{ node: "do1" }, { node: "do2" }],
      health: { type: "agent", holdDown: "1s" },
    };
    await plane.apply({ apiVersion: API, kind: "MeshRoute", metadata: { name: "by-nodes" }, spec });
    await plane.becomes("the sender is seen", CLIENT, (await plane.lab.overlayAddress(CLIENT)) ?? "", PARTNER);
    await plane.lab.fail("link", "datacenter1", "do1");
    await uses("do2", "route/by-nodes");
  });
});

describe("routes through routers of the LAN", () => {
  const staticRoute = (name: string, gateway: string, destinations = [`${PARTNER}/32`]): object => ({
    apiVersion: "networking.digitalocean.com/v1",
    kind: "StaticRoute",
    metadata: { name },
    spec: { destinations, gateway },
  });
  const byRouter = async (router: string, url = PARTNER): Promise<void> =>
    plane.becomes(`do1 goes by ${router}`, "do1", plane.addressOf(router), url);

  test("fail over to the next router within the time of a few probes, and back", async () => {
    const [INTERVAL_MS, THRESHOLD] = [200, 3];
    const spec = {
      destinations: ["34.160.112.0/24"],
      nodeSelector: { location: "cloud" },
      gateways: [{ address: "10.116.0.5" }, { address: "10.116.0.12" }],
      health: { holdDown: "1s", interval: `${INTERVAL_MS}ms`, threshold: THRESHOLD },
    };
    await plane.apply({ apiVersion: API, kind: "MeshRoute", metadata: { name: "partner" }, spec });
    await byRouter("gw-a");
    await eventually("gw-b answers too", 30_000, async () =>
      (await plane.explain("do1", PARTNER)).candidates.some(({ node, why }) => node === "10.116.0.12" && why === "LowerPreference")
        ? true
        : undefined,
    );
    const stream = await plane.lab.startGapStream({ from: "do1", to: PARTNER, protocol: "udp", intervalMs: 10 });
    await plane.lab.fail("node", "gw-a");
    await byRouter("gw-b");
    const report = await stream.stop();
    // One outage, between packets that were answered; an ARP entry that dies takes several seconds, and probes do not wait for it.
    expect(report.rttMs).toBeDefined();
    expect(report.gaps[0]?.[0]).toBeGreaterThan(0);
    expect(report.longestGapMs / (INTERVAL_MS * THRESHOLD)).toBeLessThan(2.5);
    await plane.lab.heal();
    await byRouter("gw-a");
  });

  test("change their gateway in place without a packet lost", async () => {
    await plane.apply(staticRoute("primary", "10.116.0.5"));
    await byRouter("gw-a");
    const stream = await plane.lab.startGapStream({ from: "do1", to: "10.116.0.12", protocol: "icmp", intervalMs: 20 });
    await plane.apply(staticRoute("primary", "10.116.0.12"));
    await byRouter("gw-b");
    expect((await stream.stop()).lost).toBe(0);
    expect(await plane.sh("do1", `ip route show ${PARTNER}`)).toMatch(/via 10\.116\.0\.12.*proto 157/);
  });

  test("2,000 destinations that change their gateway are one event per node, not one per destination", async () => {
    const many = (block: string): string[] => Array.from({ length: 2_000 }, (_, i) => `198.${block}.${i >> 8}.${i & 255}/32`);
    const [byLan, byEgress] = [many("18"), many("19")];
    const through = (site: string): object => egress({ destinations: byEgress, gateways: [{ site }] }, "many");
    const goes = (node: string, how: string): Promise<true> =>
      eventually(`2,000 destinations of ${node}: ${how}`, 60_000, async () =>
        (await plane.sh(node, `ip route show table all | grep -cE '^198[.]1[89][.][0-9.]+ .*${how}' || true`)).trim() === "2000" ? true : undefined,
      );
    const began = Date.now();
    await plane.apply(staticRoute("many", "10.116.0.5", byLan), through("do1"));
    await steady(plane, CLIENT, "do1", "egress/many");
    await Promise.all([goes("do1", "via 10.116.0.5"), goes("do2", "via 10.116.0.5"), goes(CLIENT, "nhid"), goes("datacenter2", "nhid")]);
    // There and back: a node tells in order, so with the second word of all of them everything about the first move is told.
    const moves = [
      ["10.116.0.5", "10.116.0.12", "do1", "do2"],
      ["10.116.0.12", "10.116.0.5", "do2", "do1"],
    ] as const;
    for (const [, router, , gateway] of moves) {
      await plane.apply(staticRoute("many", router, byLan), through(gateway));
      await steady(plane, CLIENT, gateway, "egress/many");
      await Promise.all([goes("do1", `via ${router}`), goes("do2", `via ${router}`), steady(plane, "datacenter2", gateway, "egress/many")]);
    }
    // A StaticRoute selects every node; those of the datacenter cannot reach it, say so in their results, and move nothing.
    const expected = [
      ...["datacenter1", "datacenter2"].map((node) => `${node} egress/many goes to do1`),
      ...["do1", "do2"].map((node) => `${node} staticroute/many goes to 10.116.0.5`),
      ...moves.flatMap(([fromRouter, router, from, gateway]) => [
        ...["datacenter1", "datacenter2"].map((node) => `${node} egress/many goes from ${from} to ${gateway}`),
        ...["do1", "do2"].map((node) => `${node} staticroute/many goes from ${fromRouter} to ${router}`),
      ]),
    ].sort();
    // Each node's own word; what the controller says of a gateway that retires is about the intent, not about a node.
    const told = async (): Promise<string[]> => {
      const { items } = (await plane.controller.call("GET", `/v1/events?since=${began}`)) as { items: EventRecord[] };
      const ofNodes = items.filter(({ node, about }) => node !== undefined && /many|^node$/.test(about));
      return ofNodes.map(({ node, message, count }) => `${node} ${message.replace(/:.*/, "")}${count === 1 ? "" : ` ×${count}`}`).sort();
    };
    await eventually("every node has told of its moves", 30_000, async () => ((await told()).length >= expected.length ? true : undefined));
    expect(await told()).toEqual(expected);
  });

  test("two objects that claim one destination: the older keeps it, the younger says whose it is and gets it when the older goes", async () => {
    await plane.sh("do1", "ip route replace 198.18.77.0/24 via 10.116.0.5");
    await plane.apply(staticRoute("older", "10.116.0.5"));
    await byRouter("gw-a");
    await plane.apply(staticRoute("younger", "10.116.0.12", [`${PARTNER}/32`, "34.160.112.2/32"]));
    await byRouter("gw-b", "34.160.112.2");
    const conflict = await conditionOf(plane, "staticroutes", "younger", "Conflict", ({ status }) => status === "True");
    expect(conflict.message).toContain("older");
    await byRouter("gw-a");
    await plane.remove("staticroutes", "older");
    await byRouter("gw-b");
    await plane.remove("staticroutes", "younger");
    await eventually("exactly its routes are gone", 20_000, async () =>
      (await plane.sh("do1", "ip route show proto 157")).includes("34.160.112") ? undefined : true,
    );
    expect(await plane.sh("do1", "ip route show 198.18.77.0/24")).toContain("via 10.116.0.5");
  });
});

describe("a site's subnets", () => {
  test("are reached by the site's other node from the one site that its gateway lost; nothing else moves, and nothing when it heals", async () => {
    const subnet = "subnet/dc1";
    await plane.apply(egress());
    const { candidates } = await plane.explain("do1", LANHOST);
    const [cut = "", other = ""] = candidates.map(({ node }) => node);
    // Both clouds go by the same gateway, the first, so that nobody is about to fail back.
    await plane.cli("drain", other, "--timeout", "1s");
    await Promise.all(["do1", "do2"].map((node) => uses(cut, subnet, node)));
    await plane.cli("uncordon", other);
    await Promise.all([steady(plane, "do1", cut, subnet), steady(plane, cut, "do1"), steady(plane, other, "do1")]);
    const uninvolved = (): Promise<AgentStatus["paths"]> => Promise.all([steady(plane, "do2", cut, subnet), steady(plane, other, "do1")]);
    const before = await uninvolved();
    const going = await Promise.all([
      // The gateway serves the site that it reaches, and reaches it; the site's other node goes by the gateway that the first one lost.
      plane.lab.startGapStream({ from: "do2", to: LANHOST, protocol: "icmp", intervalMs: 10 }),
      plane.lab.startGapStream({ from: cut, to: "do2", protocol: "icmp", intervalMs: 10 }),
      plane.lab.startGapStream({ from: other, to: INTERNET, protocol: "udp", intervalMs: 10 }),
    ]);

    await plane.lab.fail("link", cut, "do1");
    await Promise.all([uses(other, subnet, "do1"), uses("do2", "egress/internet", cut)]);
    await reaches("do1", LANHOST);
    await plane.becomes(`${cut} goes by do2`, cut, plane.addressOf("do2"));
    expect((await plane.explain("do1", LANHOST)).candidates).toContainEqual(expect.objectContaining({ node: cut, active: false, why: "Down" }));
    const said = await conditionOf(plane, "meshnodes", "do1", "GatewayUnusable", ({ status }) => status === "True");
    expect(said.message).toContain(cut);

    const moved = await plane.lab.startGapStream({ from: "do1", to: LANHOST, protocol: "icmp", intervalMs: 10 });
    await plane.lab.heal();
    await steady(plane, cut, "do1");
    await eventually("the gateway is one again, and waits until it is taken back", 30_000, async () =>
      (await plane.explain("do1", LANHOST)).candidates.some(({ node, why }) => node === cut && why === "Failback") ? true : undefined,
    );
    const after = await uninvolved();
    expect(after.map(({ active, reason }) => [active, reason])).toEqual(before.map(({ active, reason }) => [active, reason]));
    for (const [i, { since }] of after.entries()) expect(Math.abs(since - before[i]!.since)).toBeLessThan(50);
    expect((await Promise.all([...going, moved].map((stream) => stream.stop()))).map(({ lost }) => lost)).toEqual([0, 0, 0, 0]);
  });

  test("are reached both ways, also when the node that carried dies", async () => {
    const overlay = (await plane.lab.overlayAddress("do2")) ?? "";
    await reaches("do2", LANHOST);
    await reaches("lanhost", overlay);
    const active = (await plane.status("do2")).paths.find(({ id }) => id === "subnet/dc1")?.active[0] ?? "";
    expect(active).toMatch(/^datacenter/);
    const stream = await plane.lab.startGapStream({ from: "do2", to: LANHOST, protocol: "icmp", intervalMs: 10 });
    await plane.lab.fail("node", active);
    await reaches("do2", LANHOST);
    console.log(`site's gateway node dead: ${(await stream.stop()).longestGapMs} ms`);
    const next = (await plane.status("do2")).paths.find(({ id }) => id === "subnet/dc1")?.active[0];
    expect(next).toBe(active === "datacenter1" ? "datacenter2" : "datacenter1");
  });
});

describe("a new version of wireguard-go", () => {
  test("is taken into use by one command that drains first: packets through the gateway are not lost", async () => {
    await plane.apply(egress());
    await steady(plane, CLIENT, "do1");
    const processes = async (): Promise<string[]> =>
      (await plane.sh("do1", "ps -eo pid=,args= | grep '[w]ireguard-go -f' || true")).trim().split("\n");
    const before = await processes();
    const drift = (await plane.status("do1")).drift.count;
    const through = await plane.lab.startGapStream({ from: CLIENT, to: INTERNET, protocol: "udp", intervalMs: 5 });
    const itself = await plane.lab.startGapStream({
      from: "do2",
      to: (await plane.lab.overlayAddress("do1")) ?? "",
      protocol: "icmp",
      intervalMs: 10,
    });
    const said = await plane.cli("node", "restart-wireguard", "do1", "--timeout", "2s");
    await steady(plane, CLIENT, "do1");
    const [forwarded, own] = [await through.stop(), await itself.stop()];
    console.log(
      `${said.trim()}; lost ${forwarded.lost} of ${forwarded.sent} through it, ${own.lost} of ${own.sent} to itself (${own.longestGapMs} ms)`,
    );
    expect(forwarded.lost).toBe(0);
    if ((await plane.status("do1")).wireguard === "kernel") return expect(said).toContain("in its kernel");
    expect(said).toMatch(/started anew for .*ism0.*\n.*uncordoned/);
    const after = await processes();
    expect(after.length).toBe(before.length);
    expect(after.filter((one) => before.includes(one))).toEqual([]);
    expect((await plane.status("do1")).drift.count).toBe(drift);
  });
});
