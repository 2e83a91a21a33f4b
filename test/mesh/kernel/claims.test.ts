import { describe, expect, it } from "vitest";
import { claimsOf } from "../../../mesh/kernel/claims.ts";
import { desiredKernel } from "../../../mesh/kernel/desired.ts";
import type { DesiredInput, HostFacts, Refusal, Route } from "../../../mesh/kernel/types.ts";
import type { LanRoutePlan, PathId, Plan } from "../../../mesh/model/plan.ts";
import type { Cidr } from "../../../mesh/model/scalars.ts";
import { choice, cidr, clientInput, EGRESS, host, input, ip, NETWORK, node, path, peer, PEERS, plan } from "./fixtures.ts";

const withPaths = (paths: Record<string, ReturnType<typeof path>>, parts: Partial<Plan> = {}, facts: Partial<HostFacts> = {}): DesiredInput =>
  clientInput({
    plan: plan("dc1", { paths: new Map(Object.entries(paths) as [PathId, ReturnType<typeof path>][]), ...parts }),
    host: host(facts),
    choices: new Map(Object.keys(paths).map((id) => [id as PathId, choice(["do1"])])),
  });

const lanRoute = (destinations: readonly string[], extra: Partial<LanRoutePlan> = {}): LanRoutePlan & { destinations: readonly Cidr[] } => ({
  created: 1,
  gateways: [ip("192.168.88.5")],
  table: 254,
  strategy: "Failover",
  health: { type: "icmp", interval: "100ms", threshold: 3, holdDown: "5s" },
  ...extra,
  destinations: destinations.map(cidr),
});
const withLan = (routes: Record<string, ReturnType<typeof lanRoute>>, parts: Partial<DesiredInput> = {}): DesiredInput =>
  input({ plan: plan("dc1", { lanRoutes: new Map(Object.entries(routes)) }), ...parts });

const refusalsOf = (one: DesiredInput): readonly Refusal[] => desiredKernel(one).refusals;
const routesOf = (one: DesiredInput, table = 157): Route[] => [...desiredKernel(one).state.routes.values()].filter((route) => route.table === table);

describe("claims: who owns a destination", () => {
  it("I11: the endpoint that a node only says of itself moves nobody's traffic; one that others vouch for is protected", () => {
    const claimed = (h: object): DesiredInput =>
      withPaths(
        { [EGRESS]: path(["34.160.111.145/32"], ["do1"]) },
        { peers: new Map([...PEERS, [node("do2"), peer(3, "region2", ["34.160.111.145:51820"], h)]]) },
      );
    expect(refusalsOf(claimed({ h: 1 }))).toEqual([]);
    expect(claimsOf(claimed({ h: 1 })).throws).not.toContain("34.160.111.145/32");
    expect(refusalsOf(claimed({}))).toMatchObject([{ why: "Protected", detail: "the WireGuard endpoint of do2" }]);
  });

  it("leaves a destination to the older intent and tells the younger of it", () => {
    const both = withPaths({
      "egress/old": path(["34.0.0.0/8"], ["do1"], { created: 1 }),
      "egress/new": path(["34.0.0.0/8", "35.0.0.0/8"], ["do1"], { created: 2 }),
    });
    expect(claimsOf(both).overlay.get(cidr("34.0.0.0/8"))).toBe("egress/old");
    expect(claimsOf(both).overlay.get(cidr("35.0.0.0/8"))).toBe("egress/new");
    expect(refusalsOf(both)).toEqual([{ id: "egress/new", destination: "34.0.0.0/8", why: "Conflict", detail: "egress/old" }]);
  });

  it("breaks ties by id", () => {
    expect(refusalsOf(withPaths({ "egress/b": path(["34.0.0.0/8"], ["do1"]), "egress/a": path(["34.0.0.0/8"], ["do1"]) }))).toMatchObject([
      { id: "egress/b", detail: "egress/a" },
    ]);
  });

  it("sees overlay and main as one domain, and a table that an intent names as its own", () => {
    const routes = {
      "lanroute/main": lanRoute(["34.0.0.0/8"], { created: 2_000 }),
      "lanroute/aside": lanRoute(["34.0.0.0/8"], { created: 3_000, table: 100 }),
    };
    const one = withPaths({ [EGRESS]: path(["34.0.0.0/8"], ["do1"]) }, { lanRoutes: new Map(Object.entries(routes)) });
    expect(refusalsOf(one)).toEqual([{ id: "lanroute/main", destination: "34.0.0.0/8", why: "Conflict", detail: EGRESS }]);
    expect(routesOf(one, 100)).toMatchObject([{ dst: "34.0.0.0/8", via: "192.168.88.5" }]);
  });

  it("lets what an admin granted to a node come before intents", () => {
    const peers = new Map([...PEERS, [node("do2"), peer(3, "region2", ["203.0.113.2:51820"], { a: [cidr("34.0.0.0/8")] })]]);
    const one = withPaths({ [EGRESS]: path(["34.0.0.0/8"], ["do1"]) }, { peers });
    expect(refusalsOf(one)).toMatchObject([{ why: "Conflict", detail: "peer/do2" }]);
    expect(routesOf(one)).toContainEqual(expect.objectContaining({ dst: "34.0.0.0/8", dev: "ism0" }));
  });

  it("routes nothing on a node that is a gateway of the path itself", () => {
    const one = input({
      plan: plan("do1", { paths: new Map([[EGRESS, path(["34.0.0.0/8"], ["do1", "do2"])]]) }),
      links: new Map([[node("do2"), 1]]),
      choices: new Map([[EGRESS, choice(["do2"])]]),
    });
    expect(routesOf(one).filter(({ dst }) => dst === "34.0.0.0/8")).toEqual([]);
  });
});

