import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compile } from "../../../mesh/compile/plan.ts";
import type { PeerPlan, SelfPlan } from "../../../mesh/model/plan.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { conditionsOf, entry, facts, input, node, site } from "./fixtures.ts";

interface Setup {
  readonly claims: string[];
  readonly granted?: string[];
  readonly siteGrants?: string[];
  /** Claims of an older node of the same site, all granted. */
  readonly older?: string[];
}

/** One node that claims, in a mesh where another site has 192.168.88.0/24. */
function claim({ claims, granted = [], siteGrants = [], older = [] }: Setup) {
  const out = compile(
    input({
      sites: [site("dc1", { subnets: ["192.168.88.0/24"] }), site("fra", { subnets: ["10.116.0.0/20"], grants: { advertise: siteGrants } }, 1)],
      nodes: [node("old", "fra", 1, { advertise: older }), node("claimer", "fra", 2, { advertise: granted })],
      facts: { old: facts({ advertise: older }), claimer: facts({ advertise: claims }) },
    }),
  );
  const status = out.nodeStatus.get("claimer" as NodeName);
  return {
    effective: (entry(out, "mesh", "peer/claimer") as PeerPlan).a ?? [],
    self: (entry(out, "node/claimer", "self") as SelfPlan).advertise,
    pending: (status?.pending ?? []).map(({ cidr, reason }) => `${cidr} ${reason}`),
    pendingCidrs: status?.pendingCidrs,
    conditions: conditionsOf(status),
  };
}

describe("what a node may advertise (I11)", () => {
  it("is what it claims inside what its site or token granted", () => {
    const { effective, self, pending, conditions } = claim({
      claims: ["10.9.1.0/24", "10.8.0.0/16"],
      granted: ["10.8.0.0/15"],
      siteGrants: ["10.9.1.0/25", "10.9.1.128/25"],
    });
    expect(effective).toEqual(["10.8.0.0/16", "10.9.1.0/24"]);
    expect(self).toEqual(effective);
    expect(pending).toEqual([]);
    expect(conditions).toContain("ClaimsGranted=True/Granted");
  });

  it("is nothing that it does not claim", () => {
    expect(claim({ claims: [], granted: ["10.8.0.0/16"] }).effective).toEqual([]);
  });

  it.each<[what: string, setup: Setup, reason: string]>([
    ["what nobody granted", { claims: ["10.9.0.0/16"] }, "NotGranted"],
    ["more than was granted", { claims: ["10.8.0.0/15"], granted: ["10.8.0.0/16"] }, "NotGranted"],
    ["0.0.0.0/0, even granted", { claims: ["0.0.0.0/0"], granted: ["0.0.0.0/0"] }, "DefaultRoute"],
    ["::/0, even granted", { claims: ["::/0"], granted: ["::/0"] }, "DefaultRoute"],
    ["the overlay", { claims: ["10.101.0.0/16"], granted: ["10.0.0.0/8"] }, "CoversOverlay"],
    ["another node's overlay address", { claims: ["10.101.0.1/32"], granted: ["0.0.0.0/0"] }, "CoversOverlay"],
    ["a range around the overlay", { claims: ["10.0.0.0/8"], granted: ["0.0.0.0/0"] }, "CoversOverlay"],
    ["link addresses", { claims: ["10.103.0.0/24"], granted: ["0.0.0.0/0"] }, "CoversOverlay"],
    ["another site's LAN", { claims: ["192.168.88.0/25"], granted: ["192.168.0.0/16"] }, "OtherSiteSubnet"],
    ["loopback", { claims: ["127.0.0.0/8"], granted: ["0.0.0.0/0"] }, "Protected"],
    ["what an older node advertises", { claims: ["10.9.0.0/16"], granted: ["10.9.0.0/16"], older: ["10.9.0.0/16"] }, "Conflict"],
    ["a part of what an older node advertises", { claims: ["10.9.7.0/24"], granted: ["10.9.0.0/16"], older: ["10.9.0.0/16"] }, "Conflict"],
    ["a range around what an older node advertises", { claims: ["10.8.0.0/15"], granted: ["10.8.0.0/15"], older: ["10.9.7.0/24"] }, "Conflict"],
  ])("is not %s: pending, without effect", (_, setup, reason) => {
    const { effective, self, pending, pendingCidrs, conditions } = claim(setup);
    expect(effective).toEqual([]);
    expect(self).toEqual([]);
    expect(pending).toEqual([`${setup.claims[0]} ${reason}`]);
    expect(pendingCidrs).toEqual(setup.claims);
    expect(conditions).toContain("ClaimsGranted=False/Pending");
  });

  it("a refused claim does not take the granted ones with it", () => {
    const { effective, pending } = claim({ claims: ["0.0.0.0/0", "10.9.0.0/16"], granted: ["10.9.0.0/16"] });
    expect([effective, pending]).toEqual([["10.9.0.0/16"], ["0.0.0.0/0 DefaultRoute"]]);
  });

  it("the own site's LAN may be advertised when it is granted", () => {
    expect(claim({ claims: ["10.116.0.0/20"], siteGrants: ["10.116.0.0/20"] }).effective).toEqual(["10.116.0.0/20"]);
  });

  it("never gives one address to two nodes, and the oldest claimer always keeps his", () => {
    const cidr = fc
      .tuple(fc.integer({ min: 0, max: 15 }), fc.integer({ min: 0, max: 4 }))
      .map(([host, free]) => `10.9.${(host >> free) << free}.0/${24 - free}`);
    fc.assert(
      fc.property(fc.array(fc.uniqueArray(cidr, { maxLength: 4 }), { minLength: 1, maxLength: 6 }), (claims) => {
        const names = claims.map((_, i) => `n${i}`);
        const out = compile(
          input({
            sites: [site("fra", { grants: { advertise: ["10.9.0.0/16"] } })],
            nodes: names.map((name, i) => node(name, "fra", i + 1)),
            facts: Object.fromEntries(names.map((name, i) => [name, facts({ advertise: claims[i] })])),
          }),
        );
        const owned = names.map((name) => (entry(out, "mesh", `peer/${name}`) as PeerPlan).a ?? []);
        const third = (text: string): number[] => {
          const [, start, bits] = /^10\.9\.(\d+)\.0\/(\d+)$/.exec(text) ?? [];
          return Array.from({ length: 2 ** (24 - Number(bits)) }, (_, i) => Number(start) + i);
        };
        const owner = new Map<number, number>();
        for (const [i, cidrs] of owned.entries()) {
          for (const block of cidrs.flatMap(third)) {
            expect(owner.get(block) ?? i).toBe(i);
            owner.set(block, i);
          }
        }
        expect(new Set(owned[0])).toEqual(new Set(claims[0]));
        for (const [i, name] of names.entries()) {
          const pending = out.nodeStatus.get(name as NodeName)?.pendingCidrs ?? [];
          expect(new Set([...pending, ...(owned[i] ?? [])])).toEqual(new Set(claims[i]));
        }
      }),
    );
  });
});
