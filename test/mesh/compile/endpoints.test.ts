import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  canReach,
  isPrivateAddress,
  MAX_ENDPOINTS,
  rankEndpoints,
  resolveEndpoints,
  sameOwn,
  type OwnEndpoints,
} from "../../../mesh/compile/endpoints.ts";
import type { Endpoint } from "../../../mesh/model/scalars.ts";
import { prefixSet } from "../../../mesh/net/prefix-set.ts";
import { facts } from "./fixtures.ts";

const OVERLAY = prefixSet(["10.101.0.0/16", "fd00:1:2::/48", "10.102.0.0/15"]);
const rank = (given: object, admin: string[] = []) => rankEndpoints(admin as Endpoint[], facts(given), 51820, OVERLAY);

describe("ranking of endpoints", () => {
  it("goes: admin, operator, own public, seen by the controller, own private", () => {
    const { endpoints, behindNat } = rank(
      {
        endpoints: ["10.0.0.5:51820", "203.0.113.5:51820", "[2001:db8::5]:51820"],
        manualEndpoints: ["198.51.100.1:4500"],
        seen: "198.51.100.99",
      },
      ["192.0.2.1:443"],
    );
    expect(endpoints).toEqual([
      "192.0.2.1:443",
      "198.51.100.1:4500",
      "203.0.113.5:51820",
      "[2001:db8::5]:51820",
      "198.51.100.99:51820",
      "10.0.0.5:51820",
    ]);
    expect(behindNat).toBe(false);
  });

  it("knows a node behind NAT by the foreign address that the controller saw", () => {
    expect(rank({ endpoints: ["192.168.88.11:51820"], seen: "198.51.100.7" })).toEqual({
      endpoints: ["198.51.100.7:51820", "192.168.88.11:51820"],
      behindNat: true,
      unproven: 0b10,
    });
  });

  it.each([
    ["its own address was seen", { endpoints: ["203.0.113.5:51820"], seen: "203.0.113.5" }],
    ["its own private address was seen (the controller is in its LAN)", { endpoints: ["192.168.88.11:51820"], seen: "192.168.88.11" }],
    ["the operator forwarded a port to it", { endpoints: ["192.168.88.11:51820"], seen: "198.51.100.7", manualEndpoints: ["198.51.100.7:4500"] }],
    ["it has a public address of another family", { endpoints: ["192.168.88.11:51820", "[2001:db8::5]:51820"], seen: "198.51.100.7" }],
    ["nobody has seen it yet", { endpoints: ["192.168.88.11:51820"] }],
    ["it reached the controller through the overlay", { endpoints: ["192.168.88.11:51820"], seen: "10.101.0.4" }],
    ["it runs on the controller's machine", { endpoints: ["192.168.88.11:51820"], seen: "127.0.0.1" }],
  ])("does not call a node behind NAT when %s", (_, given) => {
    expect(rank(given).behindNat).toBe(false);
  });

  it("leaves out what no peer can dial", () => {
    const impossible = ["127.0.0.1", "169.254.1.1", "224.0.0.1", "10.101.0.1", "10.103.0.1", "0.0.0.0", "255.255.255.255"].map((ip) => `${ip}:51820`);
    const v6 = ["::1", "fe80::1", "ff02::1", "fd00:1:2::1", "fd00:1:2:1::1", "::"].map((ip) => `[${ip}]:51820`);
    expect(rank({ endpoints: [...impossible, ...v6, "999.1.1.1:1", "203.0.113.5:0"].slice(0, 16) as never, seen: "10.101.0.4" }).endpoints).toEqual(
      [],
    );
  });

  it("names each endpoint once, in canonical text", () => {
    const given = {
      endpoints: ["203.0.113.5:51820", "[2001:DB8:0::5]:51820", "[2001:db8::5]:51820"],
      manualEndpoints: ["203.0.113.5:51820"],
      seen: "203.0.113.5",
    };
    expect(rank(given).endpoints).toEqual(["203.0.113.5:51820", "[2001:db8::5]:51820"]);
  });

  it("keeps a place for private addresses when there are many public ones", () => {
    const many = Array.from({ length: 10 }, (_, i) => `203.0.113.${i}:51820`);
    const { endpoints } = rank({ endpoints: [...many, "192.168.1.1:51820", "192.168.2.1:51820", "192.168.3.1:51820"] });
    expect(endpoints).toHaveLength(MAX_ENDPOINTS);
    expect(endpoints.slice(-2)).toEqual(["192.168.1.1:51820", "192.168.2.1:51820"]);
    expect(rank({ endpoints: many }).endpoints).toHaveLength(MAX_ENDPOINTS);
  });

  it("has nothing to say of a node that reported nothing", () => {
    expect(rankEndpoints([], undefined, 51820, OVERLAY)).toEqual({ endpoints: [], behindNat: false, unproven: 0 });
  });
});