describe("claims: what no plan may cut off (I9)", () => {
  it.each([
    ["the node's own network", "192.168.88.0/25"],
    ["the router", "192.168.88.1/32"],
    ["a WireGuard endpoint", "203.0.113.1/32"],
    ["the controller", "203.0.113.9/32"],
    ["the overlay", "10.101.3.0/24"],
    ["link addresses", "10.103.0.0/16"],
    ["loopback", "127.0.0.0/8"],
    ["multicast", "224.0.0.0/8"],
    ["link-local addresses", "169.254.169.254/32"],
    ["v6 multicast", "ff02::/16"],
    ["a resolver", "9.9.9.9/32"],
  ])("refuses a destination inside %s", (_, destination) => {
    const one = withPaths(
      { [EGRESS]: path([destination, "34.0.0.0/8"], ["do1"]) },
      {},
      { protectedAddresses: [{ address: ip("9.9.9.9"), why: "a DNS resolver of this node" }] },
    );
    expect(refusalsOf(one)).toMatchObject([{ id: EGRESS, destination, why: "Protected" }]);
    expect(routesOf(one).filter(({ dst, metric }) => dst === destination && metric === 1024 && dst !== "10.103.0.0/16")).toEqual([]);
  });

  it("carves them out of a wide destination, in both families", () => {
    const one = withPaths(
      { [EGRESS]: path(["0.0.0.0/0", "::/0"], ["do1"]) },
      {},
      { protectedAddresses: [{ address: ip("9.9.9.9"), why: "a DNS resolver of this node" }] },
    );
    const throws = routesOf(one)
      .filter(({ type }) => type === "throw")
      .map(({ dst }) => dst);
    for (const dst of [
      "192.168.88.0/24",
      "192.168.88.1/32",
      "203.0.113.1/32",
      "203.0.113.2/32",
      "203.0.113.9/32",
      "9.9.9.9/32",
      "224.0.0.0/4",
      "169.254.0.0/16",
      "fe80::/10",
      "ff00::/8",
    ])
      expect(throws).toContain(dst);
    expect(throws.some((dst) => dst.startsWith("10.101.") || dst.startsWith("10.102."))).toBe(false);
    expect(refusalsOf(one)).toEqual([]);
  });

  it("throws nothing where nothing of ours covers it", () => {
    expect(routesOf(withPaths({ [EGRESS]: path(["34.0.0.0/8"], ["do1"]) })).filter(({ type }) => type === "throw")).toEqual([]);
  });

  it("lets the more specific routes of main and of LAN gateways win, as in one table", () => {
    const lanRoutes = new Map([["lanroute/a", lanRoute(["34.2.0.0/16"])]]);
    const facts = { mainRoutes: [...host().mainRoutes, { dst: cidr("34.1.0.0/16"), via: ip("192.168.88.7"), dev: "eth0", metric: 0 }] };
    const one = withPaths({ [EGRESS]: path(["34.0.0.0/8", "34.1.2.0/24"], ["do1"]) }, { lanRoutes }, facts);
    const types = new Map(
      routesOf(one)
        .filter(({ metric }) => metric === 1024)
        .map(({ dst, type }) => [dst as string, type]),
    );
    expect(types.get("34.1.0.0/16")).toBe("throw");
    expect(types.get("34.2.0.0/16")).toBe("throw");
    expect(types.get("34.1.2.0/24")).toBe("unicast");
  });

  it("does not let a foreign route pull overlay addresses out", () => {
    const facts = { mainRoutes: [...host().mainRoutes, { dst: cidr("10.101.7.0/24"), via: ip("192.168.88.7"), dev: "eth0", metric: 0 }] };
    expect(routesOf(withPaths({ [EGRESS]: path(["0.0.0.0/0"], ["do1"]) }, {}, facts)).filter(({ dst }) => dst === "10.101.7.0/24")).toEqual([]);
  });

  it("protects a private endpoint inside its own site only", () => {
    const from = (self: "dc1" | "do1"): string[] => {
      const peers = new Map([...PEERS, [node("dc2"), peer(4, "dc", ["192.168.77.12:51820"])]]);
      const one = input({
        plan: plan(self, { peers, paths: new Map([["egress/lan", path(["192.168.77.0/24"], ["do2"])]]) }),
        links: new Map([[node("do2"), 1]]),
        choices: new Map([["egress/lan" as PathId, choice(["do2"])]]),
      });
      return routesOf(one)
        .filter(({ type }) => type === "throw")
        .map(({ dst }) => dst);
    };
    expect(from("dc1")).toEqual(["192.168.77.12/32"]);
    expect(from("do1")).toEqual([]);
  });
});

