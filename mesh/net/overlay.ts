/** Addresses that derive from a node's index. One index, six addresses; nobody else may own them (I6). */
import type { NetworkPlan } from "../model/plan.ts";
import type { IpAddress } from "../model/scalars.ts";
import { addressAt, parseCidr } from "./ip.ts";

type Ranges = Pick<NetworkPlan, "overlay" | "links">;

/** A v4 and a v6 address. */
export interface AddressPair {
  readonly v4: IpAddress;
  readonly v6: IpAddress;
}

/** The node's address in the mesh: `overlay.v4 + index`, `overlay.v6 + index`. */
export function meshAddress(net: Ranges, index: number): AddressPair {
  return pair(net.overlay.v4, 0n, net.overlay.v6, 0n, index);
}

/** The node's link address as client: lower half of the link range; second /64 of the overlay's v6 range. */
export function clientLinkAddress(net: Ranges, index: number): AddressPair {
  return pair(net.links.v4, 0n, net.overlay.v6, 1n << 64n, index);
}

/** The node's link address as gateway: upper half of the link range; third /64 of the overlay's v6 range. */
export function gatewayLinkAddress(net: Ranges, index: number): AddressPair {
  const links = parseCidr(net.links.v4);
  const half = 1n << BigInt(31 - links.bits);
  return pair(net.links.v4, half, net.overlay.v6, 2n << 64n, index);
}

function pair(v4: string, v4Base: bigint, v6: string, v6Base: bigint, index: number): AddressPair {
  return {
    v4: addressAt(parseCidr(v4), v4Base + BigInt(index)),
    v6: addressAt(parseCidr(v6), v6Base + BigInt(index)),
  };
}

/** The largest index that the ranges can hold (the last address of a v4 range is broadcast by habit, so it is left out). */
export function maxIndex(net: Ranges): number {
  const overlay = 2 ** (32 - parseCidr(net.overlay.v4).bits) - 2;
  const links = 2 ** (31 - parseCidr(net.links.v4).bits) - 2;
  return Math.min(overlay, links);
}
