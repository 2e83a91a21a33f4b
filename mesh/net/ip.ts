/**
 * IPv4 and IPv6 addresses and prefixes: parsing, canonical text (RFC 5952), arithmetic. Strict: no leading zeros in v4
 * octets, no v4-mapped v6, no zone identifiers, no host bits in a prefix.
 */
import type { Cidr, IpAddress } from "../model/scalars.ts";

export type Family = 4 | 6;

export interface ParsedIp {
  readonly family: Family;
  readonly value: bigint;
}

export interface ParsedCidr extends ParsedIp {
  /** Prefix length. `value` has no bit set beyond it. */
  readonly bits: number;
}

export type Canonical = { readonly ok: true; readonly text: string } | { readonly ok: false; readonly fault: string };

/** Width of an address of the family in bits. */
export function width(family: Family): 32 | 128 {
  return family === 4 ? 32 : 128;
}

/** Canonical text of an address, or what is wrong with it. */
export function canonicalIp(text: string): Canonical {
  const ip = tryParseIp(text);
  return typeof ip === "string" ? { ok: false, fault: ip } : { ok: true, text: formatIp(ip) };
}

/** Canonical text of a prefix, or what is wrong with it. A bare address becomes /32 or /128. */
export function canonicalCidr(text: string): Canonical {
  const cidr = tryParseCidr(text);
  return typeof cidr === "string" ? { ok: false, fault: cidr } : { ok: true, text: formatCidr(cidr) };
}

/** @throws {RangeError} when the text is not an address; inside the product only canonical values come here. */
export function parseIp(text: string): ParsedIp {
  const ip = tryParseIp(text);
  if (typeof ip === "string") throw new RangeError(`${JSON.stringify(text)}: ${ip}`);
  return ip;
}

/** @throws {RangeError} when the text is not a prefix. */
export function parseCidr(text: string): ParsedCidr {
  const cidr = tryParseCidr(text);
  if (typeof cidr === "string") throw new RangeError(`${JSON.stringify(text)}: ${cidr}`);
  return cidr;
}

/** Canonical text: dotted quad, or RFC 5952 §4 (lower case, longest run of zeros shortened, the first on a tie). */
export function formatIp(ip: ParsedIp): IpAddress {
  return (ip.family === 4 ? formatV4(Number(ip.value)) : formatV6(ip.value)) as IpAddress;
}

export function formatCidr(cidr: ParsedCidr): Cidr {
  return `${formatIp(cidr)}/${cidr.bits}` as Cidr;
}

/** The prefix that holds only this address. */
export function hostCidr(ip: string): Cidr {
  const parsed = parseIp(ip);
  return formatCidr({ ...parsed, bits: width(parsed.family) });
}

/** The address `offset` places after the start of the prefix; the caller keeps it inside the prefix's family. */
export function addressAt(cidr: ParsedCidr, offset: bigint): IpAddress {
  return formatIp({ family: cidr.family, value: cidr.value + offset });
}

export function familyOf(text: string): Family {
  return text.includes(":") ? 6 : 4;
}

/** Whether `outer` holds all of `inner`. */
export function contains(outer: ParsedCidr, inner: ParsedCidr): boolean {
  return outer.family === inner.family && outer.bits <= inner.bits && maskTo(inner, outer.bits) === outer.value;
}

export function overlaps(a: ParsedCidr, b: ParsedCidr): boolean {
  return contains(a, b) || contains(b, a);
}

/** Total order: family, address, then shorter prefixes first. */
export function compareCidr(a: ParsedCidr, b: ParsedCidr): number {
  if (a.family !== b.family) return a.family - b.family;
  if (a.value !== b.value) return a.value < b.value ? -1 : 1;
  return a.bits - b.bits;
}

/** The address with all bits after the first `bits` cleared. */
export function maskTo(ip: ParsedIp, bits: number): bigint {
  const shift = BigInt(width(ip.family) - bits);
  return (ip.value >> shift) << shift;
}

/** `ADDR:PORT` or `[ADDR]:PORT` in its two parts. @throws {RangeError} */
export function splitEndpoint(text: string): { address: IpAddress; port: number } {
  const found = /^(?:\[(?<v6>[^\]]+)\]|(?<v4>[^:]+)):(?<port>\d{1,5})$/.exec(text)?.groups;
  const port = Number(found?.["port"]);
  if (found === undefined || port < 1 || port > 65535) throw new RangeError(`${JSON.stringify(text)}: must be ADDR:PORT, a v6 address in brackets`);
  return { address: formatIp(parseIp(found["v6"] ?? found["v4"] ?? "")), port };
}

