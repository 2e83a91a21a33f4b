/**
 * Sets of v4 and v6 addresses, made from prefixes. Inside, each family is a sorted list of disjoint half-open intervals,
 * so every operation is one sweep over both lists. v4 counts in numbers, v6 in bigints.
 */
import type { Cidr } from "../model/scalars.ts";
import { compareCidr, formatCidr, parseCidr, parseV4Prefix, type Family, type ParsedCidr, type ParsedIp } from "./ip.ts";

type Bound = number | bigint;
/** `[start, end, start, end, …]`, ascending, ends not included, neighbours merged. */
type Intervals<N extends Bound> = readonly N[];

/** An immutable set of addresses. */
export interface PrefixSet {
  readonly v4: Intervals<number>;
  readonly v6: Intervals<bigint>;
}

export const EMPTY_SET: PrefixSet = { v4: [], v6: [] };

/** All addresses of these prefixes. @throws {RangeError} when one is not a prefix. */
export function prefixSet(cidrs: Iterable<string>): PrefixSet {
  const v4: number[] = [];
  const v6: ParsedCidr[] = [];
  for (const text of cidrs) {
    const fast = parseV4Prefix(text);
    if (fast !== undefined) {
      v4.push(packV4(fast.value, fast.bits));
      continue;
    }
    const cidr = parseCidr(text);
    if (cidr.family === 4) v4.push(packV4(Number(cidr.value), cidr.bits));
    else v6.push(cidr);
  }
  return { v4: mergeV4(v4), v6: mergeV6(v6) };
}

/** Addresses of `a`, of `b`, or of both. */
export function union(a: PrefixSet, b: PrefixSet): PrefixSet {
  return { v4: sweep(a.v4, b.v4, (x, y) => x || y), v6: sweep(a.v6, b.v6, (x, y) => x || y) };
}

/** Addresses of `a` that are not of `b`. */
export function subtract(a: PrefixSet, b: PrefixSet): PrefixSet {
  return { v4: sweep(a.v4, b.v4, (x, y) => x && !y), v6: sweep(a.v6, b.v6, (x, y) => x && !y) };
}

/** Addresses of both. */
export function intersect(a: PrefixSet, b: PrefixSet): PrefixSet {
  return { v4: sweep(a.v4, b.v4, (x, y) => x && y), v6: sweep(a.v6, b.v6, (x, y) => x && y) };
}

export function isEmpty(set: PrefixSet): boolean {
  return set.v4.length === 0 && set.v6.length === 0;
}

/** Whether the address is in the set. */
export function hasAddress(set: PrefixSet, ip: ParsedIp): boolean {
  return ip.family === 4 ? holds(set.v4, Number(ip.value), Number(ip.value) + 1) : holds(set.v6, ip.value, ip.value + 1n);
}

/** Whether every address of the prefix is in the set. */
export function hasPrefix(set: PrefixSet, cidr: string): boolean {
  const { v4, v6 } = prefixSet([cidr]);
  return holdsAll(set.v4, v4) && holdsAll(set.v6, v6);
}

/** Whether the sets have an address in common. */
export function setsOverlap(a: PrefixSet, b: PrefixSet): boolean {
  return meet(a.v4, b.v4) || meet(a.v6, b.v6);
}

/** Whether the prefix has an address in common with the set. */
export function touches(set: PrefixSet, cidr: string): boolean {
  return setsOverlap(set, prefixSet([cidr]));
}

/** The fewest prefixes that make the set, v4 first, ascending. */
export function toCidrs(set: PrefixSet): Cidr[] {
  const out: Cidr[] = [];
  for (let i = 0; i < set.v4.length; i += 2) splitV4(set.v4[i] ?? 0, set.v4[i + 1] ?? 0, out);
  for (let i = 0; i < set.v6.length; i += 2) splitV6(set.v6[i] ?? 0n, set.v6[i + 1] ?? 0n, out);
  return out;
}

/** The fewest prefixes that hold the same addresses as these. */
export function aggregate(cidrs: Iterable<string>): Cidr[] {
  return toCidrs(prefixSet(cidrs));
}

/** Start and length in one number below 2^53, so that sorting needs no comparisons of objects. */
function packV4(start: number, bits: number): number {
  return start * 64 + bits;
}

