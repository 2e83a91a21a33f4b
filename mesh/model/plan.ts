/**
 * The plan: what one agent must know. A plan is a union of views; a view is a flat map `key → value` with its own delta
 * log. Agents that see the same thing share a view and get the same bytes.
 *
 *   view `mesh`            network, peer/<node>, site/<site>                       every agent
 *   view `<path id>`       path, d/<cidr>           for each path (`PathId`)         clients and gateways of it
 *   view `<lan route id>`  lan, d/<cidr>            for lanroute/<n>, staticroute/<n>          nodes that it selects
 *   view `node/<name>`     self, serve/<path id>, client/<node>                    that agent alone
 *
 * Destinations are keys of their own so that one changed among 2,000 costs one key on the wire.
 */
import { z } from "zod";
import { UplinkCheck, GatewayHealth } from "./health.ts";
import { Cidr, Endpoint, IpAddress, Labels, NodeName, ObjectName, Port, WgPublicKey } from "./scalars.ts";

/** Key `network` of view `mesh`. */
export const NetworkPlan = z.object({
  name: ObjectName,
  overlay: z.object({ v4: Cidr, v6: Cidr }),
  /** Lower half: addresses as client; upper half: as gateway. v6 link addresses come from overlay.v6 (`mesh/net/overlay.ts`). */
  links: z.object({ v4: Cidr }),
  /** Across sites only gateways of sites are peers; absent where every node is a peer of every other. */
  topology: z.literal("SiteGateways").optional(),
  ports: z.object({ mesh: Port, gateway: Port, links: Port, echo: Port, state: Port }),
  mtu: z.int().optional(),
  markMask: z.string(),
  /** `ADDR:PORT` of every controller: protected destinations (I9). */
  controllers: z.array(z.string()),
});
export type NetworkPlan = z.infer<typeof NetworkPlan>;

/** Key `peer/<node>` of view `mesh`. Field names are short: this is what a join sends to every agent (≤ 256 bytes framed). */
export const PeerPlan = z.object({
  /** Index: all addresses of the node derive from it. */
  i: z.int(),
  /** WireGuard public key. */
  k: WgPublicKey,
  /** Site. */
  s: ObjectName,
  /** Ranked endpoints of ism0. A private address is meant for peers of the same site only. */
  e: z.array(Endpoint),
  /** 1 when the node is behind NAT: nobody outside its site can dial it, it dials. */
  n: z.literal(1).optional(),
  /**
   * Bit i is set where `e[i]` is only this node's own word: the controller did not see it come from there, and no admin said so.
   * Such an endpoint is a hint to dial; nobody keeps traffic away from an intent because of it (I11).
   */
  h: z.int().optional(),
  /** Granted prefixes that the node advertises. */
  a: z.array(Cidr).optional(),
});
export type PeerPlan = z.infer<typeof PeerPlan>;

/** Key `site/<site>` of view `mesh`. */
export const SitePlan = z.object({ kind: z.enum(["onprem", "cloud"]), region: z.string().optional(), zone: z.string().optional() });
export type SitePlan = z.infer<typeof SitePlan>;

/** Which source address a gateway gives to what it forwards; `address` with `Address` only. */
export const SnatPlan = z.object({ type: z.enum(["Masquerade", "Address", "None"]), address: IpAddress.optional() });
export type SnatPlan = z.infer<typeof SnatPlan>;

export const PathKind = z.enum(["egress", "subnet", "route", "site", "via"]);
export type PathKind = z.infer<typeof PathKind>;

/**
 * `egress/<name>`, `subnet/<site>`, `route/<name>`; with topology SiteGateways also `site/<site>` (the site's nodes, for gateways of
 * other sites) and `via/<site>` (all that lies beyond, for the site's other nodes). Names a view and everything that belongs to that path.
 */
export type PathId = `${PathKind}/${string}`;

/** Whether an id is that of a path that topology SiteGateways makes: to the overlay's own addresses, and never translated. */
export function betweenSites(id: string): boolean {
  return id.startsWith("site/") || id.startsWith("via/");
}

/** Whether an id is that of a path to what is behind a site's gateways: its LANs, or its other nodes. */
export function intoSite(id: string): boolean {
  return id.startsWith("subnet/") || id.startsWith("site/");
}

/** The kernel's main routing table: where LAN routes stand whose intent names no other. */
export const MAIN_TABLE = 254;

/** Who keeps a destination that several claim, in sorting order: the older, ties by id. */
export function byAge(a: Claimant, b: Claimant): number {
  return a.created - b.created || (a.id < b.id ? -1 : Number(a.id > b.id));
}

