import { isIPv6 } from "node:net";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  addressAt,
  canonicalCidr,
  canonicalIp,
  compareCidr,
  contains,
  formatCidr,
  formatIp,
  hostCidr,
  joinEndpoint,
  maskTo,
  overlaps,
  parseCidr,
  parseIp,
  parseV4Address,
  parseV4Prefix,
  splitEndpoint,
  width,
} from "../../../mesh/net/ip.ts";
import { anyCidr, v4Value, v6Value } from "./arbitraries.ts";

describe("addresses", () => {
  it("survive being written and read again", () => {
    fc.assert(
      fc.property(v4Value, (value) => {
        expect(parseIp(formatIp({ family: 4, value }))).toEqual({ family: 4, value });
      }),
    );
    fc.assert(
      fc.property(v6Value, (value) => {
        expect(parseIp(formatIp({ family: 6, value }))).toEqual({ family: 6, value });
      }),
    );
  });

  it("are written as RFC 5952 wants it, which is what the URL parser writes too", () => {
    fc.assert(
      fc.property(v6Value, (value) => {
        const text = formatIp({ family: 6, value });
        expect(isIPv6(text)).toBe(true);
        expect(new URL(`http://[${text}]/`).hostname).toBe(`[${text}]`);
      }),
    );
  });

  it.each([
    ["2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["0:0:0:0:0:0:0:0", "::"],
    ["0001::", "1::"],
    ["::1", "::1"],
    ["fe80:0:0:0:0:0:0:0", "fe80::"],
  ])("canonical form of %s is %s", (written, canonical) => {
    expect(canonicalIp(written)).toEqual({ ok: true, text: canonical });
  });

  it.each([
    "",
    "1.2.3",
    "1.2.3.4.5",
    "01.2.3.4",
    "1.2.3.256",
    "1..2.3",
    "1.2.3.4 ",
    "1.2.3.-4",
    "::ffff:1.2.3.4",
    "::ffff:102:304",
    "1::2::3",
    ":",
    ":::",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "::1:2:3:4:5:6:7:8",
    "12345::",
    "fe80::1%eth0",
    "g::",
    "host.example",
  ])("%j is refused", (text) => {
    expect(canonicalIp(text).ok).toBe(false);
    expect(() => parseIp(text)).toThrow(RangeError);
  });

  it("of a mapped kind are refused with the reason", () => {
    expect(canonicalIp("::ffff:a00:1")).toEqual({ ok: false, fault: expect.stringContaining("IPv4-mapped") });
  });

  it("are read by the quick v4 reader exactly when the strict one takes them for v4", () => {
    const texts = fc.oneof(fc.ipV4(), fc.stringMatching(/^[0-9.]{0,16}$/), fc.ipV6(), fc.string());
    fc.assert(
      fc.property(texts, (text) => {
        const strict = canonicalIp(text);
        const value = parseV4Address(text);
        expect(value !== undefined).toBe(strict.ok && !text.includes(":"));
        if (value !== undefined) expect(parseIp(text).value).toBe(BigInt(value));
      }),
    );
  });
});

describe("prefixes", () => {
  it("survive being written and read again", () => {
    fc.assert(
      fc.property(anyCidr, (cidr) => {
        expect(parseCidr(formatCidr(cidr))).toEqual(cidr);
      }),
    );
  });

  it("with host bits are refused, and both repairs are named", () => {
    expect(canonicalCidr("10.0.0.1/8")).toEqual({ ok: false, fault: expect.stringMatching(/10\.0\.0\.0\/8.*10\.0\.0\.1\/32/) });
    fc.assert(
      fc.property(anyCidr, fc.bigInt({ min: 1n, max: 2n ** 128n }), (cidr, noise) => {
        const free = BigInt(width(cidr.family) - cidr.bits);
        const host = noise & ((1n << free) - 1n);
        fc.pre(host !== 0n);
        const text = `${formatIp({ family: cidr.family, value: cidr.value | host })}/${cidr.bits}`;
        fc.pre(!text.startsWith("::ffff:"));
        expect(canonicalCidr(text).ok).toBe(false);
      }),
    );
  });

  it("without a length hold one address", () => {
    expect(canonicalCidr("34.160.111.145")).toEqual({ ok: true, text: "34.160.111.145/32" });
    expect(canonicalCidr("2001:db8::1")).toEqual({ ok: true, text: "2001:db8::1/128" });
    expect(hostCidr("10.0.0.1")).toBe("10.0.0.1/32");
  });

  it.each(["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/-1", "10.0.0.0/8/8", "::/129", "10.0.0.0/1e1", "10.0.0.0/ 8"])(
    "%j is refused",
    (text) => {
      expect(canonicalCidr(text).ok).toBe(false);
      expect(parseV4Prefix(text)).toBeUndefined();
    },
  );

  it("contain what has the same leading bits", () => {
    fc.assert(
      fc.property(anyCidr, fc.integer({ min: 0, max: 128 }), (inner, cut) => {
        const bits = Math.min(cut, inner.bits);
        const outer = { family: inner.family, value: maskTo(inner, bits), bits };
        expect(contains(outer, inner)).toBe(true);
        expect(contains(inner, outer)).toBe(bits === inner.bits);
        expect(overlaps(inner, outer)).toBe(true);
      }),
    );
  });

  it("of different families never meet", () => {
    expect(contains(parseCidr("0.0.0.0/0"), parseCidr("::/0"))).toBe(false);
    expect(overlaps(parseCidr("::/0"), parseCidr("0.0.0.0/0"))).toBe(false);
  });

  it("sort in one total order", () => {
    fc.assert(
      fc.property(anyCidr, anyCidr, (a, b) => {
        expect(Math.sign(compareCidr(a, b)) + Math.sign(compareCidr(b, a))).toBe(0);
        expect(compareCidr(a, b) === 0).toBe(formatCidr(a) === formatCidr(b));
      }),
    );
  });

  it("are counted through by offset", () => {
    expect(addressAt(parseCidr("10.101.0.0/16"), 258n)).toBe("10.101.1.2");
    expect(addressAt(parseCidr("fd00::/48"), (1n << 64n) + 1n)).toBe("fd00:0:0:1::1");
  });
});

describe("endpoints", () => {
  it.each([
    ["198.51.100.1:51820", "198.51.100.1", 51820],
    ["[2001:db8::1]:1", "2001:db8::1", 1],
  ])("%s is taken apart and put together", (text, address, port) => {
    expect(splitEndpoint(text)).toEqual({ address, port });
    expect(joinEndpoint(address, port)).toBe(text);
  });

  it.each(["198.51.100.1", "198.51.100.1:0", "198.51.100.1:65536", "2001:db8::1:51820", "[10.0.0.1:80", "host:80"])("%j is refused", (text) => {
    expect(() => splitEndpoint(text)).toThrow(RangeError);
  });
});
