import { describe, expect, it } from "vitest";
import { compile } from "../../../mesh/compile/plan.ts";
import type { LanRoutePlan, PathPlan, ServePlan } from "../../../mesh/model/plan.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { conditionsOf, entry, fourNodes, keysOf, resource } from "./fixtures.ts";

const route = (spec: object) => compile(fourNodes({ routes: [resource("MeshRoute", "r", spec)] }));
const statusOf = (out: ReturnType<typeof route>) => out.intentStatus.get("MeshRoute/r");

describe("a MeshRoute through LAN routers", () => {
  it("goes to the nodes that it selects, with all that it says", () => {
    const out = route({
      destinations: ["34.160.111.145", "0.0.0.0/1"],
      gateways: [{ address: "10.116.0.5" }, { address: "10.116.0.12" }],
      nodeSelector: { location: "cloud" },
      table: 100,
      metric: 7,
      strategy: "Spread",
      health: { type: "tcp", tcp: { port: 53 } },
    });
    expect(keysOf(out.views.get("lanroute/r"))).toEqual(["d/0.0.0.0/1", "d/34.160.111.145/32", "lan"]);
    expect(out.views.get("lanroute/r")?.get("lan")).toMatchObject({
      gateways: ["10.116.0.5", "10.116.0.12"],
      table: 100,
      metric: 7,
      strategy: "Spread",
      health: { type: "tcp" },
    });
    expect(statusOf(out)).toMatchObject({ id: "lanroute/r", nodes: ["do1", "do2"], gateways: ["10.116.0.5", "10.116.0.12"] });
    expect(out.audience.get("do1" as NodeName)).toContain("lanroute/r");
    expect(out.audience.get("datacenter1" as NodeName)).not.toContain("lanroute/r");
  });

  it("is installed in main when it names no table", () => {
    const out = route({ destinations: ["10.9.0.0/16"], gateways: [{ address: "10.116.0.5" }] });
    expect((entry(out, "lanroute/r", "lan") as LanRoutePlan).table).toBe(254);
  });

  it.each([
    ["an overlay address", "10.101.0.3"],
    ["loopback", "127.0.0.1"],
    ["multicast", "224.0.0.5"],
  ])("has no effect when a gateway is %s", (_, address) => {
    const out = route({ destinations: ["10.9.0.0/16"], gateways: [{ address }] });
    expect(out.views.has("lanroute/r")).toBe(false);
    expect(conditionsOf(statusOf(out))).toEqual(["Accepted=False/InvalidGateway"]);
    expect(statusOf(out)?.conditions[0]?.message).toContain(address);
  });

  it("leaves out its own gateway, and destinations that no gateway's family can carry; a range around the gateway is fine", () => {
    const out = route({ destinations: ["10.116.0.5/32", "10.116.0.0/16", "2001:db8::/32"], gateways: [{ address: "10.116.0.5" }] });
    expect(keysOf(out.views.get("lanroute/r"))).toEqual(["d/10.116.0.0/16", "lan"]);
    expect(conditionsOf(statusOf(out))).toContain("DestinationsAccepted=False/SomeRefused");
  });
});

describe("a MeshRoute through nodes", () => {
  it("is a path without translation, gateways in the order written", () => {
    const out = route({ destinations: ["10.9.0.0/16"], gateways: [{ node: "do2" }, { node: "do1" }] });
    const plan = out.views.get("route/r")?.get("path") as PathPlan;
    expect(plan.gateways.map(({ node }) => node)).toEqual(["do2", "do1"]);
    expect(plan.gateways[0]?.priority).toBeGreaterThan(plan.gateways[1]?.priority ?? 0);
    expect((entry(out, "node/do2", "serve/route/r") as ServePlan).snat).toEqual({ type: "None" });
    expect(statusOf(out)).toMatchObject({ nodes: ["datacenter1", "datacenter2"], gateways: ["do2", "do1"] });
  });

  it("spreads over equals", () => {
    const out = route({ destinations: ["10.9.0.0/16"], gateways: [{ node: "do2" }, { node: "do1" }], strategy: "Spread" });
    const plan = out.views.get("route/r")?.get("path") as PathPlan;
    expect(new Set(plan.gateways.map(({ priority }) => priority)).size).toBe(1);
  });

  it("names a gateway that is not there, and uses the others", () => {
    const out = route({ destinations: ["10.9.0.0/16"], gateways: [{ node: "do3" }, { node: "do1" }] });
    expect(statusOf(out)?.gateways).toEqual(["do1"]);
    expect(statusOf(out)?.conditions).toContainEqual({
      type: "GatewaysResolved",
      status: "False",
      reason: "InvalidGateway",
      message: "there is no node do3",
    });
  });

  it("without any gateway stays, so that its traffic fails closed", () => {
    const out = route({ destinations: ["10.9.0.0/16"], gateways: [{ node: "do3" }] });
    expect((entry(out, "route/r", "path") as PathPlan).gateways).toEqual([]);
    expect(conditionsOf(statusOf(out))).toContain("GatewaysResolved=False/NoGateway");
  });

  it("lets the gateway check what names an address", () => {
    const out = route({
      destinations: ["10.9.0.0/16"],
      gateways: [{ node: "do1" }],
      health: { type: "tcp", tcp: { address: "10.9.0.1", port: 22 } },
    });
    expect((entry(out, "node/do1", "serve/route/r") as ServePlan).uplink).toEqual([{ type: "tcp", tcp: { address: "10.9.0.1", port: 22 } }]);
  });
});

it.each([
  ["both kinds of gateways", [{ node: "do1" }, { address: "10.116.0.5" }]],
  ["a gateway that is both", [{ node: "do1", address: "10.116.0.5" }]],
  ["a gateway that is neither", [{}]],
])("a MeshRoute with %s is refused with a reason", (_, gateways) => {
  const out = route({ destinations: ["10.9.0.0/16"], gateways });
  expect(conditionsOf(statusOf(out))).toEqual(["Accepted=False/InvalidGateway"]);
  expect([...out.views.keys()].filter((id) => id.includes("route/"))).toEqual([]);
});

it("a StaticRoute goes to every node, as its operator does it", () => {
  const out = compile(fourNodes({ staticRoutes: [resource("StaticRoute", "primary", { destinations: ["34.160.111.145"], gateway: "10.116.0.5" })] }));
  expect(keysOf(out.views.get("staticroute/primary"))).toEqual(["d/34.160.111.145/32", "lan"]);
  expect(out.views.get("staticroute/primary")?.get("lan")).toMatchObject({ gateways: ["10.116.0.5"], table: 254, health: { type: "none" } });
  expect(out.intentStatus.get("StaticRoute/primary")?.nodes).toHaveLength(4);
});