export function joinEndpoint(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** The value of a v4 address; undefined for anything else. One pass over the text: tables of 10,000 prefixes are parsed by it. */
export function parseV4Address(text: string): number | undefined {
  return scanV4(text, text.length);
}

/** Start and length of a v4 prefix with its length written out; undefined for anything else, host bits included. */
export function parseV4Prefix(text: string): { readonly value: number; readonly bits: number } | undefined {
  const slash = text.indexOf("/");
  const bits = slash < 0 ? -1 : scanLength(text, slash + 1);
  const value = bits < 0 || bits > 32 ? undefined : scanV4(text, slash);
  return value === undefined || value % 2 ** (32 - bits) !== 0 ? undefined : { value, bits };
}

/** A number of one or two digits without a leading zero, from there to the end; -1 for anything else. */
function scanLength(text: string, from: number): number {
  const digits = text.length - from;
  const first = text.charCodeAt(from) - 48;
  const second = digits === 2 ? text.charCodeAt(from + 1) - 48 : 0;
  if (digits < 1 || digits > 2 || first < 0 || first > 9 || second < 0 || second > 9 || (digits === 2 && first === 0)) return -1;
  return digits === 1 ? first : 10 * first + second;
}

function scanV4(text: string, end: number): number | undefined {
  let value = 0;
  let part = 0;
  let digits = 0;
  let dots = 0;
  for (let i = 0; i < end; i++) {
    const unit = text.charCodeAt(i);
    if (unit === 46) {
      if (digits === 0 || ++dots > 3) return undefined;
      value = value * 256 + part;
      part = 0;
      digits = 0;
    } else {
      // A digit; after a leading zero none may follow.
      if (unit < 48 || unit > 57 || (digits > 0 && part === 0)) return undefined;
      part = part * 10 + unit - 48;
      digits++;
      if (part > 255) return undefined;
    }
  }
  return digits === 0 || dots !== 3 ? undefined : value * 256 + part;
}

function tryParseIp(text: string): ParsedIp | string {
  return text.includes(":") ? parseV6(text) : parseV4(text);
}

function tryParseCidr(text: string): ParsedCidr | string {
  const fast = parseV4Prefix(text);
  if (fast !== undefined) return { family: 4, value: BigInt(fast.value), bits: fast.bits };
  const slash = text.indexOf("/");
  const ip = tryParseIp(slash < 0 ? text : text.slice(0, slash));
  if (typeof ip === "string") return ip;
  const full = width(ip.family);
  if (slash < 0) return { ...ip, bits: full };
  const length = text.slice(slash + 1);
  if (!/^(0|[1-9]\d{0,2})$/.test(length) || Number(length) > full) return `the prefix length must be 0 to ${full}`;
  const bits = Number(length);
  const network = maskTo(ip, bits);
  if (network !== ip.value) {
    return `host bits are set; did you mean ${formatCidr({ family: ip.family, value: network, bits })} or ${formatIp(ip)}/${full}?`;
  }
  return { ...ip, bits };
}

function parseV4(text: string): ParsedIp | string {
  const value = parseV4Address(text);
  if (value !== undefined) return { family: 4, value: BigInt(value) };
  if (text.split(".").length !== 4) return "must be an IPv4 address (four numbers) or an IPv6 address";
  return "each part of an IPv4 address is 0 to 255 without leading zeros";
}

function parseV6(text: string): ParsedIp | string {
  if (text.includes(".")) return "IPv4 inside IPv6 is not accepted; write the IPv4 address itself";
  if (text.includes("%")) return "a zone identifier is not accepted here";
  const halves = text.split("::");
  if (halves.length > 2) return "'::' may stand once";
  const head = groups(halves[0] ?? "");
  const tail = halves.length === 2 ? groups(halves[1] ?? "") : [];
  if (head === undefined || tail === undefined) return "must be an IPv6 address: groups of up to four hexadecimal digits";
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return "an IPv6 address has eight groups";
  const all = [...head, ...Array.from({ length: missing }, () => 0), ...tail];
  const value = all.reduce((sum, group) => (sum << 16n) | BigInt(group), 0n);
  if (value >> 32n === 0xffffn) return "an IPv4-mapped IPv6 address is not accepted; write the IPv4 address itself";
  return { family: 6, value };
}

function groups(text: string): number[] | undefined {
  if (text === "") return [];
  const parts = text.split(":");
  return parts.every((part) => /^[0-9a-fA-F]{1,4}$/.test(part)) ? parts.map((part) => Number.parseInt(part, 16)) : undefined;
}

function formatV4(value: number): string {
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
}

function formatV6(value: bigint): string {
  const parts = Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(112 - 16 * i)) & 0xffffn));
  const run = longestZeroRun(parts);
  const hex = (list: number[]): string => list.map((part) => part.toString(16)).join(":");
  if (run.length < 2) return hex(parts);
  return `${hex(parts.slice(0, run.start))}::${hex(parts.slice(run.start + run.length))}`;
}

function longestZeroRun(parts: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  let start = 0;
  for (let i = 0; i <= parts.length; i++) {
    if (parts[i] === 0) continue;
    if (i - start > best.length) best = { start, length: i - start };
    start = i + 1;
  }
  return best;
}