function mergeV4(packed: readonly number[]): number[] {
  const out: number[] = [];
  for (const one of Float64Array.from(packed).sort()) {
    const start = Math.floor(one / 64);
    append(out, start, start + 2 ** (32 - (one % 64)));
  }
  return out;
}

function mergeV6(cidrs: ParsedCidr[]): bigint[] {
  const out: bigint[] = [];
  for (const { value, bits } of cidrs.sort(compareCidr)) append(out, value, value + (1n << BigInt(128 - bits)));
  return out;
}

/** Adds an interval that starts at or after all that are there. */
function append<N extends Bound>(out: N[], start: N, end: N): void {
  const last = out.at(-1);
  if (last === undefined || start > last) out.push(start, end);
  else if (end > last) out[out.length - 1] = end;
}

/** Walks over the bounds of both lists; `keep` says whether a stretch inside `a` and/or `b` belongs to the result. */
function sweep<N extends Bound>(a: Intervals<N>, b: Intervals<N>, keep: (inA: boolean, inB: boolean) => boolean): N[] {
  const out: N[] = [];
  let i = 0;
  let j = 0;
  let inside = false;
  while (i < a.length || j < b.length) {
    const nextA = a[i];
    const nextB = b[j];
    const at = nextA === undefined ? (nextB as N) : nextB === undefined || nextA <= nextB ? nextA : nextB;
    if (nextA === at) i++;
    if (nextB === at) j++;
    // An odd position stands after a start: inside an interval.
    const now = keep(i % 2 === 1, j % 2 === 1);
    if (now !== inside) out.push(at);
    inside = now;
  }
  return out;
}

/** Whether `[start, end)` lies in one interval. */
function holds<N extends Bound>(list: Intervals<N>, start: N, end: N): boolean {
  const at = lastStartAtOrBelow(list, start);
  const stop = list[2 * at + 1];
  return at >= 0 && stop !== undefined && end <= stop;
}

function holdsAll<N extends Bound>(list: Intervals<N>, inner: Intervals<N>): boolean {
  for (let i = 0; i < inner.length; i += 2) if (!holds(list, inner[i] as N, inner[i + 1] as N)) return false;
  return true;
}

function meet<N extends Bound>(a: Intervals<N>, b: Intervals<N>): boolean {
  const [few, many] = a.length <= b.length ? [a, b] : [b, a];
  for (let i = 0; i < few.length; i += 2) {
    const start = few[i] as N;
    const end = few[i + 1] as N;
    const at = lastStartAtOrBelow(many, start);
    const stop = many[2 * at + 1];
    const next = many[2 * at + 2];
    if ((at >= 0 && stop !== undefined && start < stop) || (next !== undefined && next < end)) return true;
  }
  return false;
}

/** Number of the last interval that starts at or below the value; -1 when there is none. */
function lastStartAtOrBelow<N extends Bound>(list: Intervals<N>, value: N): number {
  let low = 0;
  let high = list.length / 2;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((list[2 * middle] as N) <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function splitV4(start: number, end: number, out: Cidr[]): void {
  let at = start;
  while (at < end) {
    // The lowest set bit of the start bounds the block; 0 is aligned to everything.
    let size = at === 0 ? 2 ** 32 : (at & -at) >>> 0;
    while (at + size > end) size /= 2;
    out.push(cidrOf(4, BigInt(at), 32 - Math.log2(size)));
    at += size;
  }
}

function splitV6(start: bigint, end: bigint, out: Cidr[]): void {
  let at = start;
  while (at < end) {
    const left = bitLength(end - at) - 1;
    const aligned = at === 0n ? 128 : bitLength(at & -at) - 1;
    const zeros = Math.min(left, aligned);
    out.push(cidrOf(6, at, 128 - zeros));
    at += 1n << BigInt(zeros);
  }
}

function cidrOf(family: Family, value: bigint, bits: number): Cidr {
  return formatCidr({ family, value, bits });
}

function bitLength(value: bigint): number {
  const hex = value.toString(16);
  return 4 * (hex.length - 1) + (32 - Math.clz32(Number.parseInt(hex.charAt(0), 16)));
}
