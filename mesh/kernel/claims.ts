/**
 * Who owns which destination on this node. Two intents that name one destination: the older keeps it. What no plan may
 * cut off (I9) is refused or carved out.
 */
import type { PathId, Plan } from "../model/plan.ts";
import type { Cidr, IpAddress } from "../model/scalars.ts";
import { compareCidr, contains, formatCidr, hostCidr, overlaps, parseCidr, splitEndpoint, type ParsedCidr } from "../net/ip.ts";
import { MAIN_TABLE, OWN_TABLES } from "./layout.ts";
import { parsedList, PrefixMap } from "./prefixes.ts";
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

interface Protection {
  readonly why: string;
  /** Overlay ranges have routes of their own and need no `throw`. */
  readonly carve: boolean;
}

interface Claim {
  readonly id: string;
  readonly created: number;
  readonly destinations: readonly Cidr[];
  readonly table: number | undefined;
}

const SPECIAL: readonly (readonly [string, string])[] = [
  ["127.0.0.0/8", "loopback"],
  ["::1/128", "loopback"],
  ["169.254.0.0/16", "link-local addresses"],
  ["fe80::/10", "link-local addresses"],
  ["224.0.0.0/4", "multicast"],
  ["ff00::/8", "multicast"],
  ["255.255.255.255/32", "broadcast"],
];
const PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"].map(parseCidr);

let last: { plan: Plan; host: HostFacts; lan: string; claims: Claims } | undefined;

/** The same plan, host and LAN choices give the same object: elections change often, claims do not. */
export function claimsOf(input: Pick<DesiredInput, "plan" | "host" | "lanChoices">): Claims {
  const lan = JSON.stringify([...input.lanChoices].sort());
  if (last?.plan !== input.plan || last.host !== input.host || last.lan !== lan) {
    last = { plan: input.plan, host: input.host, lan, claims: resolve(input) };
  }
  return last.claims;
}

/** Whether this node is a gateway of the path: it then uses its own uplink and routes nothing. */
export function serves(plan: Plan, id: PathId): boolean {
  return plan.serves.has(id) || (plan.paths.get(id)?.gateways.some(({ node }) => node === plan.self.name) ?? false);
}

function resolve({ plan, host, lanChoices }: Pick<DesiredInput, "plan" | "host" | "lanChoices">): Claims {
  const protectedBy = protections(plan, host);
  const connected = connectedPrefixes(host);
  const refusals: Refusal[] = [];
  const overlay = new Map<Cidr, string>();
  const lan = new Map<string, { gateways: IpAddress[]; destinations: Cidr[] }>();
  const owners = new Map<string, string>();
  const routed = new PrefixMap<string>();
  const lanRouted = new Map<number, PrefixMap<string>>();

  for (const claim of claimsInOrder(plan)) {
    const chosen = claim.table === undefined ? [] : (lanChoices.get(claim.id) ?? plan.lanRoutes.get(claim.id)?.gateways.slice(0, 1) ?? []);
    const gateways = chosen.filter((gateway) => connected.covering(parseCidr(hostCidr(gateway))) !== undefined);
    const parsed = parsedList(claim.destinations);
    claim.destinations.forEach((destination, i) => {
      const cidr = parsed[i]!;
      const refuse = (why: Refusal["why"], detail: string): void => void refusals.push({ id: claim.id, destination, why, detail });
      if (claim.table !== undefined) {
        if (OWN_TABLES.has(claim.table)) return refuse("Protected", `table ${claim.table}, which belongs to Isthmus`);
        const inside = chosen.find((gateway) => swallows(cidr, gateway, connected));
        if (inside !== undefined) return refuse("InsideOwnDestination", inside);
      }
      const shield = protectedBy.covering(cidr);
      if (shield !== undefined) return refuse("Protected", shield.value.why);
      if (claim.table !== undefined && gateways.length === 0) return refuse("NotReachable", chosen.join(", "));
      const domain = claim.table === undefined || claim.table === MAIN_TABLE ? "" : String(claim.table);
      const owner = owners.get(`${domain}|${destination}`);
      if (owner !== undefined && owner !== claim.id) return refuse("Conflict", owner);
      if (owner !== undefined) return;
      owners.set(`${domain}|${destination}`, claim.id);
      if (claim.table === undefined) {
        overlay.set(destination, claim.id);
        routed.add(cidr, claim.id);
        return;
      }
      const entry = lan.get(claim.id) ?? { gateways, destinations: [] };
      entry.destinations.push(destination);
      lan.set(claim.id, entry);
      const inTable = lanRouted.get(claim.table) ?? new PrefixMap<string>();
      inTable.add(cidr, claim.id);
      lanRouted.set(claim.table, inTable);
    });
  }

  const lanInMain = [...lan].filter(([id]) => plan.lanRoutes.get(id)?.table === MAIN_TABLE).flatMap(([, { destinations }]) => destinations);
  const throws = throwsFor(plan, host, protectedBy.entries, lanInMain, overlay, routed);
  const kept = [...lanRouted].sort(([a], [b]) => a - b).flatMap(([table, prefixes]) => keptFor(host, protectedBy.entries, prefixes, table));
  return { overlay, lan, throws, kept, refusals };
}

/** Oldest first, ties by id. What a node advertises was granted by an admin and comes before intents. */
function claimsInOrder(plan: Plan): Claim[] {
  const claims: Claim[] = [];
  for (const [name, peer] of plan.peers) {
    if (name !== plan.self.name && peer.a !== undefined) claims.push({ id: `peer/${name}`, created: -1, destinations: peer.a, table: undefined });
  }
  for (const [id, path] of plan.paths) {
    if (!serves(plan, id)) claims.push({ id, created: path.created, destinations: path.destinations, table: undefined });
  }
  for (const [id, route] of plan.lanRoutes) claims.push({ id, created: route.created, destinations: route.destinations, table: route.table });
  return claims.sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
}

