import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compile, createCompiler } from "../../../mesh/compile/plan.ts";
import type { CompileInput, CompileOutput } from "../../../mesh/compile/types.ts";
import { diffViews } from "../../../mesh/compile/views.ts";
import type { PeerPlan, SelfPlan } from "../../../mesh/model/plan.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { conditionsOf, entry, facts, fourNodes, input, keysOf, network, node, resource, site } from "./fixtures.ts";

/** The output as bytes. */
function bytes(out: CompileOutput): string {
  return JSON.stringify([[...out.views].map(([id, view]) => [id, [...view]]), [...out.audience], [...out.nodeStatus], [...out.intentStatus]]);
}

const cidr = fc.constantFrom("10.1.0.0/16", "10.1.7.0/24", "10.2.0.0/16", "34.160.111.145/32", "0.0.0.0/0", "2001:db8::/32", "10.101.0.0/24");
const cidrs = fc.uniqueArray(cidr, { minLength: 1, maxLength: 3 });
const siteName = fc.constantFrom("a", "b", "c");
const selector = fc.constantFrom({}, { role: "x" }, { location: "cloud" }, { "isthmus.dev/site": "b" });

const anySite = siteName.chain((name) =>
  fc.record({ kind: fc.constantFrom("onprem", "cloud"), subnets: cidrs, priority: fc.nat(3) }).map((spec) => site(name, spec, spec.priority)),
);
const anyNode = fc
  .record({ i: fc.integer({ min: 1, max: 9 }), at: siteName, role: fc.constantFrom("x", "y"), cordoned: fc.boolean() })
  .map(({ i, at, role, cordoned }) => node(`n${i}`, at, i, { labels: { role }, cordoned }));
const anyFacts = fc
  .record({
    endpoints: fc.uniqueArray(fc.constantFrom("203.0.113.5:1", "10.0.0.1:2"), { maxLength: 2 }),
    advertise: fc.uniqueArray(cidr, { maxLength: 2 }),
    seen: fc.constantFrom("198.51.100.7", undefined),
    links: fc.dictionary(fc.constantFrom("n1", "n2"), fc.constantFrom(51831, 51832)),
  })
  .map((given) => facts(given));
const anyRoute = fc
  .record({ name: siteName, destinations: cidrs, node: fc.boolean(), nodeSelector: selector, age: fc.nat(3) })
  .map(({ name, node: byNode, age, ...spec }) =>
    resource("MeshRoute", name, { ...spec, gateways: byNode ? [{ node: "n1" }, { node: "n2" }] : [{ address: "10.1.0.1" }] }, age),
  );
const anyEgress = fc
  .record({
    name: siteName,
    destinations: cidrs,
    excludedDestinations: cidrs,
    gateways: fc.array(selector, { minLength: 1, maxLength: 2 }),
    sources: selector,
  })
  .map(({ name, gateways, sources, ...spec }) =>
    resource("EgressGateway", name, { ...spec, sources: { nodeSelector: sources }, gateways: gateways.map((nodeSelector) => ({ nodeSelector })) }),
  );

const byName = <T extends { metadata: { name: string } }>(arbitrary: fc.Arbitrary<T>, maxLength: number) =>
  fc.uniqueArray(arbitrary, { selector: ({ metadata }) => metadata.name, maxLength });

const world: fc.Arbitrary<CompileInput> = fc
  .record({
    sites: byName(anySite, 3),
    nodes: byName(anyNode, 6),
    routes: byName(anyRoute, 3),
    egress: byName(anyEgress, 3),
    reports: fc.dictionary(fc.constantFrom("n1", "n2", "n3", "n4"), anyFacts),
  })
  .map(({ reports, ...parts }) => input({ ...parts, facts: reports, controllers: ["203.0.113.1:8443", "203.0.113.2:8443"] }));

const shuffled = <T>(items: readonly T[]) => fc.shuffledSubarray([...items], { minLength: items.length, maxLength: items.length });