interface Claimant {
  readonly id: string;
  /** Milliseconds since 1970. */
  readonly created: number;
}

/** Key `path` of a path's view: how its destinations are reached over gateway links. Exclusions are subtracted already. */
export const PathPlan = z.object({
  /** Milliseconds since 1970: older claims win a destination (`byAge`). */
  created: z.number(),
  /**
   * Best first. `priority` groups equals for Spread. `drainMs`: it is being drained, and flows may stay so long; `cordon` tells this drain
   * from an earlier one, so that a client can say which it knows of (both absent where an older controller does not say).
   * `retiring`, at the end: the intent let it go, and it serves established flows until they have moved.
   */
  gateways: z.array(
    z.object({
      node: NodeName,
      priority: z.int(),
      drainMs: z.int().optional(),
      cordon: z.string().optional(),
      retiring: z.literal(true).optional(),
    }),
  ),
  intervalMs: z.int(),
  threshold: z.int(),
  holdDownMs: z.int(),
  strategy: z.enum(["Failover", "Spread"]),
  failback: z.object({ type: z.enum(["Immediate", "Delayed", "Manual"]), delayMs: z.int() }),
  drainTimeoutMs: z.int(),
  onNoGateway: z.enum(["Unreachable", "Underlay"]),
  /** What its gateways do, for `explain` on a client; absent where an older controller does not say, and for routes through nodes. */
  snat: SnatPlan.optional(),
});
export type PathPlan = z.infer<typeof PathPlan>;

/** Key `lan` of a LAN route's view: destinations through routers on the node's own LAN. */
export const LanRoutePlan = z.object({
  created: z.number(),
  gateways: z.array(IpAddress),
  table: z.int(),
  metric: z.int().optional(),
  strategy: z.enum(["Failover", "Spread"]),
  health: GatewayHealth,
});
export type LanRoutePlan = z.infer<typeof LanRoutePlan>;

/** Key `self` of view `node/<name>`. */
export const SelfPlan = z.object({
  name: NodeName,
  index: z.int(),
  site: ObjectName,
  labels: Labels,
  /** Set while the node is cordoned. */
  drain: z.object({ timeoutMs: z.int() }).optional(),
  advertise: z.array(Cidr),
  /** The site's own LANs: never steered into the overlay by this node. */
  subnets: z.array(Cidr),
});
export type SelfPlan = z.infer<typeof SelfPlan>;

/** Key `serve/<path id>` of view `node/<name>`: the node is a gateway of that path. */
export const ServePlan = z.object({
  snat: SnatPlan,
  uplink: z.array(UplinkCheck),
  uplinkIntervalMs: z.int(),
  threshold: z.int(),
  /** As the intent says it; of an uplink that is back a gateway asks a second of quiet at most. An older controller says nothing of it. */
  holdDownMs: z.int().default(1_000),
  /** Destinations that the path no longer has: clients send nothing new there, flows that are established go on. */
  retired: z.array(Cidr).optional(),
  /** Those of them to which no new flow is forwarded any more: every client that hears has heard. */
  settled: z.array(Cidr).optional(),
});
export type ServePlan = z.infer<typeof ServePlan>;

/** Key `client/<node>` of view `node/<name>`: that peer may use this node's gateway interface. */
export const ClientPlan = z.object({
  /** Path ids that the client uses here. */
  paths: z.array(z.string()),
  /**
   * Set where each is a gateway of its site's subnets and the other's client: one link serves both ways, with everything allowed on
   * both ends, and each dials the other's port of it.
   */
  pair: z.literal(1).optional(),
  /** UDP port of the client's link to this node, once the client reported it: a gateway behind NAT dials it, and so does a pair. */
  port: Port.optional(),
});
export type ClientPlan = z.infer<typeof ClientPlan>;

/** Value of `d/<cidr>`. */
export const DestinationPlan = z.literal(1);

/** One view's content; values are JSON. */
export type ViewData = ReadonlyMap<string, unknown>;

/** The parsed union of an agent's views. Maps iterate in sorted key order. */
export interface Plan {
  readonly network: NetworkPlan;
  readonly self: SelfPlan;
  /** All nodes, this one included. */
  readonly peers: ReadonlyMap<NodeName, PeerPlan>;
  readonly sites: ReadonlyMap<string, SitePlan>;
  readonly paths: ReadonlyMap<PathId, PathPlan & { readonly destinations: readonly Cidr[] }>;
  readonly lanRoutes: ReadonlyMap<string, LanRoutePlan & { readonly destinations: readonly Cidr[] }>;
  readonly serves: ReadonlyMap<PathId, ServePlan>;
  readonly clients: ReadonlyMap<NodeName, ClientPlan>;
}