/** A gateway inside the destination is fine only while its connected prefix is the more specific one. */
function swallows(destination: ParsedCidr, gateway: IpAddress, connected: PrefixMap<string>): boolean {
  const host = parseCidr(hostCidr(gateway));
  return contains(destination, host) && (connected.covering(host)?.cidr.bits ?? 0) <= destination.bits;
}

function connectedPrefixes(host: HostFacts): PrefixMap<string> {
  const map = new PrefixMap<string>();
  for (const { prefix, ifname } of host.underlay) map.add(parseCidr(prefix), ifname);
  for (const route of host.mainRoutes) if (route.via === undefined && route.dev !== undefined) map.add(parseCidr(route.dst), route.dev);
  return map;
}

function protections(plan: Plan, host: HostFacts): PrefixMap<Protection> & { readonly entries: readonly (readonly [Cidr, Protection])[] } {
  const list: (readonly [Cidr, Protection])[] = [];
  const put = (cidr: Cidr, why: string, carve = true): void => void list.push([cidr, { why, carve }]);
  for (const range of overlayRanges(plan)) put(range, "the overlay's own addresses", false);
  for (const [cidr, why] of SPECIAL) put(cidr as Cidr, why);
  for (const { prefix, ifname } of host.underlay) put(prefix, `this node's own network on ${ifname}`);
  for (const route of host.mainRoutes) {
    if (route.via === undefined && route.dev !== undefined && !route.dst.endsWith("/0")) put(route.dst, `this node's own network on ${route.dev}`);
    if (route.via !== undefined) put(hostCidr(route.via), "this node's router");
  }
  for (const subnet of plan.self.subnets) put(subnet, "this node's own site");
  for (const controller of plan.network.controllers) {
    const address = addressOf(controller);
    if (address !== undefined) put(hostCidr(address), `the controller ${controller}`);
  }
  for (const [name, peer] of plan.peers) {
    if (name === plan.self.name) continue;
    for (const endpoint of peer.e) {
      const address = addressOf(endpoint);
      // A private address is dialled inside its own site only; elsewhere it may be a machine behind that site's gateways.
      if (address !== undefined && (peer.s === plan.self.site || !isPrivate(address))) put(hostCidr(address), `the WireGuard endpoint of ${name}`);
    }
  }
  for (const { address, why } of host.protectedAddresses) put(hostCidr(address), why);
  const map = new PrefixMap<Protection>();
  for (const [cidr, value] of list) map.add(parseCidr(cidr), value);
  return Object.assign(map, { entries: list });
}

/** Strictly inside a destination of ours, and not inside the overlay: there the overlay's own routes stand. */
function throwsFor(plan: Plan, host: HostFacts, shields: readonly (readonly [Cidr, Protection])[], lanInMain: readonly Cidr[], overlay: ReadonlyMap<Cidr, string>, routed: PrefixMap<string>): Cidr[] {
  const ranges = overlayRanges(plan).map(parseCidr);
  const found = new Map<Cidr, ParsedCidr>();
  const consider = (text: Cidr): void => {
    if (found.has(text) || overlay.has(text)) return;
    const cidr = parseCidr(text);
    if (routed.covering(cidr, true) === undefined || ranges.some((range) => contains(range, cidr))) return;
    found.set(text, cidr);
  };
  for (const [cidr, { carve }] of shields) if (carve) consider(cidr);
  for (const { dst } of host.mainRoutes) consider(dst);
  for (const dst of lanInMain) consider(dst);
  return [...found].sort(([, a], [, b]) => compareCidr(a, b)).map(([text]) => text);
}

function keptFor(host: HostFacts, shields: readonly (readonly [Cidr, Protection])[], routed: PrefixMap<string>, table: number): Claims["kept"][number][] {
  const own = new PrefixMap<HostFacts["mainRoutes"][number]>();
  for (const route of [...host.mainRoutes].sort((a, b) => a.metric - b.metric)) own.add(parseCidr(route.dst), route);
  const found = new Map<Cidr, Claims["kept"][number]>();
  for (const [dst, { carve }] of shields) {
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

export function overlayRanges(plan: Plan): Cidr[] {
  return [plan.network.overlay.v4, plan.network.overlay.v6, plan.network.links.v4];
}

function isPrivate(address: IpAddress): boolean {
  const cidr = parseCidr(hostCidr(address));
  return PRIVATE.some((range) => overlaps(range, cidr));
}

/** Controllers may be written by name; the host facts hold what the names resolve to. */
function addressOf(endpoint: string): IpAddress | undefined {
  try {
    return splitEndpoint(endpoint).address;
  } catch {
    return undefined;
  }
}

/** The first /64s of the overlay's v6 range: mesh, client links, gateway links (`mesh/net/overlay.ts`). */
export function v6Ranges(plan: Plan): { readonly mesh: Cidr; readonly clients: Cidr; readonly gateways: Cidr } {
  const base = parseCidr(plan.network.overlay.v6);
  const at = (n: bigint): Cidr => formatCidr({ family: 6, value: base.value + (n << 64n), bits: 64 });
  return { mesh: at(0n), clients: at(1n), gateways: at(2n) };
}

/** Lower half of the link range (clients) and upper half (gateways). */
export function linkHalves(plan: Plan): { readonly clients: Cidr; readonly gateways: Cidr } {
  const range = parseCidr(plan.network.links.v4);
  const bits = range.bits + 1;
  return {
    clients: formatCidr({ ...range, bits }),
    gateways: formatCidr({ family: 4, value: range.value + (1n << BigInt(32 - bits)), bits }),
  };
}
