import { describe, expect, it } from "vitest";
import { compile } from "../../../mesh/compile/plan.ts";
import { parsePlan } from "../../../mesh/compile/parse-plan.ts";
import type { CompileOutput } from "../../../mesh/compile/types.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { facts, fourNodes, keyOf, resource } from "./fixtures.ts";

const output = compile(
  fourNodes({
    egress: [
      resource("EgressGateway", "internet", {
        destinations: ["34.160.111.145", "34.0.0.0/8"],
        gateways: [{ site: "fra" }, { site: "ams", priority: 50 }],
      }),
    ],
    staticRoutes: [resource("StaticRoute", "primary", { destinations: ["198.18.0.0/15"], gateway: "10.116.0.5" })],
  }),
);

/** What the node receives, as it comes from the wire: other objects, any order. */
function received(from: CompileOutput, name: string): Map<string, Map<string, unknown>> {
  const ids = from.audience.get(name as NodeName) ?? [];
  return new Map(
    [...ids].reverse().map((id) => [id, new Map(JSON.parse(JSON.stringify([...(from.views.get(id) ?? [])].reverse())) as [string, unknown][])]),
  );
}

describe("the plan that an agent makes of its views", () => {
  it("is whole, for every node, and iterates in sorted order", () => {
    for (const name of ["datacenter1", "datacenter2", "do1", "do2"]) {
      const { plan, faults } = parsePlan(received(output, name));
      expect(faults).toEqual([]);
      expect(plan?.self.name).toBe(name);
      expect([...(plan?.peers.keys() ?? [])]).toEqual(["datacenter1", "datacenter2", "do1", "do2"]);
      expect([...(plan?.sites.keys() ?? [])]).toEqual(["ams", "dc1", "fra"]);
      expect(plan?.peers.get("do1" as NodeName)).toMatchObject({ i: 3, k: keyOf("do1"), s: "fra" });
    }
  });

  it("serves what a controller or a cache of an older version says, too", () => {
    const views = received(output, "do1");
    for (const view of views.values())
      for (const [key, entry] of view) if (key.startsWith("serve/")) view.set(key, { ...(entry as object), holdDownMs: undefined });
    const { plan, faults } = parsePlan(views);
    expect(faults).toEqual([]);
    expect(plan?.serves.get("egress/internet")).toMatchObject({ snat: { type: "Masquerade" }, holdDownMs: 1_000 });
  });

  it("holds paths with sorted destinations, LAN routes, and what a gateway serves", () => {
    const client = parsePlan(received(output, "datacenter1")).plan;
    expect([...(client?.paths.keys() ?? [])]).toEqual(["egress/internet", "subnet/dc1"]);
    expect(client?.paths.get("egress/internet")?.destinations).toEqual(["34.0.0.0/8", "34.160.111.145/32"]);
    expect(client?.lanRoutes.get("staticroute/primary")?.destinations).toEqual(["198.18.0.0/15"]);
    const gateway = parsePlan(received(output, "do1")).plan;
    expect([...(gateway?.serves.keys() ?? [])]).toEqual(["egress/internet"]);
    expect([...(gateway?.clients.keys() ?? [])]).toEqual(["datacenter1", "datacenter2"]);
  });

  it("costs nothing new for what did not change", () => {
    const views = received(output, "datacenter1");
    const first = parsePlan(views).plan;
    const second = parsePlan(new Map(views)).plan;
    expect(second?.paths.get("egress/internet")).toBe(first?.paths.get("egress/internet"));
    expect(second?.peers).toBe(first?.peers);
    const mesh = new Map(views.get("mesh"));
    mesh.delete("peer/do2");
    const third = parsePlan(new Map(views).set("mesh", mesh)).plan;
    expect(third?.peers.has("do2" as NodeName)).toBe(false);
    expect(third?.peers.get("do1" as NodeName)).toBe(first?.peers.get("do1" as NodeName));
  });

  it("notices a view that was changed in place", () => {
    const views = received(output, "datacenter1");
    parsePlan(views);
    views.get("egress/internet")?.delete("d/34.0.0.0/8");
    views.get("egress/internet")?.set("d/35.0.0.0/8", 1);
    expect(parsePlan(views).plan?.paths.get("egress/internet")?.destinations).toEqual(["34.160.111.145/32", "35.0.0.0/8"]);
  });

  it("is absent without the network or the node itself: an empty plan is never acted on", () => {
    expect(parsePlan(new Map())).toEqual({ plan: undefined, faults: [] });
    const views = received(output, "datacenter1");
    views.delete("node/datacenter1");
    expect(parsePlan(views).plan).toBeUndefined();
    expect(parsePlan(new Map([["mesh", new Map([["network", { name: "x" }]])]])).plan).toBeUndefined();
  });
});

