/**
 * Kernel state as data: what the agent wants, and what the drivers observe, have the same types; `diff` turns a pair of
 * them into operations. Everything that is ours and nothing else (I3).
 */
import type { Choice } from "../elect/types.ts";
import type { PathId, Plan } from "../model/plan.ts";
import type { Cidr, Endpoint, IpAddress, NodeName, WgPublicKey } from "../model/scalars.ts";

/** Routing protocol number of every route, rule and nexthop of ours. */
export const PROTOCOL = 157;
/** Table of overlay routes; 157 + k is the table of client link k (1 to 63); 221 holds the way back out of ismgw0. */
export const OVERLAY_TABLE = 157;
export const RETURN_TABLE = 221;
export const MAX_LINKS = 63;
export const NFT_TABLE = "isthmus";

export interface WgPeer {
  readonly publicKey: WgPublicKey;
  /** Desired: set only when the peer is new or the endpoint must change. Observed: the current one. */
  readonly endpoint?: Endpoint;
  readonly allowedIps: readonly Cidr[];
  /** Seconds; 0 is off. */
  readonly keepalive: number;
  /** Observed only: seconds since 1970, 0 for never. */
  readonly latestHandshake?: number;
  /** Observed only: somebody gave it a preshared key. Ours have none. */
  readonly presharedKey?: true;
  readonly rxBytes?: number;
  readonly txBytes?: number;
}

export interface WgInterface {
  readonly name: string;
  readonly listenPort: number;
  readonly fwmark: number;
  readonly mtu: number;
  readonly publicKey: WgPublicKey;
  readonly peers: ReadonlyMap<WgPublicKey, WgPeer>;
  readonly up: boolean;
  /** Observed only: a device of our name that does not speak WireGuard (its process lost its socket); it is made anew. */
  readonly broken?: true;
  /** Observed only: WireGuard does not answer for it now; this is what it said last. Nothing is asked of it before it speaks or is made anew. */
  readonly mute?: true;
}

/** What WireGuard itself says of a peer, and of an interface. */
export type WgPeerSeen = WgPeer & Required<Pick<WgPeer, "latestHandshake" | "rxBytes" | "txBytes">>;
export type WgDevice = Pick<WgInterface, "listenPort" | "fwmark" | "publicKey" | "mute"> & { readonly peers: ReadonlyMap<WgPublicKey, WgPeerSeen> };

/** An address on `lo` (every address of ours lives there). */
export type LoAddress = Cidr;

export interface Nexthop {
  readonly id: number;
  /** A device nexthop (made in the v6 family: serves both families), or a group. Exactly one is set. */
  readonly dev?: string;
  readonly group?: readonly number[];
  /** Set where the device cannot carry IPv6 (MTU below 1280, or no IPv6 on the host): it then serves v4 routes only. */
  readonly family?: 4;
}

export type RouteType = "unicast" | "unreachable" | "throw" | "blackhole";

export interface Route {
  readonly family: 4 | 6;
  readonly dst: Cidr;
  readonly table: number;
  readonly type: RouteType;
  readonly metric: number;
  readonly nexthopId?: number;
  readonly via?: IpAddress;
  readonly dev?: string;
  readonly src?: IpAddress;
  /** Bytes that get through, where they are fewer than the device's MTU. */
  readonly mtu?: number;
  /** Several LAN next hops (Spread); `via` is absent then. */
  readonly multipath?: readonly { readonly via: IpAddress; readonly dev?: string }[];
}

export interface Rule {
  readonly family: 4 | 6;
  readonly priority: number;
  readonly from?: Cidr;
  readonly to?: Cidr;
  readonly fwmark?: number;
  readonly fwmask?: number;
  readonly iif?: string;
  readonly table: number;
}

/** The whole nft table as text for `nft -f -` (table body), with sets whose elements change often kept apart. */
export interface NftTable {
  /** Chains and set declarations; changing it replaces the table atomically. */
  readonly body: string;
  /** Elements by set name, canonical and sorted; changed element by element. */
  readonly sets: ReadonlyMap<string, readonly string[]>;
}

