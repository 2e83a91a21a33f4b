/**
 * Routes: the overlay table with its fallbacks and throws, the flow table of each link, the way back out of `ismgw0`,
 * and LAN routes in the table that the intent names.
 */
import { MAIN_TABLE, type NetworkPlan, type PathId } from "../model/plan.ts";
import type { Cidr, IpAddress, NodeName } from "../model/scalars.ts";
import { compareCidr, familyOf, hostCidr, type ParsedCidr } from "../net/ip.ts";
import { clientLinkAddress, gatewayLinkAddress, meshAddress, meshRanges, type AddressPair } from "../net/overlay.ts";
import { hasV6 } from "./addresses.ts";
import type { Claims } from "./claims.ts";
import { FALLBACK_METRIC, FLOW_GROUP, GATEWAY_INTERFACE, linkInterface, MESH_INTERFACE, METRIC } from "./layout.ts";
import type { Groups } from "./nexthops.ts";
import { openLinks, overlayAddresses } from "./pairs.ts";
import { parsed } from "./prefixes.ts";
import { linkHalves, overlayRanges, v6Ranges } from "./protection.ts";
import { deviceOf, isMeshPeer } from "./topology.ts";
import { OVERLAY_TABLE, RETURN_TABLE, routeKey, type DesiredInput, type HostFacts, type Route } from "./types.ts";
import { isGateway, LEAST_V6_MTU, linkCarriesV6, overlayMtu } from "./wireguard.ts";

/** What was made last: of one plan's claims the whole, of one network the single routes. Each for as long as its key lives. */
const ofClaims = new WeakMap<Claims, { readonly key: string; readonly routes: ReadonlyMap<string, Route> }>();
const ofNetwork = new WeakMap<NetworkPlan, MadeRoutes>();

/**
 * A failover changes groups, not routes: the same map comes back, and the diff of 2,000 routes costs nothing. Where one of them
 * changed the others are the same objects.
 */
export function desiredRoutes(input: DesiredInput, claims: Claims, groups: Groups): ReadonlyMap<string, Route> {
  const { plan, host } = input;
  const ends = [...input.links]
    .filter(([name]) => plan.peers.has(name))
    .map(([name, k]) => [k, plan.peers.get(name)!.i] as const)
    .sort(([a], [b]) => a - b);
  const underlay = [...plan.paths].filter(([id]) => goesUnderlay(input, id)).map(([id]) => id);
  // Below 1280 bytes the kernel has no IPv6 on our devices; the fallbacks still keep its traffic off the underlay.
  const carriesV6 = overlayMtu(input) >= LEAST_V6_MTU;
  const small = carriesV6 ? new Set([...input.links.keys()].filter((name) => !linkCarriesV6(input, name))) : new Set<NodeName>();
  const narrow = [...(input.pathMtu ?? [])].filter(([name]) => name !== input.measuring);
  const key = JSON.stringify([ends, [...groups.byPath], underlay, plan.self.index, isGateway(input), hasV6(host), carriesV6, [...small], narrow]);
  const last = ofClaims.get(claims);
  if (last?.key === key) return last.routes;
  const all = [
    ...overlayRoutes(input, claims, groups),
    ...linkRoutes(input, ends),
    ...flowRoutes(input, ends),
    ...narrowRoutes(input, narrow),
    ...lanRoutes(input, claims),
  ];
  const fits = v6Fits(input, groups, small);
  const usable = all.filter((route) => route.family === 4 || (hasV6(host) && (!overLink(route) || (carriesV6 && fits(route)))));
  const made = madeOf(usable, ofNetwork.get(plan.network));
  ofNetwork.set(plan.network, made);
  const routes = sorted(made);
  ofClaims.set(claims, { key, routes });
  return routes;
}

/**
 * A link below 1280 bytes has no IPv6. A path that may move to it has none by any link, and no flow is pinned in IPv6: a group that
 * loses its IPv6 with a failover would be refused by the kernel while routes stand on it.
 */
function v6Fits({ links, plan }: DesiredInput, groups: Groups, small: ReadonlySet<NodeName>): (route: Route) => boolean {
  if (small.size === 0) return () => true;
  const devices = new Set([...small].map((name) => linkInterface(links.get(name) ?? 0)));
  const fitting = new Set(
    [...groups.byPath].flatMap(([id, slot]) => (plan.paths.get(id as PathId)?.gateways.some(({ node }) => small.has(node)) === true ? [] : [slot])),
  );
  return ({ dev, nexthopId }) => (nexthopId === undefined ? dev === undefined || !devices.has(dev) : fitting.has(nexthopId));
}