it("addresses of RFC 1918, 4193 and 6598 are private", () => {
  for (const ip of ["10.1.1.1", "172.31.0.1", "192.168.0.1", "100.64.0.1", "fd12::1"]) expect(isPrivateAddress(ip)).toBe(true);
  for (const ip of ["172.32.0.1", "100.128.0.1", "34.160.111.145", "2001:db8::1"]) expect(isPrivateAddress(ip)).toBe(false);
});

it("two nodes reach each other unless both are behind NAT in different sites", () => {
  const at = (s: string, n?: 1) => ({ s: s as never, ...(n === undefined ? {} : { n }) });
  expect(canReach(at("a", 1), at("b", 1))).toBe(false);
  expect(canReach(at("a", 1), at("a", 1))).toBe(true);
  expect(canReach(at("a", 1), at("b"))).toBe(true);
});

describe("I11: an endpoint is only a word until the controller saw it or an admin said it", () => {
  it("marks what neither of them knows", () => {
    const given = { endpoints: ["10.0.0.5:51820"], manualEndpoints: ["198.51.100.7:4500", "203.0.113.9:1"], seen: "198.51.100.7" };
    expect(rank(given, ["192.0.2.1:443"])).toMatchObject({
      endpoints: ["192.0.2.1:443", "198.51.100.7:4500", "203.0.113.9:1", "198.51.100.7:51820", "10.0.0.5:51820"],
      unproven: 0b10100,
    });
  });

  const own = rank({ endpoints: ["203.0.113.10:51820"], seen: "203.0.113.10" });
  const liar = rank({ manualEndpoints: ["203.0.113.10:51820"], endpoints: ["10.0.0.5:51820"], seen: "192.0.2.10" });

  it("leaves a public endpoint to the node that was seen there, also when the liar is older", () => {
    for (const created of [1, 3]) {
      const [first, second] = resolveEndpoints([
        { name: "liar", created, ranked: liar },
        { name: "own", created: 2, ranked: own },
      ]);
      expect(first).toMatchObject({
        endpoints: ["192.0.2.10:51820", "10.0.0.5:51820"],
        unproven: 0b10,
        taken: [{ endpoint: "203.0.113.10:51820", owner: "own" }],
      });
      expect(second).toMatchObject({ ...own, taken: [] });
    }
  });

  it("leaves it to the older of two of whom neither was seen there, and private ones to both", () => {
    const claim = rank({ manualEndpoints: ["203.0.113.10:51820", "10.0.0.5:51820"], seen: "192.0.2.10" });
    const [young, old] = resolveEndpoints([
      { name: "a", created: 2, ranked: claim },
      { name: "b", created: 1, ranked: claim },
    ]);
    expect(young).toMatchObject({ endpoints: ["10.0.0.5:51820", "192.0.2.10:51820"], taken: [{ owner: "b" }] });
    expect(old?.endpoints).toHaveLength(3);
  });

  it("leaves nodes behind one NAT what the controller saw of both", () => {
    const ranked = rank({ endpoints: ["192.168.88.11:51820"], seen: "198.51.100.7" });
    for (const { taken, endpoints } of resolveEndpoints([
      { name: "a", created: 1, ranked },
      { name: "b", created: 2, ranked },
    ])) {
      expect(taken).toEqual([]);
      expect(endpoints).toContain("198.51.100.7:51820");
    }
  });

  it("are the same exactly where they say the same", () => {
    const endpoint = fc.constantFrom("203.0.113.10:51820" as Endpoint, "203.0.113.11:51820" as Endpoint);
    const own: fc.Arbitrary<OwnEndpoints> = fc.record({
      endpoints: fc.array(endpoint, { maxLength: 2 }),
      behindNat: fc.boolean(),
      unproven: fc.nat({ max: 1 }),
      taken: fc.array(fc.record({ endpoint, owner: fc.constantFrom("a", "b") }), { maxLength: 2 }),
    });
    const part = fc.constantFrom("endpoints" as const, "behindNat" as const, "unproven" as const, "taken" as const);
    fc.assert(
      fc.property(own, own, part, (one, other, changed) => {
        const near = { ...one, [changed]: other[changed] };
        expect(sameOwn(one, near)).toBe(JSON.stringify(one) === JSON.stringify(near));
        expect(sameOwn(near, one)).toBe(sameOwn(one, near));
      }),
      { numRuns: 300 },
    );
  });
});
