/** Addresses that derive from a node's index. One index, six addresses; nobody else may own them (I6). */
import type { NetworkPlan } from "../model/plan.ts";
import type { Cidr, IpAddress } from "../model/scalars.ts";
import { addressAt, formatCidr, overlaps, parseCidr, type ParsedCidr } from "./ip.ts";

type Ranges = Pick<NetworkPlan, "overlay" | "links">;

/** A v4 and a v6 address. */
export interface AddressPair {
  readonly v4: IpAddress;
  readonly v6: IpAddress;
}

/** The node's address in the mesh: `overlay.v4 + index`, `overlay.v6 + index`. */
export function meshAddress(net: Ranges, index: number): AddressPair {
  const { overlay4, mesh } = parse(net);
  return pair(net, mesh, overlay4, 0n, 0n, index);
}

/** The ranges of all mesh addresses. */
export function meshRanges(net: Ranges): Cidr[] {
  return [net.overlay.v4, formatCidr({ family: 6, value: parse(net).overlay6.value, bits: 64 })];
}

/** The node's link address as client: lower half of the link range; second /64 of the overlay's v6 range. */
export function clientLinkAddress(net: Ranges, index: number): AddressPair {
  const { links4, clients } = parse(net);
  return pair(net, clients, links4, 0n, 1n << 64n, index);
}

/** The node's link address as gateway: upper half of the link range; third /64 of the overlay's v6 range. */
export function gatewayLinkAddress(net: Ranges, index: number): AddressPair {
  const { links4, gateways } = parse(net);
  return pair(net, gateways, links4, 1n << BigInt(31 - links4.bits), 2n << 64n, index);
}

/** The largest index that the ranges can hold (the last address of a v4 range is broadcast by habit, so it is left out). */
export function maxIndex(net: Ranges): number {
  const { overlay4, links4 } = parse(net);
  return Math.min(2 ** (32 - overlay4.bits) - 2, 2 ** (31 - links4.bits) - 2);
}

/** What makes these ranges unusable; undefined when all addresses of all indexes are distinct. */
export function rangesFault(net: Ranges): string | undefined {
  const { overlay4, overlay6, links4 } = parse(net);
  if (overlay4.family !== 4 || overlay4.bits > 30) return `overlay.v4 ${net.overlay.v4} must be an IPv4 prefix of /30 or shorter`;
  if (links4.family !== 4 || links4.bits > 29) return `links.v4 ${net.links.v4} must be an IPv4 prefix of /29 or shorter`;
  if (overlay6.family !== 6 || overlay6.bits > 62) return `overlay.v6 ${net.overlay.v6} must be an IPv6 prefix of /62 or shorter, usually a /48`;
  if (overlaps(overlay4, links4)) return `overlay.v4 ${net.overlay.v4} and links.v4 ${net.links.v4} overlap`;
  return undefined;
}

interface ParsedRanges {
  readonly overlay4: ParsedCidr;
  readonly overlay6: ParsedCidr;
  readonly links4: ParsedCidr;
  /** By index, what was made before: a node needs the same ones at every look. */
  readonly mesh: Made;
  readonly clients: Made;
  readonly gateways: Made;
}

type Made = Map<number, AddressPair>;

const parsedRanges = new WeakMap<Ranges, ParsedRanges>();

/** Ranges are parsed once per network object: thousands of addresses are made from them. */
function parse(net: Ranges): ParsedRanges {
  const known = parsedRanges.get(net);
  if (known !== undefined) return known;
  const ranges = { overlay4: parseCidr(net.overlay.v4), overlay6: parseCidr(net.overlay.v6), links4: parseCidr(net.links.v4) };
  const parsed = { ...ranges, mesh: new Map(), clients: new Map(), gateways: new Map() };
  parsedRanges.set(net, parsed);
  return parsed;
}

function pair(net: Ranges, made: Made, v4Range: ParsedCidr, v4Base: bigint, v6Base: bigint, index: number): AddressPair {
  const known = made.get(index);
  if (known !== undefined) return known;
  const addresses = { v4: addressAt(v4Range, v4Base + BigInt(index)), v6: addressAt(parse(net).overlay6, v6Base + BigInt(index)) };
  made.set(index, addresses);
  return addresses;
}