/** Peers to which fewer bytes get through than by `ism0` as a whole. A peer beyond a link has the link's own MTU. */
function narrowRoutes({ plan }: DesiredInput, narrow: readonly (readonly [NodeName, number])[]): Route[] {
  const src = meshAddress(plan.network, plan.self.index);
  return narrow.flatMap(([name, mtu]) => {
    const peer = plan.peers.get(name);
    if (peer === undefined || name === plan.self.name || !isMeshPeer(plan, peer)) return [];
    const { v4, v6 } = meshAddress(plan.network, peer.i);
    const sixth: Route = mtu >= LEAST_V6_MTU ? { ...device(hostCidr(v6), MESH_INTERFACE, src), mtu } : plain(hostCidr(v6), "unreachable");
    return [{ ...device(hostCidr(v4), MESH_INTERFACE, src), mtu }, sixth];
  });
}

/** Only where the intent says so, and only while no gateway was ever alive (I4). */
function goesUnderlay(input: DesiredInput, id: string): boolean {
  const path = input.plan.paths.get(id as never);
  return path?.onNoGateway === "Underlay" && (input.choices.get(id as never)?.active.length ?? 0) === 0;
}

function overlayRoutes(input: DesiredInput, claims: Claims, groups: Groups): Route[] {
  const { plan } = input;
  const src = meshAddress(plan.network, plan.self.index);
  const routes: Route[] = [];
  const toward = (dev: string | undefined, dst: Cidr): Route[] => (dev === undefined ? [] : [device(dst, dev, src)]);
  for (const [dst, owner] of claims.overlay) {
    const group = groups.byPath.get(owner);
    if (owner.startsWith("peer/")) routes.push(...toward(deviceOf(plan, input.links, owner.slice(5) as NodeName), dst), fallback(dst));
    else if (goesUnderlay(input, owner)) routes.push(plain(dst, "throw"));
    else if (group === undefined) routes.push(fallback(dst));
    else routes.push({ ...plain(dst, "unicast"), nexthopId: group, src: of(src, dst) }, fallback(dst));
  }
  for (const dst of claims.throws) routes.push(plain(dst, "throw"));
  for (const range of overlayRanges(plan)) routes.push(fallback(range));
  if (plan.network.topology !== "SiteGateways") return [...routes, ...meshRanges(plan.network).map((range) => device(range, MESH_INTERFACE, src))];
  for (const [name, { i }] of plan.peers) {
    if (name === plan.self.name) continue;
    for (const address of Object.values(meshAddress(plan.network, i))) routes.push(...toward(deviceOf(plan, input.links, name), hostCidr(address)));
  }
  return routes;
}

/** Link addresses: each gateway's by its link, all clients' by `ismgw0`, but for those of a pairwise link. */
function linkRoutes(input: DesiredInput, ends: readonly (readonly [number, number])[]): Route[] {
  const { plan } = input;
  const { network, self } = plan;
  const routes: Route[] = [];
  for (const [k, index] of ends) {
    const { v4, v6 } = gatewayLinkAddress(network, index);
    for (const address of [v4, v6]) routes.push(device(hostCidr(address), linkInterface(k), clientLinkAddress(network, self.index)));
  }
  if (!isGateway(input)) return routes;
  const own = gatewayLinkAddress(network, self.index);
  for (const range of [linkHalves(plan).clients, v6Ranges(plan).clients]) routes.push(device(range, GATEWAY_INTERFACE, own));
  for (const { k, peer, paired } of openLinks(input)) {
    if (paired)
      for (const address of Object.values(clientLinkAddress(network, peer.i))) routes.push(device(hostCidr(address), linkInterface(k), own));
  }
  for (const dst of DEFAULTS) {
    routes.push({ ...plain(dst, "unicast", RETURN_TABLE), dev: GATEWAY_INTERFACE }, plain(dst, "unreachable", RETURN_TABLE, FALLBACK_METRIC));
  }
  return routes;
}

function flowRoutes(input: DesiredInput, ends: readonly (readonly [number, number])[]): Route[] {
  const src = meshAddress(input.plan.network, input.plan.self.index);
  const routes = ends.flatMap(([k]) =>
    DEFAULTS.map((dst): Route => ({ ...plain(dst, "unicast", OVERLAY_TABLE + k), nexthopId: FLOW_GROUP + k, src: of(src, dst) })),
  );
  for (const { k, peer, paired } of openLinks(input)) {
    if (!paired) continue;
    // The other end itself is there and nowhere else, wherever its link's flows go.
    for (const dst of overlayAddresses(input.plan, peer))
      routes.push({ ...plain(dst, "unicast", OVERLAY_TABLE + k), dev: linkInterface(k), src: of(src, dst) });
  }
  return routes;
}

