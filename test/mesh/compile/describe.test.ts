import { describe, expect, it } from "vitest";
import { describeNodeChanges, describeViewChange } from "../../../mesh/compile/describe.ts";
import { compile } from "../../../mesh/compile/plan.ts";
import type { CompileInput } from "../../../mesh/compile/types.ts";
import { Change } from "../../../mesh/model/answers.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { fourNodes, node, resource } from "./fixtures.ts";

const internet = (spec: object = {}) =>
  resource("EgressGateway", "internet", { destinations: ["34.0.0.0/8"], gateways: [{ site: "fra" }, { site: "ams", priority: 50 }], ...spec });
const lan = (spec: object = {}) =>
  resource("MeshRoute", "lan", {
    destinations: ["10.9.0.0/16"],
    gateways: [{ address: "10.116.0.5" }],
    nodeSelector: { location: "cloud" },
    ...spec,
  });

/** Rows as `area action what: from -> to`. */
function rows(name: string, before: CompileInput | undefined, after: CompileInput): string[] {
  const changes = describeNodeChanges(name as NodeName, before && compile(before), compile(after));
  for (const change of changes) Change.parse(change);
  return changes.map(({ area, action, what, from, to }) => `${area} ${action} ${what}: ${from ?? ""} -> ${to ?? ""}`);
}

describe("what a change means for one node", () => {
  it("is nothing when nothing changed", () => {
    expect(rows("datacenter1", fourNodes({ egress: [internet()] }), fourNodes({ egress: [internet()] }))).toEqual([]);
  });

  it("of a new egress: routes and a next hop for a client, translation and clients for a gateway", () => {
    const [before, after] = [fourNodes(), fourNodes({ egress: [internet()] })];
    expect(rows("datacenter1", before, after)).toEqual([
      "route add 34.0.0.0/8:  -> through egress/internet",
      "nexthop add egress/internet:  -> first of do1, do2",
    ]);
    expect(rows("do1", before, after)).toEqual([
      "link add client datacenter1:  -> egress/internet",
      "link add client datacenter2:  -> egress/internet",
      "nat add egress/internet:  -> forward, masquerade",
    ]);
    expect(rows("datacenter1", after, before).map((row) => row.split(" ")[1])).toEqual(["remove", "remove"]);
  });

  it("of one destination is one route", () => {
    const after = fourNodes({ egress: [internet({ destinations: ["34.0.0.0/8", "35.0.0.0/8"] })] });
    expect(rows("datacenter1", fourNodes({ egress: [internet()] }), after)).toEqual(["route add 35.0.0.0/8:  -> through egress/internet"]);
    expect(rows("do1", fourNodes({ egress: [internet()] }), after)).toEqual([]);
  });

  it("of the gateways is one next hop", () => {
    const after = fourNodes({ egress: [internet({ gateways: [{ site: "ams" }, { site: "fra", priority: 50 }] })] });
    expect(rows("datacenter1", fourNodes({ egress: [internet()] }), after)).toEqual([
      "nexthop change egress/internet: first of do1, do2 -> first of do2, do1",
    ]);
  });

  it("of a router names both next hops, only on the nodes that have the route", () => {
    const [before, after] = [fourNodes({ routes: [lan()] }), fourNodes({ routes: [lan({ gateways: [{ address: "10.116.0.12" }] })] })];
    expect(rows("do1", before, after)).toEqual(["nexthop change lanroute/lan: via 10.116.0.5 table 254 -> via 10.116.0.12 table 254"]);
    expect(rows("datacenter1", before, after)).toEqual([]);
    expect(rows("do1", fourNodes(), before)).toEqual(["route add 10.9.0.0/16:  -> via 10.116.0.5 table 254"]);
  });

  it("of a node that becomes a gateway: its own routes go", () => {
    const before = fourNodes({ egress: [internet({ gateways: [{ site: "ams" }] })] });
    const changes = rows("do1", before, fourNodes({ egress: [internet()] }));
    expect(changes).toContain("route remove 34.0.0.0/8: through egress/internet -> ");
    expect(changes).toContain("nat add egress/internet:  -> forward, masquerade");
  });

  it("of a drain, a join and a removal", () => {
    const base = fourNodes();
    const drained = { ...base, nodes: base.nodes.map((one) => (one.metadata.name === "do1" ? node("do1", "fra", 3, { cordoned: true }) : one)) };
    expect(rows("do1", base, drained)).toEqual(["link add drain:  -> within 60000 ms"]);
    const joined = { ...base, nodes: [...base.nodes, node("do3", "fra", 5)] };
    expect(rows("do2", base, joined)).toEqual([expect.stringMatching(/^peer add do3: {2}-> index 5; key .*; site fra; no endpoint$/)]);
    expect(rows("do3", joined, base).every((row) => row.includes(" remove "))).toBe(true);
  });
});

it("a change without the view before it reads as an addition or a removal", () => {
  expect(
    describeViewChange("mesh", new Map([["peer/a", { i: 1, k: "K", s: "x", e: ["203.0.113.1:1"], n: 1, a: ["10.9.0.0/16"] }]]), ["peer/b"]),
  ).toEqual([
    { area: "peer", action: "add", what: "a", to: "index 1; key K; site x; at 203.0.113.1:1; behind NAT; advertises 10.9.0.0/16" },
    { area: "peer", action: "remove", what: "b" },
  ]);
});