describe("claims: routes through LAN gateways", () => {
  it("puts them into the table that the intent names, with all gateways in use", () => {
    const one = withLan(
      { "lanroute/a": lanRoute(["34.0.0.0/8"], { table: 100, metric: 7 }) },
      { lanChoices: new Map([["lanroute/a", [ip("192.168.88.6"), ip("192.168.88.5")]]]) },
    );
    expect(routesOf(one, 100)).toEqual([
      { family: 4, dst: "34.0.0.0/8", table: 100, type: "unicast", metric: 7, multipath: [{ via: "192.168.88.5" }, { via: "192.168.88.6" }] },
    ]);
  });

  it("refuses a gateway that is on no network of the node", () => {
    expect(refusalsOf(withLan({ "lanroute/a": lanRoute(["34.0.0.0/8"], { gateways: [ip("10.9.9.9")] }) }))).toEqual([
      { id: "lanroute/a", destination: "34.0.0.0/8", why: "NotReachable", detail: "10.9.9.9" },
    ]);
  });

  it("refuses a gateway inside its own destination", () => {
    expect(refusalsOf(withLan({ "lanroute/a": lanRoute(["192.168.88.5/32"]) }))).toMatchObject([
      { why: "InsideOwnDestination", detail: "192.168.88.5" },
    ]);
  });

  it("takes the default route and its halves: the connected network is more specific", () => {
    for (const dst of ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"]) expect(refusalsOf(withLan({ "lanroute/a": lanRoute([dst]) }))).toEqual([]);
  });

  it("keeps the way to protected addresses that a wide route would take away", () => {
    const kept = routesOf(withLan({ "lanroute/a": lanRoute(["128.0.0.0/1"]) }), 254);
    expect(kept).toContainEqual({ family: 4, dst: "203.0.113.9/32", table: 254, type: "unicast", metric: 1024, via: "192.168.88.1", dev: "eth0" });
    expect(kept.some(({ dst }) => dst === "192.168.88.0/24")).toBe(false);
  });

  it("comes before a route of others for the same destination", () => {
    const metrics = host({ mainRoutes: [{ dst: cidr("0.0.0.0/0"), via: ip("192.168.88.1"), dev: "eth0", metric: 100 }, host().mainRoutes[1]!] });
    const [route] = routesOf(withLan({ "lanroute/a": lanRoute(["0.0.0.0/0"]) }, { host: metrics }), 254).filter(({ dst }) => dst === "0.0.0.0/0");
    expect(route!.metric).toBeLessThan(100);
  });

  it("stays out of our own tables", () => {
    expect(refusalsOf(withLan({ "lanroute/a": lanRoute(["34.0.0.0/8"], { table: 157 }) }))).toMatchObject([
      { why: "Protected", detail: "table 157, which belongs to Isthmus" },
    ]);
  });
});

it("the network's controllers may be written by name", () => {
  expect(
    refusalsOf(withPaths({ [EGRESS]: path(["34.0.0.0/8"], ["do1"]) }, { network: { ...NETWORK, controllers: ["isthmus.example.org:8443"] } })),
  ).toEqual([]);
});