function lanRoutes(input: DesiredInput, claims: Claims): Route[] {
  const routes: Route[] = [];
  const foreign = leastMetrics(input.host);
  for (const [id, { gateways, destinations }] of claims.lan) {
    const plan = input.plan.lanRoutes.get(id);
    if (plan === undefined) continue;
    for (const dst of destinations) {
      const family = familyOf(dst);
      const hops = gateways.filter((gateway) => familyOf(gateway) === family).sort();
      const base = { family, dst, table: plan.table, type: "unicast", metric: plan.metric ?? lanMetric(foreign.get(dst), family) } as const;
      if (hops.length === 1) routes.push({ ...base, via: hops[0]! });
      else if (hops.length > 1) routes.push({ ...base, multipath: hops.map((via) => ({ via })) });
    }
  }
  for (const { table, dst, via, dev } of claims.kept) {
    const base = { family: familyOf(dst), dst, table, metric: METRIC } as const;
    if (table !== MAIN_TABLE) routes.push({ ...base, type: "throw" });
    else if (via !== undefined) routes.push({ ...base, type: "unicast", via, ...(dev === undefined ? {} : { dev }) });
  }
  return routes;
}

/** Before every route of others for the same destination; 0 is not a metric in IPv6 (the kernel would write 1024). */
function lanMetric(foreign: number | undefined, family: 4 | 6): number {
  const usual = family === 4 ? 0 : METRIC;
  return foreign === undefined ? usual : Math.max(family === 4 ? 0 : 1, Math.min(usual, foreign - 1));
}

function leastMetrics(host: HostFacts): Map<Cidr, number> {
  const least = new Map<Cidr, number>();
  for (const { dst, metric } of host.mainRoutes) least.set(dst, Math.min(metric, least.get(dst) ?? metric));
  return least;
}

const DEFAULTS = ["0.0.0.0/0", "::/0"] as readonly string[] as readonly Cidr[];

function plain(dst: Cidr, type: Route["type"], table: number = OVERLAY_TABLE, metric: number = METRIC): Route {
  return { family: familyOf(dst), dst, table, type, metric };
}

function fallback(dst: Cidr): Route {
  return plain(dst, "unreachable", OVERLAY_TABLE, FALLBACK_METRIC);
}

function device(dst: Cidr, dev: string, src: AddressPair): Route {
  return { ...plain(dst, "unicast"), dev, src: of(src, dst) };
}

function of({ v4, v6 }: AddressPair, dst: Cidr): IpAddress {
  return familyOf(dst) === 4 ? v4 : v6;
}

function overLink(route: Route): boolean {
  return route.nexthopId !== undefined || route.dev?.startsWith("ism") === true;
}

/** A route with what its place among the others hangs on. */
interface Made {
  readonly route: Route;
  readonly cidr: ParsedCidr;
  readonly key: string;
}

/** By destination. */
type MadeRoutes = ReadonlyMap<Cidr, readonly Made[]>;

/** A route that says the same as one of the run before is that one, with its key. */
function madeOf(routes: readonly Route[], before: MadeRoutes | undefined): MadeRoutes {
  const all = new Map<Cidr, Made[]>();
  for (const route of routes) {
    const made = before?.get(route.dst)?.find((one) => sameIn(one.route, route)) ?? { route, cidr: parsed(route.dst), key: routeKey(route) };
    const list = all.get(route.dst);
    if (list === undefined) all.set(route.dst, [made]);
    else list.push(made);
  }
  return all;
}

/** Of one destination. */
function sameIn(a: Route, b: Route): boolean {
  if (a.table !== b.table || a.metric !== b.metric || a.type !== b.type || a.nexthopId !== b.nexthopId || a.via !== b.via) return false;
  if (a.dev !== b.dev || a.src !== b.src || a.mtu !== b.mtu) return false;
  return a.multipath === b.multipath || JSON.stringify(a.multipath) === JSON.stringify(b.multipath);
}

function sorted(made: MadeRoutes): ReadonlyMap<string, Route> {
  const all: Made[] = [];
  for (const some of made.values()) all.push(...some);
  all.sort((a, b) => a.route.table - b.route.table || compareCidr(a.cidr, b.cidr) || a.route.metric - b.route.metric);
  const routes = new Map<string, Route>();
  for (const { key, route } of all) routes.set(key, route);
  return routes;
}