describe("compile", () => {
  it("gives the same bytes for the same input in any order", () => {
    const pair = world.chain((one) =>
      fc
        .record({
          sites: shuffled(one.sites),
          nodes: shuffled(one.nodes),
          routes: shuffled(one.routes),
          egress: shuffled(one.egress),
          controllers: shuffled(one.controllers),
          facts: shuffled([...one.facts]),
        })
        .map((other) => [one, { ...one, ...other, facts: new Map(other.facts) }] as const),
    );
    fc.assert(
      fc.property(pair, ([one, other]) => {
        expect(bytes(compile(other))).toBe(bytes(compile(one)));
      }),
    );
  });

  it("with a memory says what it says without, whatever came before", () => {
    fc.assert(
      fc.property(fc.array(world, { minLength: 1, maxLength: 4 }), (worlds) => {
        const compiler = createCompiler();
        for (const one of worlds) expect(bytes(compiler(one))).toBe(bytes(compile(one)));
      }),
    );
  });

  it("with a memory sees single changes of an otherwise identical input", () => {
    fc.assert(
      fc.property(world, world, (one, other) => {
        const compiler = createCompiler();
        compiler(one);
        for (const part of ["sites", "nodes", "facts", "routes", "egress"] as const) {
          const mixed = { ...one, [part]: other[part] };
          expect(bytes(compiler(mixed))).toBe(bytes(compile(mixed)));
        }
      }),
    );
  });

  it("with a memory sees that a controller moved onto a destination", () => {
    const one = fourNodes({ routes: [resource("MeshRoute", "r", { destinations: ["203.0.113.9/32"], gateways: [{ node: "do1" }] })] });
    const compiler = createCompiler();
    expect(conditionsOf(compiler(one).intentStatus.get("MeshRoute/r"))).toContain("DestinationsAccepted=True/Accepted");
    const moved = { ...one, controllers: ["203.0.113.9:8443"] };
    expect(conditionsOf(compiler(moved).intentStatus.get("MeshRoute/r"))).toContain("DestinationsAccepted=False/SomeRefused");
    expect(bytes(compiler(moved))).toBe(bytes(compile(moved)));
  });

  it("with a memory tells a node behind NAT of another one that came", () => {
    const behind = facts({ endpoints: ["192.168.1.1:51820"], seen: "198.51.100.7" });
    const one = input({ nodes: [node("a", "a", 1), node("b", "b", 2)], facts: { a: behind } });
    const two = { ...one, facts: new Map(one.facts).set("b" as NodeName, behind) };
    const compiler = createCompiler();
    expect(conditionsOf(compiler(one).nodeStatus.get("a" as NodeName))).toContain("PeersReachable=True/Reachable");
    expect(conditionsOf(compiler(two).nodeStatus.get("a" as NodeName))).toContain("PeersReachable=False/BothBehindNat");
  });

  it("sorts everything: views, keys, audiences", () => {
    fc.assert(
      fc.property(world, (one) => {
        const out = compile(one);
        const sorted = (list: readonly string[]): void => expect(list).toEqual([...list].sort());
        sorted([...out.views.keys()]);
        for (const view of out.views.values()) sorted(keysOf(view));
        for (const ids of out.audience.values()) sorted(ids);
      }),
    );
  });

  it("gives everybody whole views, and shows nobody a gateway that does not know him", () => {
    fc.assert(
      fc.property(world, (one) => {
        const out = compile(one);
        for (const [name, ids] of out.audience) {
          for (const id of ids) {
            expect(out.views.has(id)).toBe(true);
            const path = out.views.get(id)?.get("path") as { gateways: { node: string }[] } | undefined;
            if (path === undefined) continue;
            const serving = path.gateways.map((gateway) => gateway.node);
            expect(out.views.get(`node/${name}`)?.has(`serve/${id}`)).toBe(serving.includes(name));
            if (serving.includes(name)) continue;
            for (const gateway of serving) {
              const client = out.views.get(`node/${gateway}`)?.get(`client/${name}`) as { paths: string[] } | undefined;
              expect(client?.paths).toContain(id);
            }
          }
        }
      }),
    );
  });
});

