/**
 * Who owns which destination on this node. Two intents that name one destination: the older keeps it. What no plan may
 * cut off (I9) is refused or carved out.
 */
import { betweenSites, byAge, MAIN_TABLE, type PathId, type Plan } from "../model/plan.ts";
import type { Cidr, IpAddress } from "../model/scalars.ts";
import { compareCidr, contains, hostCidr, parseCidr, type ParsedCidr } from "../net/ip.ts";
import { OWN_TABLES } from "./layout.ts";
import { parsed, PrefixMap } from "./prefixes.ts";
import { connectedPrefixes, overlayRanges, protections, type Protections } from "./protection.ts";
import { isMeshPeer, isPaired } from "./topology.ts";
import type { DesiredInput, HostFacts, Refusal } from "./types.ts";

export interface Claims {
  /** Destinations routed in the overlay table: a path's id, or `peer/<node>` for a prefix that a node advertises. */
  readonly overlay: ReadonlyMap<Cidr, string>;
  /** Destinations through LAN gateways, by route id. */
  readonly lan: ReadonlyMap<string, { readonly gateways: readonly IpAddress[]; readonly destinations: readonly Cidr[] }>;
  /** Prefixes that leave the overlay table again, because they are protected or because main knows better. */
  readonly throws: readonly Cidr[];
  /** Protected prefixes inside a LAN route's destinations: they keep the way that they have without us. */
  readonly kept: readonly { readonly table: number; readonly dst: Cidr; readonly via?: IpAddress; readonly dev?: string }[];
  readonly refusals: readonly Refusal[];
}

interface Claim {
  readonly id: string;
  readonly created: number;
  readonly destinations: readonly Cidr[];
  readonly table: number | undefined;
}

/** What was found last for a plan, for as long as that plan lives. */
const found = new WeakMap<Plan, { readonly host: HostFacts; readonly lan: string; readonly claims: Claims }>();

/** The same plan, host and LAN choices give the same object: elections change often, claims do not. */
export function claimsOf(input: Pick<DesiredInput, "plan" | "host" | "lanChoices">): Claims {
  const lan = JSON.stringify([...input.lanChoices].sort(([a], [b]) => (a < b ? -1 : 1)));
  const last = found.get(input.plan);
  if (last?.host === input.host && last.lan === lan) return last.claims;
  const claims = resolve(input);
  found.set(input.plan, { host: input.host, lan, claims });
  return claims;
}

/** Whether this node is a gateway of the path: it then uses its own uplink and routes nothing. */
export function serves(plan: Plan, id: PathId): boolean {
  return plan.serves.has(id) || (plan.paths.get(id)?.gateways.some(({ node }) => node === plan.self.name) ?? false);
}

/** A LAN gateway, with the length of the connected prefix that it is reached in; absent where there is none. */
interface Hop {
  readonly gateway: IpAddress;
  readonly host: ParsedCidr;
  readonly bits: number | undefined;
}

function hopOf(gateway: IpAddress, connected: PrefixMap<string>): Hop {
  const host = parsed(hostCidr(gateway));
  return { gateway, host, bits: connected.covering(host)?.cidr.bits };
}

interface Lookup {
  readonly shields: Protections;
  readonly connected: PrefixMap<string>;
  /** Owner by table and destination; the overlay and main are one domain, because packets see them as one. */
  readonly owners: Map<number, Map<Cidr, string>>;
}

function resolve({ plan, host, lanChoices }: Pick<DesiredInput, "plan" | "host" | "lanChoices">): Claims {
  const look: Lookup = { shields: protections(plan, host), connected: connectedPrefixes(host), owners: new Map() };
  const refusals: Refusal[] = [];
  const overlay = new Map<Cidr, string>();
  const lan = new Map<string, { gateways: IpAddress[]; destinations: Cidr[] }>();
  const routed = new PrefixMap<string>();
  const lanRouted = new Map<number, PrefixMap<string>>();

  for (const claim of claimsInOrder(plan)) {
    const chosen = claim.table === undefined ? [] : (lanChoices.get(claim.id) ?? plan.lanRoutes.get(claim.id)?.gateways.slice(0, 1) ?? []);
    const hops = chosen.map((gateway) => hopOf(gateway, look.connected));
    const gateways = hops.flatMap(({ gateway, bits }) => (bits === undefined ? [] : [gateway]));
    const owners = getOr(look.owners, claim.table ?? MAIN_TABLE, () => new Map<Cidr, string>());
    for (const destination of claim.destinations) {
      const cidr = parsed(destination);
      const refusal = whyNot(claim, cidr, owners.get(destination), hops, look);
      if (refusal !== undefined) {
        refusals.push({ id: claim.id, destination, ...refusal });
        continue;
      }
      owners.set(destination, claim.id);
      if (claim.table === undefined) {
        overlay.set(destination, claim.id);
        routed.add(cidr, claim.id);
        continue;
      }
      getOr(lan, claim.id, () => ({ gateways, destinations: [] })).destinations.push(destination);
      getOr(lanRouted, claim.table, () => new PrefixMap<string>()).add(cidr, claim.id);
    }
  }

  const lanInMain = [...lan].filter(([id]) => plan.lanRoutes.get(id)?.table === MAIN_TABLE).flatMap(([, { destinations }]) => destinations);
  const throws = throwsFor(plan, host, look.shields, lanInMain, overlay, routed);
  const kept = [...lanRouted].sort(([a], [b]) => a - b).flatMap(([table, prefixes]) => keptFor(host, look.shields, prefixes, table));
  return { overlay, lan, throws, kept, refusals };
}

