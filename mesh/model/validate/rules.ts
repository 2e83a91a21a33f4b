/** Rules that several kinds share. Each takes a path and a value and returns what is wrong there. */
import type { FieldFault } from "../../errors.ts";
import { contains, familyOf, parseCidr, parseIp, width } from "../../net/ip.ts";
import { fault, type Path } from "../faults.ts";
import { durationMs } from "../scalars.ts";

export interface RuleContext {
  /** Milliseconds since 1970; undefined where nobody asks whether something is past. */
  readonly now: number | undefined;
}

/** Ranges that no intent may steer (I9). A wider destination such as 0.0.0.0/0 is taken, and these are carved out of it. */
export const RESERVED_RANGES = [
  { cidr: "0.0.0.0/8", why: "“this network” (RFC 1122)" },
  { cidr: "127.0.0.0/8", why: "loopback" },
  { cidr: "169.254.0.0/16", why: "link-local, where the metadata service of clouds is" },
  { cidr: "224.0.0.0/4", why: "multicast" },
  { cidr: "240.0.0.0/4", why: "reserved, and broadcast" },
  { cidr: "::/128", why: "the unspecified address" },
  { cidr: "::1/128", why: "loopback" },
  { cidr: "fe80::/10", why: "link-local" },
  { cidr: "ff00::/8", why: "multicast" },
] as const;

const RESERVED = RESERVED_RANGES.map((range) => ({ ...range, parsed: parseCidr(range.cidr) }));

/** Exactly one of the named members is set. */
export function exactlyOne(object: Record<string, unknown>, names: readonly string[], path: Path): FieldFault[] {
  const set = names.filter((name) => object[name] !== undefined);
  const list = names.join(" or ");
  if (set.length === 0) return [fault(path, `exactly one of ${list} is required; none is set`)];
  return set.slice(1).map((name) => fault([...path, name], `exactly one of ${list} may be set; ${set[0]} is set too`, object[name]));
}

/** The member that an enum-tagged object's type names is there, and no other. `needed` maps a type to its member. */
export function tagged(
  object: Record<string, unknown>,
  tag: string,
  needed: Readonly<Record<string, { readonly member: string; readonly required: boolean }>>,
  path: Path,
): FieldFault[] {
  const type = String(object[tag]);
  const own = needed[type];
  const faults: FieldFault[] = [];
  if (own?.required === true && object[own.member] === undefined) faults.push(fault([...path, own.member], `is required with ${tag} ${type}`));
  for (const { member } of Object.values(needed)) {
    if (member !== own?.member && object[member] !== undefined)
      faults.push(
        fault([...path, member], `has no meaning with ${tag} ${type}; remove it or set ${tag} to ${typeOf(member, needed)}`, object[member]),
      );
  }
  return faults;
}

/** No destination lies inside a range that is nobody's to steer. */
export function notReserved(destinations: readonly string[], path: Path): FieldFault[] {
  return destinations.flatMap((text, i) => {
    const destination = parseCidr(text);
    const range = RESERVED.find((reserved) => contains(reserved.parsed, destination));
    return range === undefined ? [] : [fault([...path, i], `is inside ${range.cidr} (${range.why}), which is never routed; remove it`, text)];
  });
}

/** At least one destination is not swallowed whole by the exclusions. */
export function somethingLeft(destinations: readonly string[], excluded: readonly string[] | undefined, path: Path): FieldFault[] {
  if (excluded === undefined || excluded.length === 0) return [];
  const out = excluded.map(parseCidr);
  const left = destinations.map(parseCidr).some((destination) => !out.some((outer) => contains(outer, destination)));
  return left ? [] : [fault(path, "excludes every destination; nothing would be routed", excluded)];
}

/** A router's own address is not among what is reached through it: its route would point into itself. */
export function gatewayOutside(
  gateway: string,
  destinations: readonly string[],
  excluded: readonly string[] | undefined,
  path: Path,
  remedy = "list the gateway's LAN in excludedDestinations",
): FieldFault[] {
  const ip = parseIp(gateway);
  const host = { ...ip, bits: width(ip.family) };
  if (excluded?.some((text) => contains(parseCidr(text), host)) === true) return [];
  // The default route and its halves hold every router; the connected route of the LAN is more specific, so they work.
  const inside = destinations.find((text) => parseCidr(text).bits > 1 && contains(parseCidr(text), host));
  if (inside === undefined) return [];
  return [fault(path, `lies inside its own destination ${inside}; use a gateway outside of it, or ${remedy}`, gateway)];
}

/** A host address that can be a next hop. */
export function unicast(address: string, path: Path): FieldFault[] {
  const ip = parseIp(address);
  const host = { ...ip, bits: width(ip.family) };
  const range = RESERVED.find((reserved) => reserved.cidr !== "169.254.0.0/16" && reserved.cidr !== "fe80::/10" && contains(reserved.parsed, host));
  return range === undefined ? [] : [fault(path, `cannot be used: it is inside ${range.cidr} (${range.why})`, address)];
}

export function hasFamily(list: readonly string[], family: 4 | 6): boolean {
  return list.some((text) => familyOf(text) === family);
}

/** A length of time within bounds; both bounds as people write them. */
export function durationWithin(text: string | undefined, least: string, most: string, path: Path): FieldFault[] {
  if (text === undefined) return [];
  const ms = durationMs(text);
  if (ms < durationMs(least)) return [fault(path, `must be at least ${least}`, text)];
  return ms > durationMs(most) ? [fault(path, `must be at most ${most}`, text)] : [];
}

function typeOf(member: string, needed: Readonly<Record<string, { readonly member: string }>>): string {
  return Object.keys(needed).find((type) => needed[type]?.member === member) ?? member;
}

/** Labels that only a node's site gives: where a node is, nobody else says. */
const SITE_LABELS = ["location", "isthmus.dev/site"];

/** Labels that would be shown but never take effect. */
export function notOfSite(labels: Readonly<Record<string, string>> | undefined, path: Path): FieldFault[] {
  return SITE_LABELS.flatMap((key) =>
    labels?.[key] === undefined
      ? []
      : [fault([...path, key], "comes from the node's site and cannot be set; choose the site, or another label", labels[key])],
  );
}