describe("a join", () => {
  const base = fourNodes({ egress: [resource("EgressGateway", "internet", { destinations: ["34.0.0.0/8"], gateways: [{ site: "fra" }] })] });

  it("changes one key for everybody and one at each gateway that the newcomer uses", () => {
    const compiler = createCompiler();
    const before = compiler(base);
    const after = compiler({ ...base, nodes: [node("a-new", "ams", 5), ...base.nodes] });
    const changes = [...diffViews(before, after)].map(([id, { put, delete: gone }]) => [id, [...put.keys()], gone]);
    expect(changes).toEqual([
      ["mesh", ["peer/a-new"], []],
      ["node/a-new", ["self"], []],
      ["node/datacenter1", ["client/a-new"], []],
      ["node/datacenter2", ["client/a-new"], []],
      ["node/do1", ["client/a-new"], []],
    ]);
  });

  it("fits in 256 bytes on the wire", () => {
    const out = compile(base);
    const peer = out.views.get("mesh")?.get("peer/datacenter1");
    expect(JSON.stringify({ t: "delta", v: "mesh", r: 123_456, p: { "peer/datacenter1": peer } }).length).toBeLessThan(250);
  });

  it("leaves all other views the same objects, also when the input was loaded in another order", () => {
    const compiler = createCompiler();
    const before = compiler(base);
    const after = compiler({ ...base, nodes: [...base.nodes].reverse(), facts: new Map([...base.facts].reverse()) });
    for (const [id, view] of after.views) expect(view).toBe(before.views.get(id));
    expect(diffViews(before, after).size).toBe(0);
    for (const [name, ids] of after.audience) expect(ids).toBe(before.audience.get(name));
    for (const [key, status] of after.intentStatus) expect(status).toBe(before.intentStatus.get(key));
  });
});

describe("the mesh view", () => {
  it("tells the network, all peers and all sites", () => {
    const out = compile(fourNodes());
    expect(keysOf(out.views.get("mesh"))).toEqual([
      "network",
      "peer/datacenter1",
      "peer/datacenter2",
      "peer/do1",
      "peer/do2",
      "site/ams",
      "site/dc1",
      "site/fra",
    ]);
    const peer = out.views.get("mesh")?.get("peer/datacenter1") as PeerPlan;
    expect([peer.i, peer.n, peer.e]).toEqual([1, 1, ["198.51.100.7:51820", "192.168.88.11:51820"]]);
    expect(out.views.get("mesh")?.get("site/ams")).toEqual({ kind: "cloud", region: "ams3", zone: "a" });
    expect(out.nodeStatus.get("datacenter1" as NodeName)?.overlay).toEqual(["10.101.0.1", "fd00:1:2::1"]);
  });

  it("is refused to a network without usable ranges", () => {
    const without = { ...network, spec: { ...network.spec, overlay: { v4: network.spec.overlay.v4 } } };
    expect(() => compile(input({ network: without }))).toThrow(/overlay\.v6/);
    const crossed = { ...network, spec: { ...network.spec, links: { v4: network.spec.overlay.v4 } } };
    expect(() => compile(input({ network: crossed }))).toThrow(/overlap/);
  });
});

describe("a node's own view", () => {
  it("says that it drains, and for how long", () => {
    const drainOf = (spec: object) => (entry(compile(input({ nodes: [node("n", "a", 1, spec)] })), "node/n", "self") as SelfPlan).drain;
    expect(drainOf({})).toBeUndefined();
    expect(drainOf({ cordoned: true })).toEqual({ timeoutMs: 60_000 });
    expect(drainOf({ cordoned: true, drainTimeout: "5s" })).toEqual({ timeoutMs: 5000 });
    expect(drainOf({ cordoned: false, drainTimeout: "5s" })).toBeUndefined();
  });

  it("says plainly when two sites behind NAT cannot reach each other", () => {
    const behind = (ip: string) => facts({ endpoints: [`192.168.1.${ip}:51820`], seen: `198.51.100.${ip}` });
    const out = compile(
      input({
        nodes: [node("a", "a", 1), node("b", "b", 2), node("c", "c", 3)],
        facts: { a: behind("1"), b: behind("2"), c: facts({ endpoints: ["203.0.113.9:1"] }) },
      }),
    );
    expect(conditionsOf(out.nodeStatus.get("a" as NodeName))).toContain("PeersReachable=False/BothBehindNat");
    expect(conditionsOf(out.nodeStatus.get("c" as NodeName))).toContain("PeersReachable=True/Reachable");
  });
});
