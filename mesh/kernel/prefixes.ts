/** A map of prefixes that answers "what covers this?"; at most one look-up per prefix length in use. */
import type { Cidr } from "../model/scalars.ts";
import { contains, parseCidr, compareCidr, maskTo, type ParsedCidr } from "../net/ip.ts";

export class PrefixMap<T> {
  readonly #levels = new Map<
    number,
    { readonly family: 4 | 6; readonly bits: number; readonly values: Map<bigint, { cidr: ParsedCidr; value: T }> }
  >();
  #order: { readonly family: 4 | 6; readonly bits: number; readonly values: Map<bigint, { cidr: ParsedCidr; value: T }> }[] | undefined;

  /** The first value of a prefix stays. */
  add(cidr: ParsedCidr, value: T): void {
    const at = cidr.family * 256 + cidr.bits;
    let level = this.#levels.get(at);
    if (level === undefined) {
      level = { family: cidr.family, bits: cidr.bits, values: new Map() };
      this.#levels.set(at, level);
      this.#order = undefined;
    }
    if (!level.values.has(cidr.value)) level.values.set(cidr.value, { cidr, value });
  }

  get(cidr: ParsedCidr): T | undefined {
    return this.#levels.get(cidr.family * 256 + cidr.bits)?.values.get(cidr.value)?.value;
  }

  /** The longest prefix that holds all of `cidr`; with `strict` it is shorter than `cidr`. */
  covering(cidr: ParsedCidr, strict = false): { readonly cidr: ParsedCidr; readonly value: T } | undefined {
    this.#order ??= [...this.#levels.values()].sort((a, b) => b.bits - a.bits);
    for (const level of this.#order) {
      if (level.family !== cidr.family || level.bits > cidr.bits || (strict && level.bits === cidr.bits)) continue;
      const found = level.values.get(maskTo(cidr, level.bits));
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

/** Prefixes without those that lie inside another of them, sorted. */
export function disjoint(cidrs: Iterable<Cidr>): Cidr[] {
  const sorted = [...new Set(cidrs)].map((text) => ({ text, cidr: parsed(text) })).sort((a, b) => compareCidr(a.cidr, b.cidr));
  const kept: { text: Cidr; cidr: ParsedCidr }[] = [];
  for (const item of sorted) {
    const last = kept.at(-1);
    if (last === undefined || !contains(last.cidr, item.cidr)) kept.push(item);
  }
  return kept.map(({ text }) => text);
}

const parsedTexts = new Map<Cidr, ParsedCidr>();
const PARSED_LIMIT = 50_000;

/** `parseCidr` with a memory: a plan in which one of 2,000 destinations changed costs one parse. */
export function parsed(text: Cidr): ParsedCidr {
  let cidr = parsedTexts.get(text);
  if (cidr === undefined) {
    if (parsedTexts.size >= PARSED_LIMIT) parsedTexts.clear();
    cidr = parseCidr(text);
    parsedTexts.set(text, cidr);
  }
  return cidr;
}
