import { describe, expect, it } from "vitest";
import { compile } from "../../../mesh/compile/plan.ts";
import type { PathPlan, SelfPlan, ServePlan } from "../../../mesh/model/plan.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { conditionsOf, entry, fourNodes, input, keysOf, node, site } from "./fixtures.ts";

describe("subnets of a site", () => {
  it("are reached by the nodes of other sites through the site's nodes", () => {
    const out = compile(fourNodes());
    expect(keysOf(out.views.get("subnet/dc1"))).toEqual(["d/192.168.88.0/24", "path"]);
    expect((entry(out, "subnet/dc1", "path") as PathPlan).gateways.map(({ node }) => node)).toEqual(["datacenter1", "datacenter2"]);
    expect(out.intentStatus.get("Site/dc1")).toMatchObject({ id: "subnet/dc1", nodes: ["do1", "do2"], gateways: ["datacenter1", "datacenter2"] });
    expect(out.audience.get("do1" as NodeName)).toEqual(["mesh", "node/do1", "subnet/dc1"]);
    expect(keysOf(out.views.get("node/datacenter1"))).toEqual(["client/do1", "client/do2", "self", "serve/subnet/dc1"]);
    expect((entry(out, "node/datacenter1", "serve/subnet/dc1") as ServePlan).snat).toEqual({ type: "Masquerade" });
    expect((entry(out, "subnet/dc1", "path") as PathPlan).snat).toEqual({ type: "Masquerade" });
  });

  it("do not concern other nodes of the site: they stand in the LAN", () => {
    const base = fourNodes();
    const out = compile({
      ...base,
      sites: [site("dc1", { subnets: ["192.168.88.0/24"], gateways: { role: "router" } }), ...base.sites.slice(1)],
      nodes: [node("router", "dc1", 9, { labels: { role: "router" } }), ...base.nodes],
    });
    expect(out.audience.get("datacenter1" as NodeName)).toEqual(["mesh", "node/datacenter1"]);
    expect(out.audience.get("router" as NodeName)).toContain("subnet/dc1");
    expect((entry(out, "node/datacenter1", "self") as SelfPlan).subnets).toEqual(["192.168.88.0/24"]);
  });

  it("that overlap those of another site stay with the older one, and the younger is told whose they are", () => {
    const out = compile(
      input({
        sites: [site("zeta", { subnets: ["10.1.0.0/16"] }, 0), site("alpha", { subnets: ["10.1.7.0/24", "10.2.0.0/16"] }, 5)],
        nodes: [node("a", "alpha", 1), node("z", "zeta", 2)],
      }),
    );
    expect(keysOf(out.views.get("subnet/zeta"))).toEqual(["d/10.1.0.0/16", "path"]);
    expect(keysOf(out.views.get("subnet/alpha"))).toEqual(["d/10.2.0.0/16", "path"]);
    expect(conditionsOf(out.intentStatus.get("Site/zeta"))).toEqual(["Accepted=True/Accepted", "GatewaysResolved=True/Resolved"]);
    expect(conditionsOf(out.intentStatus.get("Site/alpha"))).toContain("Conflict=True/OverlapsSubnet");
    expect(out.intentStatus.get("Site/alpha")?.conditions.at(-1)?.message).toBe("10.1.7.0/24 overlaps 10.1.0.0/16 of the older site zeta");
  });

  it("of one site may nest", () => {
    const out = compile(input({ sites: [site("a", { subnets: ["10.1.0.0/16", "10.1.7.0/24"] })], nodes: [node("a", "a", 1)] }));
    expect(keysOf(out.views.get("subnet/a"))).toEqual(["d/10.1.0.0/16", "d/10.1.7.0/24", "path"]);
  });

  it.each(["10.101.3.0/24", "10.0.0.0/8", "0.0.0.0/0", "127.0.0.0/8", "224.0.0.0/4", "10.103.0.0/16"])(
    "that meet the overlay or special ranges have no effect: %s",
    (cidr) => {
      const out = compile(input({ sites: [site("a", { subnets: [cidr] })], nodes: [node("a", "a", 1), node("b", "b", 2)] }));
      expect(out.views.has("subnet/a")).toBe(false);
      expect(conditionsOf(out.intentStatus.get("Site/a"))).toContain("DestinationsAccepted=False/SomeRefused");
    },
  );

  it("without a node to carry them fail closed and say so", () => {
    const out = compile(input({ sites: [site("a", { subnets: ["10.1.0.0/16"] }), site("b")], nodes: [node("b", "b", 2)] }));
    expect((entry(out, "subnet/a", "path") as PathPlan).gateways).toEqual([]);
    expect(out.audience.get("b" as NodeName)).toContain("subnet/a");
    expect(conditionsOf(out.intentStatus.get("Site/a"))).toContain("GatewaysResolved=False/NoGateway");
  });

  it("of a large site are carried by a few of its nodes", () => {
    const nodes = Array.from({ length: 30 }, (_, i) => node(`n${String(i).padStart(2, "0")}`, "a", i + 1));
    const out = compile(input({ sites: [site("a", { subnets: ["10.1.0.0/16"] })], nodes }));
    expect(out.intentStatus.get("Site/a")?.gateways).toEqual(["n00", "n01", "n02", "n03"]);
    expect(conditionsOf(out.intentStatus.get("Site/a"))).toContain("GatewaysResolved=True/Limited");
  });

  it("stay with the nodes that carry them when one joins, whatever its name, where no labels select them", () => {
    const nodes = ["m", "n", "o", "p"].map((name, i) => node(name, "a", i + 1));
    const out = compile(input({ sites: [site("a", { subnets: ["10.1.0.0/16"] })], nodes: [...nodes, node("a", "a", 5)] }));
    expect(out.intentStatus.get("Site/a")?.gateways).toEqual(["m", "n", "o", "p"]);
    const three = compile(input({ sites: [site("a", { subnets: ["10.1.0.0/16"] })], nodes: [...nodes.slice(0, 3), node("a", "a", 5)] }));
    expect(three.intentStatus.get("Site/a")?.gateways).toEqual(["m", "n", "o", "a"]);
  });
});

