/**
 * What compile reads and what it says. Everything is data and is never changed in place: an object that differs is a new
 * object. So identity tells what did not change, and the unchanged parts of an earlier result are used again.
 */
import type { PathId, ViewData } from "../model/plan.ts";
import type { Kind, Resource } from "../model/resources.ts";
import type { Cidr, Endpoint, IpAddress, Labels, NodeName } from "../model/scalars.ts";
import type { NodeFacts } from "../model/wire.ts";
import type { Served, Serving } from "./retiring.ts";

/** Intents and facts at one revision of the store, in any order. */
export interface CompileInput {
  /** With `spec.overlay.v6` filled in. */
  readonly network: Resource<"MeshNetwork">;
  readonly sites: readonly Resource<"Site">[];
  readonly nodes: readonly Resource<"MeshNode">[];
  /** What the agents report; a node without an entry said nothing yet. */
  readonly facts: ReadonlyMap<NodeName, NodeFacts>;
  readonly routes: readonly Resource<"MeshRoute">[];
  readonly staticRoutes: readonly Resource<"StaticRoute">[];
  readonly egress: readonly Resource<"EgressGateway">[];
  /** By path id: what each path was last seen to serve, and what it still serves of earlier times. */
  readonly serving?: ReadonlyMap<string, Serving>;
  /** `ADDR:PORT` of every controller. */
  readonly controllers: readonly string[];
}

export type ViewId = string;

export interface CompileOutput {
  /** Sorted by id; each view's keys are sorted too. A view that did not change is the same object as before. */
  readonly views: ReadonlyMap<ViewId, ViewData>;
  /** Sorted ids of the views that each node must hold. */
  readonly audience: ReadonlyMap<NodeName, readonly ViewId[]>;
  readonly nodeStatus: ReadonlyMap<NodeName, NodeCompileStatus>;
  /** By `intentKey(kind, name)`: every Site, MeshRoute, StaticRoute and EgressGateway of the input; by path id what no object asks for. */
  readonly intentStatus: ReadonlyMap<string, IntentCompileStatus>;
  /** By path id: what the intents alone say, from which the facts in `CompileInput.serving` are kept up. */
  readonly served: ReadonlyMap<PathId, Served>;
}

/** A claim of the agent that has no effect, and why (I11). */
export interface PendingClaim {
  readonly cidr: Cidr;
  readonly reason: "NotGranted" | "DefaultRoute" | "CoversOverlay" | "OtherSiteSubnet" | "Conflict" | "Protected";
  readonly message: string;
}

export interface NodeCompileStatus {
  readonly overlay: readonly IpAddress[];
  /** Ranked, as peers get them. */
  readonly endpoints: readonly Endpoint[];
  /** Those of them that are not only the node's own word. */
  readonly provenEndpoints: readonly Endpoint[];
  readonly behindNat: boolean;
  /** Site's labels, location, region, zone and the node's own: what selectors look at. */
  readonly labels: Labels;
  readonly pendingCidrs: readonly Cidr[];
  readonly pending: readonly PendingClaim[];
  readonly conditions: readonly CompileCondition[];
}

/** A condition without times: the controller knows when it changed. */
export interface CompileCondition {
  readonly type:
    | "Accepted"
    | "GatewaysResolved"
    | "Conflict"
    | "DestinationsAccepted"
    | "ClaimsGranted"
    | "PeersReachable"
    | "SiteKnown"
    | "Retiring";
  readonly status: "True" | "False";
  readonly reason: string;
  readonly message: string;
}

export interface IntentCompileStatus {
  readonly kind: Kind;
  readonly name: string;
  /** Path or LAN route id under which agents report results; absent when the intent has no effect. */
  readonly id?: PathId | `lanroute/${string}` | `staticroute/${string}`;
  readonly conditions: readonly CompileCondition[];
  /** Nodes that steer traffic or hold routes because of it, sorted. */
  readonly nodes: readonly NodeName[];
  /** Gateway nodes, or routers on the LAN, best first. */
  readonly gateways: readonly (NodeName | IpAddress)[];
  /** Gateways that the intent let go and that still serve established flows. */
  readonly retiring?: readonly NodeName[];
}

export function intentKey(kind: Kind, name: string): string {
  return `${kind}/${name}`;
}

/** What changed in one view. */
export interface ViewChange {
  /** New and changed entries, sorted by key. */
  readonly put: ReadonlyMap<string, unknown>;
  /** Sorted. */
  readonly delete: readonly string[];
}
