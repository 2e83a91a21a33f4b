/**
 * What turns the observed kernel state into the desired one. Make before break: nft, links, peers, addresses, nexthops,
 * routes, rules, sysctls are added first, and what is no longer wanted goes last.
 */
import { MAIN_TABLE } from "../model/plan.ts";
import { applyOperations } from "./apply-model.ts";
import { OWN_TABLES } from "./layout.ts";
import type { Operation } from "./operations.ts";
import { type KernelState, type Nexthop, type Route, type WgInterface, type WgPeer } from "./types.ts";

export { applyOperations } from "./apply-model.ts";
export { describeFor, describeOperation } from "./describe.ts";
export { EMPTY_KERNEL, type Operation } from "./operations.ts";

/**
 * Empty for equal states. A peer's endpoint is written when the peer is new, or when `desired` names one that differs
 * from the observed: leave it out of `desired` to keep where a live peer roamed to.
 */
export function diffKernel(desired: KernelState, observed: KernelState): Operation[] {
  if (desired === observed) return [];
  const rebuilt = brokenLinks(desired, observed);
  // A link that is made anew takes its nexthops, groups and routes with it: they are missing from here on.
  const base = rebuilt.length === 0 ? observed : withoutSettings(applyOperations(observed, rebuilt), rebuilt);
  const links = linkOperations(desired, base);
  const routes = routeOperations(desired, base);
  const nexthops = nexthopOperations(desired, base);
  return [
    ...rebuilt,
    // The leak guard stands before anything can be said as an overlay address (I4).
    ...nftOperations(desired, base),
    ...links.add,
    ...[...desired.addresses].filter((address) => !base.addresses.has(address)).map((address): Operation => ({ op: "address.add", address })),
    ...nexthops.add,
    ...routes.add,
    ...missing(desired.rules, base.rules).map((rule): Operation => ({ op: "rule.add", rule })),
    // Forwarding among them: whoever forwards before the routes stand sends a LAN's packets out in the clear (I4).
    ...sysctlOperations(desired, base),
    ...hostsOperations(desired, base),
    ...missing(base.rules, desired.rules).map((rule): Operation => ({ op: "rule.remove", rule })),
    ...routes.remove,
    ...nexthops.remove,
    ...[...base.addresses].filter((address) => !desired.addresses.has(address)).map((address): Operation => ({ op: "address.remove", address })),
    ...links.remove,
    ...[...observed.sysctls.keys()]
      .filter((name) => !desired.sysctls.has(name))
      .toReversed()
      .map((name): Operation => ({ op: "sysctl.restore", name })),
    ...(desired.nft === undefined && base.nft !== undefined ? [{ op: "nft.remove" } as const] : []),
  ];
}

/** An interface without a key of its own is a device whose WireGuard process is gone or that someone else made in our name. */
function brokenLinks(desired: KernelState, observed: KernelState): (Operation & { op: "link.remove" })[] {
  if (desired.wireguard === observed.wireguard) return [];
  return [...observed.wireguard.values()]
    .filter(({ name, broken }) => broken === true && desired.wireguard.has(name))
    .map(({ name }) => ({ op: "link.remove", name }));
}

/** A device takes its sysctls with it; a new one of that name has others. */
function withoutSettings(state: KernelState, removed: readonly { readonly name: string }[]): KernelState {
  const lost = (setting: string): boolean => removed.some(({ name }) => setting.includes(`.conf.${name}.`));
  return { ...state, sysctls: new Map([...state.sysctls].filter(([name]) => !lost(name))) };
}

/**
 * Peers of links that stand come first: making a link takes a tenth of a second where it is a process of its own, and a newcomer's
 * first handshake with the mesh interface does not wait for that.
 */
function linkOperations(desired: KernelState, observed: KernelState): { add: Operation[]; remove: Operation[] } {
  const early: Operation[] = [];
  const links: Operation[] = [];
  const peers: Operation[] = [];
  const remove: Operation[] = [];
  if (desired.wireguard === observed.wireguard) return { add: [], remove };
  for (const link of desired.wireguard.values()) {
    const now = observed.wireguard.get(link.name);
    if (now === undefined) links.push({ op: "link.add", link });
    else if (!sameLink(link, now)) links.push({ op: "link.set", link, before: now });
    const before = now?.peers ?? new Map<never, never>();
    // A prefix that moves between peers is written last where it ends up: whole lists are complete by then.
    const own = [...link.peers.values()].flatMap((peer) => peerOperations(link.name, peer, before.get(peer.publicKey)));
    (now !== undefined && sameLink(link, now) ? early : peers).push(...own);
    for (const publicKey of before.keys()) if (!link.peers.has(publicKey)) remove.push({ op: "peer.remove", link: link.name, publicKey });
  }
  for (const name of observed.wireguard.keys()) if (!desired.wireguard.has(name)) remove.push({ op: "link.remove", name });
  return { add: [...early, ...links, ...peers], remove };
}

function sameLink(a: WgInterface, b: WgInterface): boolean {
  return a.listenPort === b.listenPort && a.fwmark === b.fwmark && a.mtu === b.mtu && a.publicKey === b.publicKey && a.up === b.up;
}

function peerOperations(link: string, peer: WgPeer, before: WgPeer | undefined): Operation[] {
  if (before === peer) return [];
  if (before === undefined) return [{ op: "peer.add", link, peer }];
  const have = new Set(before.allowedIps);
  const want = new Set(peer.allowedIps);
  const add = peer.allowedIps.filter((cidr) => !have.has(cidr));
  const remove = before.allowedIps.filter((cidr) => !want.has(cidr));
  const endpoint = peer.endpoint !== undefined && peer.endpoint !== before.endpoint ? { endpoint: peer.endpoint } : {};
  const same = peer.keepalive === before.keepalive && before.presharedKey === undefined;
  if (add.length === 0 && remove.length === 0 && same && endpoint.endpoint === undefined) return [];
  return [{ op: "peer.set", link, peer, before, add, remove, ...endpoint }];
}

