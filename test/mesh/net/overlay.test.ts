import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Cidr } from "../../../mesh/model/scalars.ts";
import { contains, hostCidr, parseCidr } from "../../../mesh/net/ip.ts";
import { clientLinkAddress, gatewayLinkAddress, maxIndex, meshAddress, rangesFault } from "../../../mesh/net/overlay.ts";

const ranges = (v4: string, links: string, v6 = "fd00:1:2::/48") => ({ overlay: { v4: v4 as Cidr, v6: v6 as Cidr }, links: { v4: links as Cidr } });
const DEFAULT = ranges("10.101.0.0/16", "10.102.0.0/15");

function addressesOf(net: typeof DEFAULT, index: number): string[] {
  return [meshAddress(net, index), clientLinkAddress(net, index), gatewayLinkAddress(net, index)].flatMap(({ v4, v6 }) => [v4, v6]);
}

describe("addresses of an index", () => {
  it("are the documented ones", () => {
    expect(addressesOf(DEFAULT, 258)).toEqual(["10.101.1.2", "fd00:1:2::102", "10.102.1.2", "fd00:1:2:1::102", "10.103.1.2", "fd00:1:2:2::102"]);
  });

  it("are all distinct, for every index that small ranges can hold", () => {
    const net = ranges("10.0.0.0/25", "10.0.1.0/25");
    const all = Array.from({ length: maxIndex(net) }, (_, i) => addressesOf(net, i + 1)).flat();
    expect(new Set(all).size).toBe(all.length);
    expect(all.length).toBe(6 * 62);
  });

  it("are distinct for any two indexes and lie in their ranges", () => {
    const index = fc.integer({ min: 1, max: maxIndex(DEFAULT) });
    fc.assert(
      fc.property(index, index, (a, b) => {
        const all = a === b ? addressesOf(DEFAULT, a) : [...addressesOf(DEFAULT, a), ...addressesOf(DEFAULT, b)];
        expect(new Set(all).size).toBe(all.length);
        const held = [DEFAULT.overlay.v4, DEFAULT.overlay.v6, DEFAULT.links.v4].map((text) => parseCidr(text));
        for (const address of all) expect(held.some((range) => contains(range, parseCidr(hostCidr(address))))).toBe(true);
      }),
    );
  });
});

describe("ranges", () => {
  it("that are good have no fault", () => {
    expect(rangesFault(DEFAULT)).toBeUndefined();
  });

  it.each([
    ["overlapping ranges", ranges("10.101.0.0/16", "10.100.0.0/14"), "overlap"],
    ["a v6 range too small for three subnets", ranges("10.101.0.0/16", "10.102.0.0/15", "fd00::/64"), "overlay.v6"],
    ["a v4 range that holds nothing", ranges("10.101.0.0/31", "10.102.0.0/15"), "overlay.v4"],
    ["link addresses of the wrong family", ranges("10.101.0.0/16", "fd01::/48"), "links.v4"],
  ])("%s: are refused by name", (_, net, named) => {
    expect(rangesFault(net)).toContain(named);
  });
});
