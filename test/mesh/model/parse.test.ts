import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { FieldFault } from "../../../mesh/errors.ts";
import { renderFault } from "../../../cli/errors.ts";
import { invalidDocuments, parseDocument, parseDocuments, parseSpec } from "../../../mesh/model/parse.ts";
import { KINDS, type Resource } from "../../../mesh/model/resources.ts";

const API = "isthmus.dev/v1alpha1";
const at = { index: 0 };

function faults(raw: unknown): readonly FieldFault[] {
  const parsed = parseDocument(raw, at);
  if (!Array.isArray(parsed)) throw new Error("expected faults, got a resource");
  return parsed;
}

function resource(raw: unknown): Resource {
  const parsed = parseDocument(raw, at);
  if (Array.isArray(parsed)) throw new Error(JSON.stringify(parsed));
  return parsed;
}

const egress = (spec: object): unknown => ({
  apiVersion: API,
  kind: "EgressGateway",
  metadata: { name: "web" },
  spec: { destinations: ["34.160.111.145"], gateways: [{ site: "do" }], ...spec },
});
const route = (spec: object): unknown => ({
  apiVersion: API,
  kind: "MeshRoute",
  metadata: { name: "r" },
  spec: { destinations: ["34.160.111.145"], gateways: [{ address: "10.116.0.5" }], ...spec },
});
const site = (spec: object): unknown => ({ apiVersion: API, kind: "Site", metadata: { name: "dc1" }, spec: { kind: "onprem", ...spec } });
const network = (spec: object): unknown => ({ apiVersion: API, kind: "MeshNetwork", metadata: { name: "isthmus" }, spec });

describe("a document that is right", () => {
  it("gets its defaults and canonical addresses", () => {
    const parsed = resource(egress({ destinations: ["34.160.111.145", "2001:DB8:0::/32"] })) as Resource<"EgressGateway">;
    expect(parsed.spec.destinations).toEqual(["34.160.111.145/32", "2001:db8::/32"]);
    expect(parsed.spec.health).toMatchObject({ interval: "100ms", threshold: 3 });
    expect(parsed.spec.failback).toEqual({ type: "Delayed", delay: "60s" });
    expect(parsed.spec.snat).toEqual({ type: "Masquerade" });
  });

  it("may be DigitalOcean's StaticRoute as it is", () => {
    const parsed = resource({
      apiVersion: "networking.digitalocean.com/v1",
      kind: "StaticRoute",
      metadata: { name: "primary" },
      spec: { destinations: ["34.160.111.145"], gateway: "10.116.0.5" },
    });
    expect(parsed.spec).toEqual({ destinations: ["34.160.111.145/32"], gateway: "10.116.0.5" });
  });

  it("may come out of kubectl, with status and metadata that Kubernetes wrote", () => {
    const parsed = resource({
      apiVersion: "networking.digitalocean.com/v1",
      kind: "StaticRoute",
      metadata: {
        name: "primary",
        uid: "0b4",
        generation: 3,
        resourceVersion: "77",
        managedFields: [{}],
        finalizers: ["kopf.zalando.org/KopfFinalizerMarker"],
      },
      spec: { destinations: ["34.160.111.145"], gateway: "10.116.0.5" },
      status: { create_fn: [] },
    });
    expect(parsed.status).toBeUndefined();
    expect(parsed.metadata).toEqual({ name: "primary", uid: "0b4", generation: 3, resourceVersion: "77" });
  });

  it("takes the default route and its halves", () => {
    expect(resource(egress({ destinations: ["0.0.0.0/0", "::/0"] })).kind).toBe("EgressGateway");
    expect(resource(route({ destinations: ["0.0.0.0/1", "128.0.0.0/1"] })).kind).toBe("MeshRoute");
  });

  it("is parsed to itself when parsed again", () => {
    const once = resource(egress({ excludedDestinations: ["10.0.0.0/8"] }));
    expect(resource(once)).toEqual(once);
  });
});

