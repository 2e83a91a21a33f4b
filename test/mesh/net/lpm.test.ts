import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { contains, formatCidr, formatIp, hostCidr, parseCidr } from "../../../mesh/net/ip.ts";
import { buildLpm, lookup } from "../../../mesh/net/lpm.ts";
import { anyCidr, tinyCidrs, v4Value, v6Value } from "./arbitraries.ts";

/** The model: look at every prefix. */
function slow(cidrs: readonly string[], ip: string): string | undefined {
  const asked = parseCidr(hostCidr(ip));
  return cidrs.filter((cidr) => contains(parseCidr(cidr), asked)).sort((a, b) => parseCidr(b).bits - parseCidr(a).bits)[0];
}

describe("longest-prefix match", () => {
  it("finds what a look at every prefix finds, where prefixes nest a lot", () => {
    const ip = fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 80 })).map(([v4, host]) => (v4 ? `10.0.0.${host}` : `fd00::${host.toString(16)}`));
    fc.assert(
      fc.property(tinyCidrs, fc.array(ip, { minLength: 1, maxLength: 20 }), (cidrs, ips) => {
        const table = buildLpm(cidrs.map((cidr) => [cidr, cidr] as const));
        for (const one of ips) expect(lookup(table, one)?.prefix).toBe(slow(cidrs, one));
      }),
    );
  });

  it("finds the same over the whole range of both families, at the edges of the prefixes too", () => {
    fc.assert(
      fc.property(fc.array(anyCidr, { maxLength: 10 }), v4Value, v6Value, (parsed, v4, v6) => {
        const cidrs = parsed.map(formatCidr);
        const table = buildLpm(cidrs.map((cidr) => [cidr, 1] as const));
        const edges = parsed.map(({ family, value }) => formatIp({ family, value }));
        for (const ip of [formatIp({ family: 4, value: v4 }), formatIp({ family: 6, value: v6 }), ...edges]) {
          expect(lookup(table, ip)?.prefix).toBe(slow(cidrs, ip));
        }
      }),
    );
  });

  it("lets the later of two equal prefixes count", () => {
    const table = buildLpm([
      ["10.0.0.0/8", "first"],
      ["10.0.0.0/8", "second"],
    ]);
    expect(lookup(table, "10.1.2.3")).toEqual({ prefix: "10.0.0.0/8", value: "second" });
    expect(lookup(table, "11.0.0.0")).toBeUndefined();
  });

  it("holds 10,000 prefixes", () => {
    const cidrs = Array.from({ length: 10_000 }, (_, i) => `${20 + (i >> 14)}.${(i >> 6) & 255}.${(i & 63) * 4}.0/24`);
    const table = buildLpm([["0.0.0.0/0", "default"], ...cidrs.map((cidr) => [cidr, cidr] as const)]);
    for (const cidr of cidrs) expect(lookup(table, cidr.replace(".0/24", ".255"))?.value).toBe(cidr);
    expect(lookup(table, "19.255.255.255")?.value).toBe("default");
  });

  it("refuses what is no address", () => {
    expect(() => lookup(buildLpm([]), "10.0.0")).toThrow(RangeError);
  });
});
