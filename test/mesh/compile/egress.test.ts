import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compile } from "../../../mesh/compile/plan.ts";
import type { PathPlan, ServePlan } from "../../../mesh/model/plan.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { isEmpty, prefixSet, setsOverlap, subtract, union } from "../../../mesh/net/prefix-set.ts";
import { anyCidr } from "../net/arbitraries.ts";
import { formatCidr } from "../../../mesh/net/ip.ts";
import { conditionsOf, entry, fourNodes, keysOf, node, resource, site } from "./fixtures.ts";

const egress = (spec: object) =>
  compile(
    fourNodes({
      egress: [resource("EgressGateway", "e", { destinations: ["34.160.111.145"], gateways: [{ nodeSelector: { location: "cloud" } }], ...spec })],
    }),
  );
type Output = ReturnType<typeof egress>;
const statusOf = (out: Output) => out.intentStatus.get("EgressGateway/e");
const pathOf = (out: Output) => out.views.get("egress/e")?.get("path") as PathPlan;
const destinationsOf = (out: Output) => keysOf(out.views.get("egress/e")).flatMap((key) => (key.startsWith("d/") ? [key.slice(2)] : []));

describe("gateways of an egress", () => {
  it("rank by priority, then by the site's priority, then by name", () => {
    expect(statusOf(egress({}))?.gateways).toEqual(["do1", "do2"]);
    expect(
      statusOf(
        egress({
          gateways: [
            { site: "fra", priority: 10 },
            { site: "ams", priority: 20 },
          ],
        }),
      )?.gateways,
    ).toEqual(["do2", "do1"]);
    expect(statusOf(egress({ gateways: [{ nodeSelector: {} }] }))?.gateways).toEqual(["datacenter1", "datacenter2", "do1", "do2"]);
    expect(pathOf(egress({ gateways: [{ site: "dc1", priority: 7 }] })).gateways).toEqual([
      { node: "datacenter1", priority: 7 },
      { node: "datacenter2", priority: 7 },
    ]);
  });

  it("of the site that comes first in the order for disaster recovery go before others, whatever their names", () => {
    const base = fourNodes({
      egress: [resource("EgressGateway", "e", { destinations: ["34.0.0.0/8"], gateways: [{ nodeSelector: { location: "cloud" } }] })],
    });
    const sites = [site("fra", { kind: "cloud", priority: 10 }), site("ams", { kind: "cloud", priority: 20 })];
    expect(statusOf(compile({ ...base, sites }))?.gateways).toEqual(["do2", "do1"]);
  });

  it("that several selectors name keep the best priority", () => {
    const out = egress({
      gateways: [
        { nodeSelector: { location: "cloud" }, priority: 10 },
        { site: "ams", priority: 500 },
      ],
    });
    expect(pathOf(out).gateways).toEqual([
      { node: "do2", priority: 500 },
      { node: "do1", priority: 10 },
    ]);
  });

  it("are not steered themselves, but serve, and know their clients", () => {
    const out = egress({});
    expect(statusOf(out)?.nodes).toEqual(["datacenter1", "datacenter2"]);
    expect(out.views.get("node/do1")?.get("client/datacenter1")).toEqual({ paths: ["egress/e"] });
    expect(keysOf(out.views.get("node/do1"))).toEqual(["client/datacenter1", "client/datacenter2", "self", "serve/egress/e"]);
    expect(out.audience.get("do1" as NodeName)).toContain("egress/e");
  });

  it("that nobody selects: it stays, fails closed, and says so", () => {
    const out = egress({ gateways: [{ nodeSelector: { role: "nobody" } }] });
    expect(pathOf(out).gateways).toEqual([]);
    expect(conditionsOf(statusOf(out))).toContain("GatewaysResolved=False/NoGateway");
  });

  it("of a site that does not exist are named", () => {
    const out = egress({ gateways: [{ site: "mars" }, { site: "fra" }] });
    expect(statusOf(out)?.conditions).toContainEqual({
      type: "GatewaysResolved",
      status: "False",
      reason: "InvalidGateway",
      message: "there is no site mars",
    });
  });

  it("are limited, because links are", () => {
    const nodes = Array.from({ length: 40 }, (_, i) => node(`n${String(i).padStart(2, "0")}`, "fra", i + 10));
    const base = fourNodes({ egress: [resource("EgressGateway", "e", { destinations: ["34.0.0.0/8"], gateways: [{ site: "fra" }] })] });
    const out = compile({ ...base, nodes: [...base.nodes, ...nodes] });
    expect(pathOf(out).gateways).toHaveLength(16);
    expect(conditionsOf(statusOf(out))).toContain("GatewaysResolved=True/Limited");
  });
});

describe("sources", () => {
  it("are the nodes that the selector names", () => {
    const out = egress({ sources: { nodeSelector: { "isthmus.dev/site": "dc1" } }, gateways: [{ site: "ams" }] });
    expect(statusOf(out)?.nodes).toEqual(["datacenter1", "datacenter2"]);
    expect(out.audience.get("do1" as NodeName)).not.toContain("egress/e");
  });
});

