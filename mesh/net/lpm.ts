/**
 * Longest-prefix match. Nested prefixes are flattened once into stretches that each belong to the most specific prefix, so
 * a lookup is one binary search.
 */
import type { Cidr } from "../model/scalars.ts";
import { formatCidr, parseCidr, parseIp, parseV4Address } from "./ip.ts";

export interface Match<T> {
  readonly prefix: Cidr;
  readonly value: T;
}

interface Stretches<N extends number | bigint, T> {
  /** Ascending; a stretch reaches to the next start. */
  readonly starts: readonly N[];
  readonly owners: readonly (Match<T> | undefined)[];
}

/** A table that is built once and asked often. */
export interface LpmTable<T> {
  readonly v4: Stretches<number, T>;
  readonly v6: Stretches<bigint, T>;
}

/** Builds the table. Of two entries with the same prefix the later one counts. @throws {RangeError} on a text that is no prefix. */
export function buildLpm<T>(entries: Iterable<readonly [cidr: string, value: T]>): LpmTable<T> {
  const v4 = new Map<string, Span<number, T>>();
  const v6 = new Map<string, Span<bigint, T>>();
  for (const [text, value] of entries) {
    const cidr = parseCidr(text);
    const prefix = formatCidr(cidr);
    const match: Match<T> = { prefix, value };
    if (cidr.family === 4) v4.set(prefix, { start: Number(cidr.value), end: Number(cidr.value) + 2 ** (32 - cidr.bits), match });
    else v6.set(prefix, { start: cidr.value, end: cidr.value + (1n << BigInt(128 - cidr.bits)), match });
  }
  return { v4: flatten(sortSpans(v4), 0), v6: flatten(sortSpans(v6), 0n) };
}

/** The most specific prefix that holds the address, with its value. @throws {RangeError} on a text that is no address. */
export function lookup<T>(table: LpmTable<T>, ip: string): Match<T> | undefined {
  const v4 = parseV4Address(ip);
  return v4 === undefined ? find(table.v6, parseIp(ip).value) : find(table.v4, v4);
}

interface Span<N, T> {
  readonly start: N;
  readonly end: N;
  readonly match: Match<T>;
}

/** By start, the wider span first. */
function sortSpans<N extends number | bigint, T>(spans: ReadonlyMap<string, Span<N, T>>): Span<N, T>[] {
  return [...spans.values()].sort((a, b) => (a.start !== b.start ? (a.start < b.start ? -1 : 1) : a.end > b.end ? -1 : 1));
}

/** Spans come sorted by start, outer before inner, and nest (prefixes never cross). */
function flatten<N extends number | bigint, T>(spans: readonly Span<N, T>[], first: N): Stretches<N, T> {
  const starts: N[] = [first];
  const owners: (Match<T> | undefined)[] = [undefined];
  const open: Span<N, T>[] = [];
  const mark = (at: N, owner: Match<T> | undefined): void => {
    if (starts.at(-1) === at) owners[owners.length - 1] = owner;
    else if (owners.at(-1) !== owner) {
      starts.push(at);
      owners.push(owner);
    }
  };
  const close = (top: Span<N, T>): void => {
    open.pop();
    mark(top.end, open.at(-1)?.match);
  };
  for (const span of spans) {
    for (let top = open.at(-1); top !== undefined && top.end <= span.start; top = open.at(-1)) close(top);
    mark(span.start, span.match);
    open.push(span);
  }
  for (let top = open.at(-1); top !== undefined; top = open.at(-1)) close(top);
  return { starts, owners };
}

function find<N extends number | bigint, T>(stretches: Stretches<N, T>, value: N): Match<T> | undefined {
  let low = 0;
  let high = stretches.starts.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((stretches.starts[middle] as N) <= value) low = middle + 1;
    else high = middle;
  }
  return stretches.owners[low - 1];
}
