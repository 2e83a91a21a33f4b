/** v4 arithmetic of the lab's own address plan. */
import { addressAt, parseCidr } from "../mesh/net/ip.ts";

/** Benchmark range (RFC 2544): public addresses of larger labs come from it. */
const POOL = "198.18.0.0/15";

const toNumber = (address: string): number => Number(parseCidr(`${address}/32`).value);

const toText = (value: number): string => addressAt(parseCidr("0.0.0.0/0"), BigInt(value));

/** Both ends of the /30 that holds the address; undefined when it is the network or broadcast address. */
export function pointToPoint(address: string): { readonly address: string; readonly peer: string } | undefined {
  const value = toNumber(address);
  const last = value & 3;
  if (last === 0 || last === 3) return undefined;
  return { address, peer: toText(last === 1 ? value + 1 : value - 1) };
}

/** Hands out public addresses whose /30 holds none of `taken`. */
export function publicPool(taken: readonly string[]): { next(): string } {
  const used = new Set(taken.map((address) => toNumber(address) >>> 2));
  let link = toNumber(POOL.split("/")[0]!) >>> 2;
  return {
    next() {
      while (used.has(link)) link++;
      return toText(link++ * 4 + 2);
    },
  };
}

/** A LAN: its first address is the router's; `next` gives free ones from .10 on. */
export function subnetAddress(subnet: string, taken: readonly string[]): { readonly first: string; readonly bits: number; next(): string } {
  const prefix = parseCidr(subnet);
  const used = new Set(taken);
  let index = 10n;
  return {
    first: addressAt(prefix, 1n),
    bits: prefix.bits,
    next() {
      while (used.has(addressAt(prefix, index))) index++;
      return addressAt(prefix, index++);
    },
  };
}

export function contains(subnet: string, address: string): boolean {
  const prefix = parseCidr(subnet);
  return toNumber(address) >>> (32 - prefix.bits) === Number(prefix.value) >>> (32 - prefix.bits);
}
