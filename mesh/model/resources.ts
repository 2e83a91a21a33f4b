/** The registry of kinds: one row each, the single source of names for the store, API, command line, CRDs and docs. */
import type { z } from "zod";
import { EgressGatewaySpec } from "./egress-gateway.ts";
import { JoinTokenSpec, JoinTokenStatus } from "./join-token.ts";
import { MeshClusterSpec } from "./mesh-cluster.ts";
import { MeshNetworkSpec } from "./mesh-network.ts";
import { MeshNodeSpec, MeshNodeStatus } from "./mesh-node.ts";
import { MeshRouteSpec } from "./mesh-route.ts";
import { API_VERSION, IntentStatus, type ObjectMeta } from "./meta.ts";
import { SiteSpec, SiteStatus } from "./site.ts";
import { STATIC_ROUTE_API_VERSION, StaticRouteSpec } from "./static-route.ts";
import { VirtualIPSpec, VirtualIPStatus } from "./virtual-ip.ts";

export interface KindRow {
  readonly kind: string;
  readonly apiVersion: string;
  /** Path segment of the API and key segment of the store, e.g. `egressgateways`. */
  readonly plural: string;
  /** Other names that the command line takes. */
  readonly aliases: readonly string[];
  readonly spec: z.ZodType;
  readonly status: z.ZodType;
  /** Users may create it by apply. A MeshNode is made by a join, a JoinToken by `create token`. */
  readonly appliable: boolean;
  readonly crd: boolean;
}

export const KINDS = {
  MeshNetwork: {
    kind: "MeshNetwork",
    apiVersion: API_VERSION,
    plural: "meshnetworks",
    aliases: ["meshnetwork", "network", "networks"],
    spec: MeshNetworkSpec,
    status: IntentStatus,
    appliable: true,
    crd: true,
  },
  Site: { kind: "Site", apiVersion: API_VERSION, plural: "sites", aliases: ["site"], spec: SiteSpec, status: SiteStatus, appliable: true, crd: true },
  MeshNode: {
    kind: "MeshNode",
    apiVersion: API_VERSION,
    plural: "meshnodes",
    aliases: ["meshnode", "node", "nodes", "no"],
    spec: MeshNodeSpec,
    status: MeshNodeStatus,
    appliable: false,
    crd: true,
  },
  JoinToken: {
    kind: "JoinToken",
    apiVersion: API_VERSION,
    plural: "jointokens",
    aliases: ["jointoken", "token", "tokens"],
    spec: JoinTokenSpec,
    status: JoinTokenStatus,
    appliable: false,
    crd: false,
  },
  MeshRoute: {
    kind: "MeshRoute",
    apiVersion: API_VERSION,
    plural: "meshroutes",
    aliases: ["meshroute", "route", "routes", "mr"],
    spec: MeshRouteSpec,
    status: IntentStatus,
    appliable: true,
    crd: true,
  },
  StaticRoute: {
    kind: "StaticRoute",
    apiVersion: STATIC_ROUTE_API_VERSION,
    plural: "staticroutes",
    aliases: ["staticroute", "sr"],
    spec: StaticRouteSpec,
    status: IntentStatus,
    appliable: true,
    crd: true,
  },
  EgressGateway: {
    kind: "EgressGateway",
    apiVersion: API_VERSION,
    plural: "egressgateways",
    aliases: ["egressgateway", "egress", "eg"],
    spec: EgressGatewaySpec,
    status: IntentStatus,
    appliable: true,
    crd: true,
  },
  VirtualIP: {
    kind: "VirtualIP",
    apiVersion: API_VERSION,
    plural: "virtualips",
    aliases: ["virtualip", "vip", "vips"],
    spec: VirtualIPSpec,
    status: VirtualIPStatus,
    appliable: true,
    crd: true,
  },
  MeshCluster: {
    kind: "MeshCluster",
    apiVersion: API_VERSION,
    plural: "meshclusters",
    aliases: ["meshcluster", "cluster", "clusters"],
    spec: MeshClusterSpec,
    status: IntentStatus,
    appliable: true,
    crd: true,
  },
} as const satisfies Record<string, KindRow>;

export type Kind = keyof typeof KINDS;

/** A stored object. `K` picks the types of spec and status. */
export interface Resource<K extends Kind = Kind> {
  readonly apiVersion: string;
  readonly kind: K;
  readonly metadata: ObjectMeta;
  readonly spec: z.infer<(typeof KINDS)[K]["spec"]>;
  readonly status?: z.infer<(typeof KINDS)[K]["status"]>;
}
