import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatCidr, parseCidr, parseIp } from "../../../mesh/net/ip.ts";
import {
  aggregate,
  EMPTY_SET,
  hasAddress,
  hasPrefix,
  intersect,
  isEmpty,
  prefixSet,
  setsOverlap,
  subtract,
  toCidrs,
  touches,
  union,
} from "../../../mesh/net/prefix-set.ts";
import { anyCidr, listTiny, tinyCidr, tinyCidrs } from "./arbitraries.ts";

describe("set operations against a list of all addresses", () => {
  const same = (a: Set<string>, b: Set<string>): void => expect([...a].sort()).toEqual([...b].sort());

  it("adds, subtracts and intersects", () => {
    fc.assert(
      fc.property(tinyCidrs, tinyCidrs, (a, b) => {
        const [setA, setB, listA, listB] = [prefixSet(a), prefixSet(b), listTiny(a), listTiny(b)];
        same(listTiny(toCidrs(union(setA, setB))), new Set([...listA, ...listB]));
        same(listTiny(toCidrs(subtract(setA, setB))), new Set([...listA].filter((one) => !listB.has(one))));
        same(listTiny(toCidrs(intersect(setA, setB))), new Set([...listA].filter((one) => listB.has(one))));
        expect(setsOverlap(setA, setB)).toBe([...listA].some((one) => listB.has(one)));
        expect(isEmpty(setA)).toBe(listA.size === 0);
      }),
    );
  });

  it("knows what it holds", () => {
    fc.assert(
      fc.property(tinyCidrs, tinyCidr, (cidrs, probe) => {
        const set = prefixSet(cidrs);
        const list = listTiny(cidrs);
        const asked = listTiny([probe]);
        expect(hasPrefix(set, probe)).toBe([...asked].every((one) => list.has(one)));
        expect(touches(set, probe)).toBe([...asked].some((one) => list.has(one)));
        const first = probe.split("/")[0] ?? "";
        expect(hasAddress(set, parseIp(first))).toBe(list.has([...asked][0] ?? ""));
      }),
    );
  });

  it("aggregates to the fewest prefixes, sorted", () => {
    fc.assert(
      fc.property(tinyCidrs, (cidrs) => {
        const parsed = aggregate(cidrs).map((text) => parseCidr(text));
        for (const [i, cidr] of parsed.entries()) {
          const next = parsed[i + 1];
          if (next === undefined || next.family !== cidr.family) continue;
          expect(next.value > cidr.value).toBe(true);
          // No two neighbours make one larger prefix: with disjoint and sorted, that is the minimum.
          const size = 1n << BigInt((cidr.family === 4 ? 32 : 128) - cidr.bits);
          const siblings = next.bits === cidr.bits && next.value === cidr.value + size && (cidr.value & size) === 0n;
          expect(siblings).toBe(false);
        }
      }),
    );
  });
});

describe("over the whole range of both families", () => {
  it("one prefix comes back as it is", () => {
    fc.assert(
      fc.property(anyCidr, (cidr) => {
        expect(toCidrs(prefixSet([formatCidr(cidr)]))).toEqual([formatCidr(cidr)]);
      }),
    );
  });

  it("what is cut out and added again gives the whole", () => {
    fc.assert(
      fc.property(fc.array(anyCidr, { maxLength: 8 }), fc.array(anyCidr, { maxLength: 8 }), (a, b) => {
        const [whole, part] = [prefixSet(a.map(formatCidr)), prefixSet(b.map(formatCidr))];
        const rest = subtract(whole, part);
        expect(setsOverlap(rest, part)).toBe(false);
        expect(union(rest, intersect(whole, part))).toEqual(whole);
      }),
    );
  });

  it("the default route without a private range is 8 prefixes", () => {
    expect(toCidrs(subtract(prefixSet(["0.0.0.0/0"]), prefixSet(["10.0.0.0/8"])))).toEqual([
      "0.0.0.0/5",
      "8.0.0.0/7",
      "11.0.0.0/8",
      "12.0.0.0/6",
      "16.0.0.0/4",
      "32.0.0.0/3",
      "64.0.0.0/2",
      "128.0.0.0/1",
    ]);
  });

  it("halves make a default route, in both families", () => {
    expect(aggregate(["8000::/1", "128.0.0.0/1", "::/1", "0.0.0.0/1"])).toEqual(["0.0.0.0/0", "::/0"]);
    expect(toCidrs(EMPTY_SET)).toEqual([]);
  });

  it("10,000 prefixes come back whole from reading, cutting and writing", () => {
    const cidrs = Array.from({ length: 10_000 }, (_, i) => `${20 + (i >> 14)}.${(i >> 6) & 255}.${(i & 63) * 4}.0/24`);
    const set = prefixSet(cidrs);
    expect(toCidrs(set).length).toBe(10_000);
    expect(isEmpty(subtract(set, prefixSet(cidrs)))).toBe(true);
  });
});