describe("labels of a node", () => {
  const labelsOf = (siteSpec: object, own: object) =>
    compile(input({ sites: [site("fra", siteSpec)], nodes: [node("n", "fra", 1, { labels: own })] })).nodeStatus.get("n" as NodeName)?.labels;

  it("are the site's with its place, and over them the node's own", () => {
    expect(labelsOf({ kind: "cloud", region: "fra1", zone: "a", labels: { tier: "gold", rack: "1" } }, { rack: "2" })).toEqual({
      "isthmus.dev/site": "fra",
      location: "cloud",
      rack: "2",
      tier: "gold",
      "topology.kubernetes.io/region": "fra1",
      "topology.kubernetes.io/zone": "a",
    });
  });

  it("cannot say that the node is elsewhere", () => {
    const forged = { location: "onprem", "isthmus.dev/site": "dc1", "topology.kubernetes.io/region": "moon" };
    expect(labelsOf({ kind: "cloud", region: "fra1", labels: { location: "onprem" } }, forged)).toMatchObject({
      location: "cloud",
      "isthmus.dev/site": "fra",
      "topology.kubernetes.io/region": "fra1",
    });
  });

  it("of a node whose site is gone hold no location, and the condition says why", () => {
    const out = compile(input({ nodes: [node("n", "gone", 1, { labels: { location: "cloud" } })] }));
    expect(out.nodeStatus.get("n" as NodeName)?.labels).toEqual({ "isthmus.dev/site": "gone" });
    expect(conditionsOf(out.nodeStatus.get("n" as NodeName))).toContain("SiteKnown=False/NoSuchSite");
  });
});