describe("what a document is", () => {
  it.each([
    [undefined, "", undefined],
    [7, "", undefined],
    [{}, "kind", undefined],
    [{ kind: "EgresGateway" }, "kind", "EgressGateway"],
    [{ kind: "Node" }, "kind", "MeshNode"],
    [{ kind: "route" }, "kind", "MeshRoute"],
  ])("refuses %j at %j", (raw, path, suggestion) => {
    expect(faults(raw)[0]).toMatchObject({ path, ...(suggestion === undefined ? {} : { suggestion }) });
  });

  it("names the right apiVersion", () => {
    expect(faults({ ...(site({}) as object), apiVersion: "isthmus.dev/v1" })).toEqual([
      expect.objectContaining({ path: "apiVersion", value: "isthmus.dev/v1", suggestion: API }),
    ]);
    expect(faults({ ...(site({}) as object), apiVersion: undefined })[0]).toMatchObject({ path: "apiVersion", suggestion: API });
  });

  it("says how a node and a token are made instead", () => {
    expect(faults({ apiVersion: API, kind: "MeshNode", metadata: { name: "a" }, spec: {} })[0]?.message).toContain("isthmus join");
    expect(faults({ apiVersion: API, kind: "JoinToken", metadata: { name: "a" }, spec: {} })[0]?.message).toContain("isthmus create token");
  });

  it("needs a name that is a DNS name", () => {
    expect(faults({ ...(site({}) as object), metadata: undefined })[0]).toMatchObject({ path: "metadata", message: "is required" });
    expect(faults({ ...(site({}) as object), metadata: {} })[0]).toMatchObject({ path: "metadata.name", message: "is required" });
    expect(faults({ ...(site({}) as object), metadata: { name: "DC_1" } })[0]).toMatchObject({ path: "metadata.name", value: "DC_1" });
  });
});

describe("fields", () => {
  it("of which several are wrong are named in one go: also gateways beside destinations", () => {
    const spec = { destinations: ["10.0.0.1/8"], gateways: [{ address: "10.116.0.5", node: "do1" }, {}] };
    const raw = { apiVersion: "isthmus.dev/v1alpha1", kind: "MeshRoute", metadata: { name: "both" }, spec };
    const { faults } = parseDocuments([raw]);
    expect(faults.map(({ path }) => path)).toEqual(["spec.destinations[0]", "spec.gateways[0].node", "spec.gateways[1]"]);
  });

  it.each([
    [site({ subnet: ["10.0.0.0/8"] }), "spec.subnet", "subnets"],
    [{ ...(site({}) as object), specs: {} }, "specs", "spec"],
    [egress({ health: { treshold: 3 } }), "spec.health.treshold", "threshold"],
    [egress({ gateways: [{ site: "a", prioritiy: 1 }] }), "spec.gateways[0].prioritiy", "priority"],
    [{ ...(site({}) as object), metadata: { name: "a", lables: {} } }, "metadata.lables", "labels"],
  ])("that are unknown are named with the nearest one", (raw, path, suggestion) => {
    expect(faults(raw)).toContainEqual(expect.objectContaining({ path, suggestion, message: "unknown field" }));
  });

  it.each([
    [site({ kind: "cloudy" }), "spec.kind", "cloudy", "must be one of onprem, cloud"],
    [site({ priority: "high" }), "spec.priority", "high", "must be a number, not a string"],
    [site({ subnets: "10.0.0.0/8" }), "spec.subnets", "10.0.0.0/8", "must be a list, not a string"],
    [site({ subnets: ["10.0.0.1/8"] }), "spec.subnets[0]", "10.0.0.1/8", "host bits are set; did you mean 10.0.0.0/8 or 10.0.0.1/32?"],
    [site({ subnets: ["10.0.0.0/33"] }), "spec.subnets[0]", "10.0.0.0/33", "the prefix length must be 0 to 32"],
    [
      site({ subnets: ["::ffff:10.0.0.0/104"] }),
      "spec.subnets[0]",
      "::ffff:10.0.0.0/104",
      "IPv4 inside IPv6 is not accepted; write the IPv4 address itself",
    ],
    [site({ labels: { "-x": "y" } }), 'spec.labels["-x"]', "-x", /label key/],
    [site({ labels: { x: "a b" } }), "spec.labels.x", "a b", /letters, digits/],
    [egress({ destinations: [] }), "spec.destinations", [], "must have at least 1 item"],
    [egress({ health: { threshold: 0 } }), "spec.health.threshold", 0, "must be at least 1"],
    [egress({ health: { interval: "100" } }), "spec.health.interval", "100", /number with a unit/],
  ])("that are wrong are named with path, value and what would be right", (raw, path, value, message) => {
    const found = faults(raw).find((fault) => fault.path === path);
    expect(found).toMatchObject({ path, value });
    expect(found?.message).toMatch(message);
  });

  it("are all told at once, not only the first", () => {
    expect(faults(egress({ destinations: ["x", "10.0.0.1/8"], gateways: [{ priority: "a" }], nosuch: 1 })).map((fault) => fault.path)).toEqual([
      "spec.destinations[0]",
      "spec.destinations[1]",
      "spec.gateways[0].priority",
      "spec.nosuch",
    ]);
  });

  it("never repeat a secret", () => {
    const found = faults({
      apiVersion: API,
      kind: "VirtualIP",
      metadata: { name: "v" },
      spec: { address: "10.0.0.1", scope: "Lan", candidates: [{ nodeSelector: {} }], vrrp: { authPass: "much-too-long" } },
    });
    expect(JSON.stringify(found)).not.toContain("much-too-long");
    expect(found[0]?.path).toBe("spec.vrrp.authPass");
  });
});