describe("an entry that an agent cannot read", () => {
  const cases: [what: string, view: string, key: string, value: unknown, intact: boolean][] = [
    ["a bad peer", "mesh", "peer/do2", { i: "four" }, true],
    ["a peer with an impossible name", "mesh", "peer/Do_2", { i: 4, k: keyOf("x"), s: "ams", e: [] }, true],
    ["an unknown key of the mesh", "mesh", "relay/do1", {}, true],
    ["an unknown key of the node", "node/datacenter1", "vip/a", {}, true],
    ["a destination with host bits", "egress/internet", "d/10.0.0.1/8", 1, true],
    ["a destination that is not canonical", "egress/internet", "d/10.0.0.1", 1, true],
    ["a destination of a form to come", "egress/internet", "d/36.0.0.0/8", { via: "x" }, true],
    ["a view of a kind to come", "vip/a", "vip", {}, true],
    ["a path head that lacks a field", "egress/internet", "path", { created: 1 }, false],
  ];
  it.each(cases)("%s: costs only what it belongs to", (_, view, key, value, intact) => {
    const views = received(output, "datacenter1");
    views.set(view, new Map(views.get(view)).set(key, value));
    const { plan, faults } = parsePlan(views);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toMatchObject({ view });
    expect(faults[0]?.message).not.toBe("");
    expect(plan?.paths.has("egress/internet")).toBe(intact);
    expect(plan?.lanRoutes.has("staticroute/primary")).toBe(true);
    expect(plan?.peers.has("do1" as NodeName)).toBe(true);
  });

  it("a path without its head is left out and named", () => {
    const views = received(output, "do1");
    views.get("subnet/dc1")?.delete("path");
    const { plan, faults } = parsePlan(views);
    expect(plan?.paths.has("subnet/dc1")).toBe(false);
    expect(faults).toEqual([{ view: "subnet/dc1", key: "path", message: "is missing" }]);
  });

  it("unknown fields of a known entry are ignored", () => {
    const views = received(output, "do1");
    const peer = views.get("mesh")?.get("peer/do2") as object;
    views.get("mesh")?.set("peer/do2", { ...peer, later: true });
    const { plan, faults } = parsePlan(views);
    expect(faults).toEqual([]);
    expect(plan?.peers.get("do2" as NodeName)).toEqual(peer);
  });

  it("a client's link port reaches the gateway once it is reported", () => {
    const base = fourNodes({ egress: [resource("EgressGateway", "internet", { destinations: ["34.0.0.0/8"], gateways: [{ site: "fra" }] })] });
    const withPort = compile({ ...base, facts: new Map(base.facts).set("datacenter1" as NodeName, facts({ links: { do1: 51831 } })) });
    const clients = parsePlan(received(withPort, "do1")).plan?.clients;
    expect(clients?.get("datacenter1" as NodeName)).toEqual({ paths: ["egress/internet"], port: 51831 });
    expect(clients?.get("datacenter2" as NodeName)).toEqual({ paths: ["egress/internet"] });
  });
});
