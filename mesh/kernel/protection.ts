/** What no plan may cut off (I9), and the overlay's own ranges. */
import type { NetworkPlan, Plan } from "../model/plan.ts";
import type { Cidr, IpAddress } from "../model/scalars.ts";
import { contains, formatCidr, hostCidr, overlaps, parseCidr, splitEndpoint, type ParsedCidr } from "../net/ip.ts";
import { PrefixMap } from "./prefixes.ts";
import type { HostFacts } from "./types.ts";

export interface Protection {
  readonly why: string;
  /** Overlay ranges have routes of their own and need no `throw`. */
  readonly carve: boolean;
}

export interface Protections {
  /** The narrowest one that holds all of a prefix. */
  readonly over: (cidr: ParsedCidr) => Protection | undefined;
  readonly entries: readonly (readonly [Cidr, Protection])[];
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

/** What kind of address this is that means the same on every machine and is never steered; absent for an ordinary one. */
export function specialKind(address: IpAddress): string | undefined {
  const target = parseCidr(hostCidr(address));
  return SPECIAL.find(([cidr]) => contains(parseCidr(cidr), target))?.[1];
}

/** Prefixes that need no router, with their interface. */
export function connectedPrefixes(host: HostFacts): PrefixMap<string> {
  const map = new PrefixMap<string>();
  for (const { prefix, ifname } of host.underlay) map.add(parseCidr(prefix), ifname);
  for (const route of host.mainRoutes) if (route.via === undefined && route.dev !== undefined) map.add(parseCidr(route.dst), route.dev);
  return map;
}

/** What was made last in a network, for as long as its plan lives: plans and host facts change much more often than what they protect. */
const made = new WeakMap<NetworkPlan, Protections>();

/** The same object while the same is protected: it remembers what it said of each of 2,000 destinations. */
export function protections(plan: Plan, host: HostFacts): Protections {
  const entries = protectedPrefixes(plan, host);
  const last = made.get(plan.network);
  if (last !== undefined && sameEntries(last.entries, entries)) return last;
  const protections = { over: lookUp(entries), entries };
  made.set(plan.network, protections);
  return protections;
}

function sameEntries(a: Protections["entries"], b: Protections["entries"]): boolean {
  return a.length === b.length && a.every(([cidr, { why, carve }], i) => cidr === b[i]![0] && why === b[i]![1].why && carve === b[i]![1].carve);
}

const REMEMBERED = 20_000;

function lookUp(entries: Protections["entries"]): Protections["over"] {
  const map = new PrefixMap<Protection>();
  for (const [cidr, value] of entries) map.add(parseCidr(cidr), value);
  // By object: a parsed prefix is the same one whenever its text is met again (`parsed`).
  const said = new Map<ParsedCidr, Protection | undefined>();
  return (cidr) => {
    const earlier = said.get(cidr);
    if (earlier !== undefined || said.has(cidr)) return earlier;
    const found = map.covering(cidr)?.value;
    if (said.size >= REMEMBERED) said.clear();
    said.set(cidr, found);
    return found;
  };
}

function protectedPrefixes(plan: Plan, host: HostFacts): Protections["entries"] {
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
    for (const [i, endpoint] of peer.e.entries()) {
      // What a node only says of itself moves nobody's traffic (I11); WireGuard's own packets keep their way by their mark.
      if ((((peer.h ?? 0) >> i) & 1) === 1) continue;
      const address = addressOf(endpoint);
      // A private address is dialled inside its own site only; elsewhere it may be a machine behind that site's gateways.
      if (address !== undefined && (peer.s === plan.self.site || !isPrivate(address))) put(hostCidr(address), `the WireGuard endpoint of ${name}`);
    }
  }
  for (const { address, why } of host.protectedAddresses) put(hostCidr(address), why);
  return list;
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