export interface KernelState {
  readonly wireguard: ReadonlyMap<string, WgInterface>;
  readonly addresses: ReadonlySet<LoAddress>;
  readonly nexthops: ReadonlyMap<number, Nexthop>;
  /** By `routeKey`. */
  readonly routes: ReadonlyMap<string, Route>;
  /** By `ruleKey`. */
  readonly rules: ReadonlyMap<string, Rule>;
  readonly nft: NftTable | undefined;
  /** By name, e.g. `net.ipv4.ip_forward`. */
  readonly sysctls: ReadonlyMap<string, string>;
  /** Managed block of the hosts file: name → address. */
  readonly hosts: ReadonlyMap<string, readonly IpAddress[]>;
}

/** What the kernel keys a route by: family, table, destination, metric. */
export function routeKey(route: Pick<Route, "family" | "table" | "dst" | "metric">): string {
  return `${route.family}|${route.table}|${route.dst}|${route.metric}`;
}

export function ruleKey(rule: Rule): string {
  return [rule.family, rule.priority, rule.from ?? "", rule.to ?? "", rule.fwmark ?? "", rule.fwmask ?? "", rule.iif ?? "", rule.table].join("|");
}

/** What the host is like, observed by the agent; input of `desiredKernel` and of the protection rules (I9). */
export interface HostFacts {
  readonly wireguard: "kernel" | "userspace";
  /** Addresses on interfaces that are not ours and not lo. */
  readonly underlay: readonly { readonly ifname: string; readonly address: IpAddress; readonly prefix: Cidr; readonly mtu: number }[];
  /** Routes of table main that are not ours, connected ones included. */
  readonly mainRoutes: readonly { readonly dst: Cidr; readonly dev?: string; readonly via?: IpAddress; readonly metric: number }[];
  /** Resolvers, DHCP and NTP servers, metadata service, kube API, controllers' addresses as resolved. */
  readonly protectedAddresses: readonly { readonly address: IpAddress; readonly why: string }[];
  /** Interfaces whose IPv6 default route came from a router advertisement. */
  readonly raInterfaces: readonly string[];
  /** Overlay MTU that the underlay allows. */
  readonly overlayMtu: number;
  /** False where the host has no IPv6 at all. */
  readonly ipv6?: boolean;
}

/** Endpoints to dial for one peer: on ism0, as its client (its ismgw0), as its gateway (its link to us). */
export interface PeerDial {
  readonly mesh?: Endpoint;
  readonly gateway?: Endpoint;
  readonly client?: Endpoint;
}

/** All that decides this node's kernel state. */
export interface DesiredInput {
  readonly plan: Plan;
  readonly host: HostFacts;
  readonly publicKey: WgPublicKey;
  /** Number k (1 to 63) of the client link to each gateway node; stable while the gateway is in use. */
  readonly links: ReadonlyMap<NodeName, number>;
  readonly choices: ReadonlyMap<PathId, Choice>;
  /** Links believed dead: their flow tables are pointed at a live link, so that pinned flows are reset instead of hanging. */
  readonly deadLinks: ReadonlySet<NodeName>;
  readonly dial: ReadonlyMap<NodeName, PeerDial>;
  /** Peers to which fewer bytes get through than the underlay's MTU lets one expect: how many, inside the tunnel. */
  readonly pathMtu?: ReadonlyMap<NodeName, number>;
  /** The peer whose way is being measured now: packets of every size may go there by the mesh. */
  readonly measuring?: NodeName;
  /** Gateways in use of each LAN route (`lanroute/…`, `staticroute/…`), several with Spread. */
  readonly lanChoices: ReadonlyMap<string, readonly IpAddress[]>;
}

/** Why a destination of an intent is not routed on this node. */
export interface Refusal {
  /** Path or LAN route id. */
  readonly id: string;
  readonly destination: Cidr;
  readonly why: "Conflict" | "Protected" | "NotReachable" | "InsideOwnDestination";
  /** `Conflict`: the other id; `Protected`: what is protected. */
  readonly detail: string;
}

/** Result of `desiredKernel`. */
export interface Desired {
  readonly state: KernelState;
  readonly refusals: readonly Refusal[];
}
