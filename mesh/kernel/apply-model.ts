/**
 * What the kernel makes of operations, as far as our own state goes. The agent uses it to know the state after an apply
 * without observing; property tests hold `diffKernel` against it.
 */
import type { Operation } from "./operations.ts";
import { routeKey, ruleKey, type KernelState, type Nexthop, type Route, type WgInterface, type WgPeer } from "./types.ts";

/** The state after the operations; `state` is left as it is. */
export function applyOperations(state: KernelState, operations: readonly Operation[]): KernelState {
  if (operations.length === 0) return state;
  const draft: Draft = { ...state, copied: new Set() };
  for (const operation of operations) applyOne(draft, operation);
  const { copied: _, ...after } = draft;
  return after;
}

/** Parts are copied before their first change only: one route among 2,000 copies one map. */
type Draft = { -readonly [K in keyof KernelState]: KernelState[K] } & { readonly copied: Set<string> };

function applyOne(draft: Draft, operation: Operation): void {
  switch (operation.op) {
    case "link.add":
      own(draft, "wireguard").set(operation.link.name, { ...operation.link, peers: new Map() });
      return;
    case "link.set": {
      const now = draft.wireguard.get(operation.link.name);
      if (now !== undefined) own(draft, "wireguard").set(now.name, { ...operation.link, peers: now.peers });
      return;
    }
    case "link.remove":
      own(draft, "wireguard").delete(operation.name);
      flushDevice(draft, operation.name);
      return;
    case "peer.add":
    case "peer.reset":
      changePeers(draft, operation.link, (peers) => {
        takeFromOthers(peers, operation.peer);
        peers.set(operation.peer.publicKey, operation.peer);
      });
      return;
    case "peer.set":
      changePeers(draft, operation.link, (peers) => {
        takeFromOthers(peers, operation.peer);
        const endpoint = operation.endpoint ?? operation.before.endpoint;
        const { presharedKey: _, ...known } = peers.get(operation.peer.publicKey) ?? operation.peer;
        peers.set(operation.peer.publicKey, {
          ...known,
          ...operation.peer,
          ...(endpoint === undefined ? {} : { endpoint }),
        });
      });
      return;
    case "peer.remove":
      changePeers(draft, operation.link, (peers) => void peers.delete(operation.publicKey));
      return;
    case "address.add":
      draft.addresses = new Set([...draft.addresses, operation.address]);
      return;
    case "address.remove":
      draft.addresses = new Set([...draft.addresses].filter((address) => address !== operation.address));
      return;
    case "nexthop.replace":
      own(draft, "nexthops").set(operation.nexthop.id, operation.nexthop);
      return;
    case "nexthop.remove":
      flushNexthop(draft, operation.nexthop.id);
      return;
    case "route.add":
    case "route.replace":
      own(draft, "routes").set(routeKey(operation.route), operation.route);
      return;
    case "route.remove":
      own(draft, "routes").delete(routeKey(operation.route));
      return;
    case "rule.add":
      own(draft, "rules").set(ruleKey(operation.rule), operation.rule);
      return;
    case "rule.remove":
      own(draft, "rules").delete(ruleKey(operation.rule));
      return;
    case "nft.replace":
      draft.nft = operation.table;
      return;
    case "nft.elements":
      changeElements(draft, operation);
      return;
    case "nft.remove":
      draft.nft = undefined;
      return;
    case "sysctl.set":
      own(draft, "sysctls").set(operation.name, operation.value);
      return;
    case "sysctl.restore":
      own(draft, "sysctls").delete(operation.name);
      return;
    case "hosts.set":
      draft.hosts = operation.hosts;
      return;
  }
}

type MapPart = "wireguard" | "nexthops" | "routes" | "rules" | "sysctls";
type Writable<M> = M extends ReadonlyMap<infer K, infer V> ? Map<K, V> : never;

function own<P extends MapPart>(draft: Draft, part: P): Writable<KernelState[P]> {
  if (!draft.copied.has(part)) {
    (draft as Record<MapPart, unknown>)[part] = new Map(draft[part] as ReadonlyMap<unknown, unknown>);
    draft.copied.add(part);
  }
  return draft[part] as unknown as Writable<KernelState[P]>;
}

function changePeers(draft: Draft, link: string, change: (peers: Map<WgPeer["publicKey"], WgPeer>) => void): void {
  const now: WgInterface | undefined = draft.wireguard.get(link);
  if (now === undefined) return;
  const peers = new Map(now.peers);
  change(peers);
  own(draft, "wireguard").set(link, { ...now, peers });
}

/** An allowed prefix belongs to one peer of an interface: the last that it was given to. */
function takeFromOthers(peers: Map<WgPeer["publicKey"], WgPeer>, peer: WgPeer): void {
  const taken = new Set(peer.allowedIps);
  for (const [key, other] of peers) {
    if (key === peer.publicKey || !other.allowedIps.some((cidr) => taken.has(cidr))) continue;
    peers.set(key, { ...other, allowedIps: other.allowedIps.filter((cidr) => !taken.has(cidr)) });
  }
}

/** When a device goes, so do its nexthops, the groups that held nothing else, and all of their routes. */
function flushDevice(draft: Draft, dev: string): void {
  for (const nexthop of draft.nexthops.values()) if (nexthop.dev === dev) flushNexthop(draft, nexthop.id);
  removeRoutes(draft, (route) => route.dev === dev);
}

function flushNexthop(draft: Draft, id: number): void {
  if (!draft.nexthops.has(id)) return;
  const nexthops = own(draft, "nexthops");
  const gone = new Set([id]);
  for (const group of [...nexthops.values()].filter((one): one is Nexthop & { group: readonly number[] } => one.group?.includes(id) ?? false)) {
    const left = group.group.filter((member) => member !== id);
    if (left.length === 0) gone.add(group.id);
    else nexthops.set(group.id, { ...group, group: left });
  }
  for (const one of gone) nexthops.delete(one);
  removeRoutes(draft, (route) => route.nexthopId !== undefined && gone.has(route.nexthopId));
}

function removeRoutes(draft: Draft, lost: (route: Route) => boolean): void {
  const keys = [...draft.routes].filter(([, route]) => lost(route)).map(([key]) => key);
  if (keys.length === 0) return;
  const routes = own(draft, "routes");
  for (const key of keys) routes.delete(key);
}

function changeElements(draft: Draft, { set, add, remove }: Extract<Operation, { op: "nft.elements" }>): void {
  if (draft.nft === undefined) return;
  const gone = new Set(remove);
  const elements = [...new Set([...(draft.nft.sets.get(set) ?? []).filter((element) => !gone.has(element)), ...add])];
  draft.nft = { body: draft.nft.body, sets: new Map([...draft.nft.sets, [set, elements.sort()]]) };
}