/** Devices before the groups that hold them; groups are removed before devices, and after the routes that use them. */
function nexthopOperations(desired: KernelState, observed: KernelState): { add: Operation[]; remove: Operation[] } {
  if (desired.nexthops === observed.nexthops) return { add: [], remove: [] };
  const groupsLast = (a: Nexthop, b: Nexthop): number => Number(a.group !== undefined) - Number(b.group !== undefined) || a.id - b.id;
  const add = [...desired.nexthops.values()].sort(groupsLast).flatMap((nexthop): Operation[] => {
    const before = observed.nexthops.get(nexthop.id);
    if (before !== undefined && sameNexthop(nexthop, before)) return [];
    return [{ op: "nexthop.replace", nexthop, ...(before === undefined ? {} : { before }) }];
  });
  const gone = [...observed.nexthops.values()].filter(({ id }) => !desired.nexthops.has(id));
  return {
    add,
    remove: gone
      .sort(groupsLast)
      .toReversed()
      .map((nexthop) => ({ op: "nexthop.remove", nexthop })),
  };
}

function sameNexthop(a: Nexthop, b: Nexthop): boolean {
  return a.dev === b.dev && (a.group ?? []).join() === (b.group ?? []).join();
}

/** A wide route never stands without the protection of its `throw` routes, nor traffic without either route or fallback. */
const ORDER = { throw: 0, unicast: 1, unreachable: 2, blackhole: 2 } as const;

/** Desired routes, and the observed ones that were found to be the same: both stay the same objects while nothing changes. */
const sameRoutes = new WeakMap<KernelState["routes"], KernelState["routes"]>();

function routeOperations(desired: KernelState, observed: KernelState): { add: Operation[]; remove: Operation[] } {
  if (desired.routes === observed.routes || sameRoutes.get(desired.routes) === observed.routes) return { add: [], remove: [] };
  const add: Operation[] = [];
  const gone: Route[] = [];
  for (const [key, route] of desired.routes) {
    const before = observed.routes.get(key);
    if (before === route || (before !== undefined && sameRoute(route, before))) continue;
    if (before !== undefined) add.push({ op: "route.replace", route, before });
    else add.push(OWN_TABLES.has(route.table) ? { op: "route.replace", route } : { op: "route.add", route });
  }
  for (const [key, route] of observed.routes) if (!desired.routes.has(key)) gone.push(route);
  if (add.length === 0 && gone.length === 0) sameRoutes.set(desired.routes, observed.routes);
  // In main a carve-out must stand before the wide route that it shields from; it is the longer prefix.
  const rank = (route: Route): number => (route.table === MAIN_TABLE ? 200 - prefixLength(route) : ORDER[route.type]);
  add.sort((a, b) => routeRank(a, rank) - routeRank(b, rank));
  gone.sort((a, b) => rank(b) - rank(a));
  return { add, remove: gone.map((route) => ({ op: "route.remove", route })) };
}

function routeRank(operation: Operation, rank: (route: Route) => number): number {
  return operation.op === "route.add" || operation.op === "route.replace" ? rank(operation.route) : 0;
}

function prefixLength({ dst }: Route): number {
  return Number(dst.slice(dst.indexOf("/") + 1));
}

/** The kernel fills in the device of a gateway that was named without one. */
export function sameRoute(desired: Route, observed: Route): boolean {
  if (desired.type !== observed.type || desired.nexthopId !== observed.nexthopId || desired.via !== observed.via || desired.src !== observed.src)
    return false;
  if (desired.mtu !== observed.mtu) return false;
  if (desired.dev !== undefined ? desired.dev !== observed.dev : desired.via === undefined && observed.dev !== undefined) return false;
  const hops = (route: Route): string =>
    (route.multipath ?? [])
      .map(({ via }) => via)
      .sort()
      .join();
  return hops(desired) === hops(observed);
}

function nftOperations({ nft: desired }: KernelState, { nft: observed }: KernelState): Operation[] {
  if (desired === undefined || desired === observed) return [];
  if (observed === undefined) return [{ op: "nft.replace", table: desired }];
  if (desired.body !== observed.body) return [{ op: "nft.replace", table: desired, before: observed }];
  return [...desired.sets].flatMap(([set, wanted]): Operation[] => {
    const have = new Set(observed.sets.get(set));
    const want = new Set(wanted);
    const add = wanted.filter((element) => !have.has(element));
    const remove = [...have].filter((element) => !want.has(element));
    return add.length === 0 && remove.length === 0 ? [] : [{ op: "nft.elements", set, add, remove }];
  });
}

function sysctlOperations(desired: KernelState, observed: KernelState): Operation[] {
  return [...desired.sysctls].flatMap(([name, value]): Operation[] => {
    const before = observed.sysctls.get(name);
    return before === value ? [] : [{ op: "sysctl.set", name, value, ...(before === undefined ? {} : { before }) }];
  });
}

function hostsOperations({ hosts: desired }: KernelState, { hosts: observed }: KernelState): Operation[] {
  const text = (hosts: KernelState["hosts"]): string => JSON.stringify([...hosts].sort(([a], [b]) => (a < b ? -1 : 1)));
  return desired === observed || text(desired) === text(observed) ? [] : [{ op: "hosts.set", hosts: desired, before: observed }];
}

function missing<T>(from: ReadonlyMap<string, T>, inMap: ReadonlyMap<string, T>): T[] {
  return from === inMap ? [] : [...from].filter(([key]) => !inMap.has(key)).map(([, value]) => value);
}