describe("destinations", () => {
  it("stay as written where no exclusion touches them", () => {
    expect(destinationsOf(egress({ destinations: ["34.0.0.0/25", "34.0.0.128/25", "35.0.0.0/8"], excludedDestinations: ["36.0.0.0/8"] }))).toEqual([
      "34.0.0.0/25",
      "34.0.0.128/25",
      "35.0.0.0/8",
    ]);
  });

  it("lose exactly what is excluded", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(anyCidr.map(formatCidr), { minLength: 1, maxLength: 5 }),
        fc.uniqueArray(anyCidr.map(formatCidr), { maxLength: 5 }),
        (destinations, excludedDestinations) => {
          const out = egress({ destinations, excludedDestinations });
          const left = prefixSet(destinationsOf(out));
          expect(setsOverlap(left, prefixSet(excludedDestinations))).toBe(false);
          const wanted = subtract(prefixSet(destinations), prefixSet(excludedDestinations));
          expect(isEmpty(subtract(left, wanted))).toBe(true);
          // What is missing was refused as a whole destination, and the condition says so.
          if (!isEmpty(subtract(wanted, left))) expect(conditionsOf(statusOf(out))).toContain("DestinationsAccepted=False/SomeRefused");
          else expect(union(left, left)).toEqual(wanted);
        },
      ),
    );
  });

  it("keep the default route whole: nodes protect what is theirs by more specific routes", () => {
    expect(destinationsOf(egress({ destinations: ["0.0.0.0/0", "::/0"] }))).toEqual(["0.0.0.0/0", "::/0"]);
  });

  it.each(["10.101.7.0/24", "10.103.0.0/16", "fd00:1:2::/64", "127.0.0.1/32", "224.0.0.0/8", "fe80::/64", "203.0.113.1/32"])(
    "inside a protected range are refused: %s",
    (cidr) => {
      const out = egress({ destinations: [cidr, "34.0.0.0/8"] });
      expect(destinationsOf(out)).toEqual(["34.0.0.0/8"]);
      const condition = statusOf(out)?.conditions.find(({ type }) => type === "DestinationsAccepted");
      expect(condition).toMatchObject({ status: "False", reason: "SomeRefused" });
      expect(condition?.message).toContain(cidr);
    },
  );

  it("that are all excluded leave nothing, and that is said", () => {
    const out = egress({ excludedDestinations: ["34.0.0.0/8"] });
    expect(destinationsOf(out)).toEqual([]);
    expect(conditionsOf(statusOf(out))).toContain("DestinationsAccepted=False/NoDestinations");
  });
});

describe("the rest of the spec", () => {
  it("reaches clients and gateways in milliseconds", () => {
    const out = egress({
      snat: { type: "Address", address: "203.0.113.11" },
      health: {
        interval: "50ms",
        threshold: 5,
        holdDown: "1m",
        uplinkInterval: "2s",
        uplink: [{ type: "icmp", icmp: { address: "34.160.111.145" } }],
      },
      strategy: "Spread",
      failback: { type: "Manual", delay: "5s" },
      drainTimeout: "2m",
      onNoGateway: "Underlay",
    });
    expect(pathOf(out)).toMatchObject({
      intervalMs: 50,
      threshold: 5,
      holdDownMs: 60_000,
      strategy: "Spread",
      failback: { type: "Manual", delayMs: 5000 },
      drainTimeoutMs: 120_000,
      onNoGateway: "Underlay",
      created: Date.parse("2026-01-01T00:00:00Z"),
    });
    expect(pathOf(out).snat).toEqual({ type: "Address", address: "203.0.113.11" });
    expect(entry(out, "node/do1", "serve/egress/e") as ServePlan).toEqual({
      snat: { type: "Address", address: "203.0.113.11" },
      uplink: [{ type: "icmp", icmp: { address: "34.160.111.145" } }],
      uplinkIntervalMs: 2000,
      threshold: 5,
      holdDownMs: 60_000,
    });
  });

  it("tells clients of each drain, and how long flows may stay there: as the drain says, or else the path", () => {
    const gateways = (spec: object): unknown => {
      const all = fourNodes({
        egress: [
          resource("EgressGateway", "e", {
            destinations: ["34.0.0.0/8"],
            gateways: [{ site: "fra" }, { site: "ams", priority: 50 }],
            drainTimeout: "2m",
          }),
        ],
      });
      return pathOf(compile({ ...all, nodes: all.nodes.map((one) => (one.metadata.name === "do1" ? node("do1", "fra", 3, spec) : one)) })).gateways;
    };
    const cordonedAt = "2026-11-21T23:00:00.000Z";
    const drained = (more: object): object[] => [
      { node: "do1", priority: 100, ...more },
      { node: "do2", priority: 50 },
    ];
    expect(gateways({ cordoned: true, cordonedAt, drainTimeout: "3s" })).toEqual(drained({ drainMs: 3_000, cordon: cordonedAt }));
    expect(gateways({ cordoned: true, cordonedAt })).toEqual(drained({ drainMs: 120_000, cordon: cordonedAt }));
    expect(gateways({ cordoned: true })).toEqual(drained({ drainMs: 120_000, cordon: "" }));
    expect(gateways({ cordoned: true, cordonedAt, labels: { rack: "7" } })).toEqual(gateways({ cordoned: true, cordonedAt }));
    const plain = [
      { node: "do1", priority: 100 },
      { node: "do2", priority: 50 },
    ];
    expect(gateways({ drainTimeout: "3s" })).toEqual(plain);
  });

  it.each([
    ["a gateway with both selectors", { gateways: [{ site: "fra", nodeSelector: {} }] }, "InvalidGateway"],
    ["a gateway with neither", { gateways: [{}] }, "InvalidGateway"],
    ["an address to translate to that is missing", { snat: { type: "Address" } }, "InvalidSnat"],
  ])("%s: is refused as a whole", (_, spec, reason) => {
    const out = egress(spec);
    expect(out.views.has("egress/e")).toBe(false);
    expect(conditionsOf(statusOf(out))).toEqual([`Accepted=False/${reason}`]);
  });
});