function whyNot(
  claim: Claim,
  cidr: ParsedCidr,
  owner: string | undefined,
  hops: readonly Hop[],
  look: Lookup,
): Pick<Refusal, "why" | "detail"> | undefined {
  if (claim.table !== undefined && OWN_TABLES.has(claim.table)) return { why: "Protected", detail: `table ${claim.table}, which belongs to Isthmus` };
  const inside = hops.find((hop) => swallows(cidr, hop));
  if (inside !== undefined) return { why: "InsideOwnDestination", detail: inside.gateway };
  const shield = look.shields.over(cidr);
  // Paths between sites are the way to the overlay's own addresses.
  const between = betweenSites(claim.id) && shield?.carve === false;
  if (shield !== undefined && !between) return { why: "Protected", detail: shield.why };
  if (claim.table !== undefined && hops.every(({ bits }) => bits === undefined))
    return { why: "NotReachable", detail: hops.map(({ gateway }) => gateway).join(", ") };
  return owner === undefined || owner === claim.id ? undefined : { why: "Conflict", detail: owner };
}

function getOr<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const found = map.get(key) ?? make();
  map.set(key, found);
  return found;
}

/** In the order of `byAge`. What a node advertises was granted by an admin and comes before intents. */
function claimsInOrder(plan: Plan): Claim[] {
  const claims: Claim[] = [];
  for (const [name, peer] of plan.peers) {
    const near = isMeshPeer(plan, peer) || isPaired(plan, name);
    if (name !== plan.self.name && peer.a !== undefined && near)
      claims.push({ id: `peer/${name}`, created: -1, destinations: peer.a, table: undefined });
  }
  for (const [id, path] of plan.paths) {
    if (!serves(plan, id)) claims.push({ id, created: path.created, destinations: path.destinations, table: undefined });
  }
  for (const [id, route] of plan.lanRoutes) claims.push({ id, created: route.created, destinations: route.destinations, table: route.table });
  return claims.sort(byAge);
}

/** A gateway inside the destination is fine only while its connected prefix is the more specific one. */
function swallows(destination: ParsedCidr, { host, bits = 0 }: Hop): boolean {
  return contains(destination, host) && bits <= destination.bits;
}

/** Strictly inside a destination of ours, and not inside the overlay: there the overlay's own routes stand. */
function throwsFor(
  plan: Plan,
  host: HostFacts,
  shields: Protections,
  lanInMain: readonly Cidr[],
  overlay: ReadonlyMap<Cidr, string>,
  routed: PrefixMap<string>,
): Cidr[] {
  if (overlay.size === 0) return [];
  const ranges = overlayRanges(plan).map(parseCidr);
  const found = new Map<Cidr, ParsedCidr>();
  const consider = (text: Cidr): void => {
    if (found.has(text) || overlay.has(text)) return;
    const cidr = parsed(text);
    if (routed.covering(cidr, true) === undefined || ranges.some((range) => contains(range, cidr))) return;
    found.set(text, cidr);
  };
  for (const [cidr, { carve }] of shields.entries) if (carve) consider(cidr);
  for (const { dst } of host.mainRoutes) consider(dst);
  for (const dst of lanInMain) consider(dst);
  return [...found].sort(([, a], [, b]) => compareCidr(a, b)).map(([text]) => text);
}

function keptFor(host: HostFacts, shields: Protections, routed: PrefixMap<string>, table: number): Claims["kept"][number][] {
  const own = new PrefixMap<HostFacts["mainRoutes"][number]>();
  for (const route of [...host.mainRoutes].sort((a, b) => a.metric - b.metric)) own.add(parseCidr(route.dst), route);
  const found = new Map<Cidr, Claims["kept"][number]>();
  for (const [dst, { carve }] of shields.entries) {
    const cidr = parseCidr(dst);
    const ours = carve ? routed.covering(cidr, true) : undefined;
    if (ours === undefined) continue;
    const best = own.covering(cidr)?.value;
    if (table !== MAIN_TABLE) found.set(dst, { table, dst });
    // A route of main that is more specific than ours wins by itself; only what would have used a wider one needs help.
    else if (best?.via !== undefined && parseCidr(best.dst).bits <= ours.cidr.bits) {
      found.set(dst, { table, dst, via: best.via, ...(best.dev === undefined ? {} : { dev: best.dev }) });
    }
  }
  return [...found.values()].sort((a, b) => compareCidr(parseCidr(a.dst), parseCidr(b.dst)));
}
