import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compile, createCompiler } from "../../../mesh/compile/plan.ts";
import type { CompileInput } from "../../../mesh/compile/types.ts";
import type { ClientPlan, NetworkPlan, PathPlan } from "../../../mesh/model/plan.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { conditionsOf, entry, facts, input, keysOf, node, resource, site } from "./fixtures.ts";

const network = resource("MeshNetwork", "isthmus", { overlay: { v4: "10.101.0.0/16", v6: "fd00:1:2::/48" }, topology: "SiteGateways" });
const gateway = { labels: { role: "gateway" } };
const selected = { gateways: { role: "gateway" } };

const threeSites = (parts: Parameters<typeof input>[0] = {}): CompileInput =>
  input({
    network,
    sites: [site("s", { ...selected, subnets: ["172.20.1.0/24"] }), site("t", selected), site("u", selected)],
    nodes: [
      node("a1", "s", 1, gateway),
      node("a2", "s", 2, gateway),
      node("a3", "s", 3),
      node("b1", "t", 4, gateway),
      node("b2", "t", 5),
      node("c1", "u", 6, gateway),
    ],
    ...parts,
  });

describe("topology SiteGateways", () => {
  it("gives each site's nodes to the gateways of other sites, and all that lies beyond to its own", () => {
    const out = compile(threeSites());
    expect((entry(out, "mesh", "network") as NetworkPlan).topology).toBe("SiteGateways");
    expect(keysOf(out.views.get("site/s"))).toEqual(["d/10.101.0.3/32", "d/fd00:1:2::3/128", "path"]);
    expect(keysOf(out.views.get("site/u"))).toEqual(["path"]);
    expect(keysOf(out.views.get("via/t"))).toEqual(["d/10.101.0.0/16", "d/172.20.1.0/24", "d/fd00:1:2::/64", "path"]);
    expect(keysOf(out.views.get("via/s"))).toEqual(["d/10.101.0.0/16", "d/fd00:1:2::/64", "path"]);
    expect(out.views.has("via/u")).toBe(false);
    expect((entry(out, "via/s", "path") as PathPlan).gateways.map(({ node: one }) => one)).toEqual(["a1", "a2"]);
    expect(out.audience.get("a3" as NodeName)).toEqual(["mesh", "node/a3", "via/s"]);
    expect(out.audience.get("b2" as NodeName)).toEqual(["mesh", "node/b2", "via/t"]);
    expect(out.audience.get("b1" as NodeName)).toEqual(["mesh", "node/b1", "site/s", "site/t", "site/u", "subnet/s", "via/t"]);
    expect(entry(out, "node/a1", "client/b1")).toEqual({ paths: ["site/s", "subnet/s"], pair: 1 });
    expect(entry(out, "node/a1", "client/a3")).toEqual({ paths: ["via/s"] });
    expect([...out.views.keys()]).toEqual([...out.views.keys()].toSorted());
  });

  it("takes what a node advertises to it through its site's gateways", () => {
    const out = compile(
      threeSites({
        nodes: threeSites().nodes.map((one) => (one.metadata.name === "b2" ? node("b2", "t", 5, { advertise: ["10.9.0.0/16"] }) : one)),
        facts: { b2: facts({ advertise: ["10.9.0.0/24"] }) },
      }),
    );
    expect(keysOf(out.views.get("site/t"))).toContain("d/10.9.0.0/24");
    expect(keysOf(out.views.get("via/s"))).toContain("d/10.9.0.0/24");
    expect(keysOf(out.views.get("via/t"))).not.toContain("d/10.9.0.0/24");
  });

  it("says of every site with nodes whether it has gateways, and of each path who uses it", () => {
    const out = compile(threeSites({ sites: [site("s"), site("t", { gateways: { role: "nobody" } }), site("u")] }));
    expect(conditionsOf(out.intentStatus.get("Site/s"))).toEqual(["Accepted=True/Accepted", "GatewaysResolved=True/Resolved"]);
    expect(conditionsOf(out.intentStatus.get("Site/t"))).toContain("GatewaysResolved=False/NoGateway");
    expect((entry(out, "via/t", "path") as PathPlan).gateways).toEqual([]);
    expect(out.intentStatus.get("site/s")).toMatchObject({ id: "site/s", nodes: ["c1"], gateways: ["a1", "a2", "a3"] });
  });

  it("asks of gateways only that they can be dialled across sites", () => {
    const nat = facts({ endpoints: ["10.0.0.1:51820"], seen: "198.51.100.7" });
    const out = compile(threeSites({ facts: { a3: nat, b1: nat, b2: nat, c1: nat } }));
    const reachable = (name: string): string | undefined =>
      conditionsOf(out.nodeStatus.get(name as NodeName)).find((text) => text.startsWith("PeersReachable"));
    expect(["a3", "b1", "b2", "c1"].map(reachable)).toEqual([
      "PeersReachable=True/Reachable",
      "PeersReachable=False/BothBehindNat",
      "PeersReachable=True/Reachable",
      "PeersReachable=False/BothBehindNat",
    ]);
  });

  it("is nothing of it with FullMesh", () => {
    const out = compile(threeSites({ network: resource("MeshNetwork", "isthmus", { overlay: { v6: "fd00:1:2::/48" } }) }));
    expect([...out.views.keys()].some((id) => /^(site|via)\//.test(id))).toBe(false);
    expect(entry(out, "mesh", "network")).not.toHaveProperty("topology");
    expect((entry(out, "node/a1", "client/b1") as ClientPlan).pair).toBeUndefined();
  });

  it("costs one key in a view when a node joins, and says the same as a compiler without memory", () => {
    const run = createCompiler();
    const worlds = fc.array(fc.record({ i: fc.integer({ min: 7, max: 12 }), at: fc.constantFrom("s", "t", "u"), gate: fc.boolean() }), {
      maxLength: 4,
    });
    fc.assert(
      fc.property(worlds, (more) => {
        const base = threeSites();
        const added = new Map(more.map(({ i, at, gate }) => [i, node(`x${i}`, at, i, gate ? gateway : {})]));
        const world = { ...base, nodes: [...base.nodes, ...added.values()] };
        const flat = (views: ReadonlyMap<string, ReadonlyMap<string, unknown>>): unknown => [...views].map(([id, view]) => [id, [...view]]);
        expect(flat(run(world).views)).toEqual(flat(compile(world).views));
      }),
    );
    const before = run(threeSites());
    const after = run(threeSites({ nodes: [...threeSites().nodes, node("a4", "s", 9)] }));
    expect(keysOf(after.views.get("site/s")).length - keysOf(before.views.get("site/s")).length).toBe(2);
    expect(after.views.get("via/s")).toBe(before.views.get("via/s"));
    expect(after.views.get("site/t")).toBe(before.views.get("site/t"));
  });
});