describe("rules between fields", () => {
  it.each([
    [
      "a gateway that is both an address and a node",
      route({ gateways: [{ address: "10.0.0.1", node: "a" }] }),
      "spec.gateways[0].node",
      /exactly one/,
    ],
    ["a gateway that is neither", route({ gateways: [{}] }), "spec.gateways[0]", /exactly one/],
    ["gateways of both sorts", route({ gateways: [{ address: "10.0.0.1" }, { node: "a" }] }), "spec.gateways", /two routes/],
    ["a gateway listed twice", route({ gateways: [{ address: "10.0.0.1" }, { address: "10.0.0.1" }] }), "spec.gateways[1]", /twice/],
    [
      "a gateway inside its own destination (I9)",
      route({ destinations: ["10.116.0.0/20"] }),
      "spec.gateways[0].address",
      /inside its own destination 10.116.0.0\/20/,
    ],
    ["a v6 destination without a v6 gateway", route({ destinations: ["2001:db8::/32", "34.0.0.0/8"] }), "spec.destinations[0]", /no gateway is/],
    [
      "a v6 gateway without a v6 destination",
      route({ gateways: [{ address: "10.0.0.1" }, { address: "2001:db8::1" }] }),
      "spec.gateways[1].address",
      /no destination is/,
    ],
    ["a multicast gateway", route({ gateways: [{ address: "224.0.0.1" }] }), "spec.gateways[0].address", /multicast/],
    ["a multicast destination (I9)", route({ destinations: ["224.1.0.0/16"] }), "spec.destinations[0]", /multicast/],
    ["a loopback destination (I9)", egress({ destinations: ["127.0.0.1"] }), "spec.destinations[0]", /loopback/],
    ["the metadata service (I9)", egress({ destinations: ["169.254.169.254"] }), "spec.destinations[0]", /link-local/],
    ["link-local v6 (I9)", egress({ destinations: ["fe80::/64"] }), "spec.destinations[0]", /link-local/],
    ["an exclusion of everything", egress({ excludedDestinations: ["34.0.0.0/8"] }), "spec.excludedDestinations", /nothing would be routed/],
    ["health tcp without its port", route({ health: { type: "tcp" } }), "spec.health.tcp", /required with type tcp/],
    ["health icmp with a tcp member", route({ health: { tcp: { port: 1 } } }), "spec.health.tcp", /no meaning with type icmp/],
    ["health agent on a LAN", route({ health: { type: "agent" } }), "spec.health.type", /only where the gateways are nodes/],
    ["an interval of zero", egress({ health: { interval: "0ms" } }), "spec.health.interval", /at least 10ms/],
    ["our own routing table", route({ table: 157 }), "spec.table", /Isthmus' own/],
    ["a table for nodes as gateways", route({ gateways: [{ node: "a" }], table: 100 }), "spec.table", /LAN only/],
    [
      "an egress gateway by selector and site",
      egress({ gateways: [{ site: "a", nodeSelector: { a: "b" } }] }),
      "spec.gateways[0].site",
      /exactly one/,
    ],
    ["an egress gateway by neither", egress({ gateways: [{}] }), "spec.gateways[0]", /none is set/],
    ["an empty gateway selector", egress({ gateways: [{ nodeSelector: {} }] }), "spec.gateways[0].nodeSelector", /empty/],
    ["snat Address without an address", egress({ snat: { type: "Address" } }), "spec.snat.address", /required with type Address/],
    ["an snat address with Masquerade", egress({ snat: { address: "1.2.3.4" } }), "spec.snat.address", /no meaning with type Masquerade/],
    ["an snat address of the other family", egress({ snat: { type: "Address", address: "2001:db8::1" } }), "spec.snat.address", /no destination is/],
    [
      "an uplink check without its member",
      egress({ health: { uplink: [{ type: "icmp" }] } }),
      "spec.health.uplink[0].icmp",
      /required with type icmp/,
    ],
    [
      "an uplink check without a target",
      egress({ health: { uplink: [{ type: "tcp", tcp: { port: 53 } }] } }),
      "spec.health.uplink[0].tcp.address",
      /required/,
    ],
    ["overlay and link ranges that overlap", network({ links: { v4: "10.101.128.0/17" } }), "spec.links.v4", /overlaps overlay.v4/],
    ["an overlay that is too small", network({ overlay: { v4: "10.0.0.0/30" } }), "spec.overlay.v4", /at least a \/29/],
    ["a v6 overlay that is not unique local", network({ overlay: { v6: "2001:db8::/48" } }), "spec.overlay.v6", /fc00::\/7/],
    ["a v6 overlay that is not a /48", network({ overlay: { v6: "fd00:1:2:3::/64" } }), "spec.overlay.v6", /\/48/],
    ["a mark mask of six bits", network({ markMask: "0x3f" }), "spec.markMask", /at least 7 adjacent/],
    ["a mark mask with a hole", network({ markMask: "0xfe0f" }), "spec.markMask", /adjacent/],
    ["one port for two things", network({ ports: { gateway: 51820 } }), "spec.ports.gateway", /port of the mesh/],
    ["a topology that does not exist", network({ topology: "Star" }), "spec.topology", /FullMesh.*SiteGateways/],
    ["overlapping subnets of one site", site({ subnets: ["10.0.0.0/8", "10.1.0.0/16"] }), "spec.subnets[1]", /overlaps 10.0.0.0\/8/],
    ["a default route as a LAN", site({ subnets: ["0.0.0.0/0"] }), "spec.subnets[0]", /EgressGateway/],
  ])("refuse %s", (_, raw, path, message) => {
    const found = faults(raw).find((fault) => fault.path === path);
    expect(found, JSON.stringify(faults(raw))).toBeDefined();
    expect(found?.message).toMatch(message);
  });

  it("take a gateway inside a destination when its LAN is excluded", () => {
    expect(resource(route({ destinations: ["10.0.0.0/8"], excludedDestinations: ["10.116.0.0/20"] })).kind).toBe("MeshRoute");
  });

  it("take a network without any field", () => {
    expect(resource(network({})).spec).toMatchObject({ overlay: { v4: "10.101.0.0/16" }, markMask: "0x7f000000" });
  });
});

describe("a token's spec", () => {
  const now = Date.parse("2030-01-01T00:00:00Z");
  it.each([
    [{ site: "a", expires: "2029-12-31T23:59:59Z" }, "spec.expires", /in the past/],
    [{ site: "a", expires: "tomorrow" }, "spec.expires", /RFC 3339/],
    [{ site: "a", expires: "2031-01-01T00:00:00Z", uses: 0 }, "spec.uses", /at least 1/],
    [{ expires: "2031-01-01T00:00:00Z" }, "spec.site", /required/],
  ])("%j is refused at %s", (spec, path, message) => {
    const parsed = parseSpec("JoinToken", spec, { now });
    if (!Array.isArray(parsed)) throw new Error("expected faults");
    expect(parsed[0]).toMatchObject({ path });
    expect(parsed[0]?.message).toMatch(message);
  });

  it("is taken when it is right", () => {
    expect(parseSpec("JoinToken", { site: "a", expires: "2031-01-01T00:00:00Z" }, { now })).toEqual({
      site: "a",
      expires: "2031-01-01T00:00:00Z",
      uses: 1,
    });
  });
});

describe("a set of documents", () => {
  it("tells every fault with its document and file", () => {
    const parsed = parseDocuments([site({}), site({ kind: "x" }), { ...(egress({ bad: 1 }) as object) }], { file: "all.yaml" });
    expect(parsed.resources).toHaveLength(1);
    expect(parsed.faults.map((fault) => [fault.file, fault.document, fault.path])).toEqual([
      ["all.yaml", 1, "spec.kind"],
      ["all.yaml", 2, "spec.bad"],
    ]);
  });

  it("refuses the same object twice", () => {
    expect(parseDocuments([site({}), site({ kind: "cloud" })]).faults).toEqual([
      expect.objectContaining({ path: "metadata.name", value: "dc1", document: 1 }),
    ]);
  });

  it("opens lists", () => {
    expect(parseDocuments([{ apiVersion: "v1", kind: "List", items: [site({}), network({})] }]).resources.map((each) => each.kind)).toEqual([
      "Site",
      "MeshNetwork",
    ]);
  });

  it("says which item of a list is wrong, and counts items as documents", () => {
    const items = [site({}), site({ kind: "x" }), { ...(egress({ bad: 1 }) as object) }];
    const { faults } = parseDocuments([{ apiVersion: "v1", kind: "List", items }], { file: "all.yaml" });
    expect(faults.map((fault) => [fault.document, fault.item, fault.path])).toEqual([
      [0, 1, "spec.kind"],
      [0, 2, "spec.bad"],
    ]);
    expect(invalidDocuments(faults, 3).message).toMatch(/^2 of 3 documents/);
    expect(renderFault(faults[1]!)).toMatch(/^all\.yaml, document 1, item 3: spec\.bad: /);
  });
});

describe("the parser, whatever it is given", () => {
  const odd = fc.constantFrom(
    "__proto__",
    "constructor",
    "toString",
    "spec",
    "destinations",
    "gateways",
    "address",
    "10.0.0.0/8",
    "::/0",
    "",
    "1",
    "\u0000",
  );
  const json = fc.jsonValue({ maxDepth: 4 });

  it("gives a resource or faults with a place, and never throws", () => {
    const spec = fc.oneof(
      json,
      fc.dictionary(
        fc.oneof(odd, fc.constantFrom("snat", "health", "sources", "subnets", "overlay", "labels", "candidates", "sites", "vrrp")),
        fc.oneof(json, odd),
      ),
    );
    const kinds = fc.constantFrom(...Object.values(KINDS).map(({ kind, apiVersion }) => ({ kind, apiVersion })));
    fc.assert(
      fc.property(kinds, spec, fc.oneof(fc.constant({ name: "a" }), json), (head, body, metadata) => {
        const parsed = parseDocument({ ...head, metadata, spec: body }, { index: 4, file: "f" }, { anyKind: true, now: 0 });
        if (!Array.isArray(parsed)) return;
        expect(parsed.length).toBeGreaterThan(0);
        for (const found of parsed)
          expect(found).toMatchObject({ document: 4, file: "f", path: expect.any(String) as string, message: expect.stringMatching(/./) as string });
      }),
      { numRuns: 400 },
    );
    fc.assert(fc.property(json, (raw) => Array.isArray(parseDocument(raw, at))));
  });

  it("takes back what it gave", () => {
    const cidr = fc
      .tuple(fc.integer({ min: 1, max: 126 }), fc.integer({ min: 0, max: 255 }), fc.integer({ min: 9, max: 32 }))
      .filter(([a]) => a !== 127)
      .map(([a, b, bits]) => `${a}.${bits >= 16 ? b : b & (0xff00 >> (bits - 8)) & 0xff}.0.0/${bits}`);
    fc.assert(
      fc.property(fc.array(cidr, { minLength: 1, maxLength: 20 }), (destinations) => {
        const once = resource(egress({ destinations }));
        expect(resource(JSON.parse(JSON.stringify(once)))).toEqual(once);
      }),
    );
  });
});
