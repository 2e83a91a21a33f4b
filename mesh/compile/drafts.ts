/** What intents become before views are made of them, and what they share: gateway lists, conditions. */
import type { LanRoutePlan, PathId, PathPlan, ServePlan } from "../model/plan.ts";
import type { Cidr, NodeName } from "../model/scalars.ts";
import type { NodeContext } from "./context.ts";
import type { CompileCondition, IntentCompileStatus } from "./types.ts";
import { count } from "../model/words.ts";

export interface Gateway {
  readonly node: NodeName;
  readonly priority: number;
  /** As in `PathPlan`. */
  readonly retiring?: true;
}

/** Destinations over links to gateway nodes. */
export interface PathDraft {
  readonly kind: "path";
  readonly id: PathId;
  readonly plan: Omit<PathPlan, "gateways">;
  /** Best first. */
  readonly gateways: readonly Gateway[];
  /** Nodes that steer, in the order of the context; never gateways of the path. */
  readonly clients: readonly NodeContext[];
  readonly serve: ServePlan;
  readonly destinations: readonly Cidr[];
}

/** Destinations through routers on the nodes' own LANs. */
export interface LanDraft {
  readonly kind: "lan";
  readonly id: `lanroute/${string}` | `staticroute/${string}`;
  readonly plan: LanRoutePlan;
  readonly clients: readonly NodeContext[];
  readonly destinations: readonly Cidr[];
}

export type Draft = PathDraft | LanDraft;

/** What one intent becomes: a draft, unless it is refused as a whole, and what its status says. */
export interface Compiled {
  readonly draft: Draft | undefined;
  readonly status: IntentCompileStatus;
}

/** A client has 63 links for all intents together; a path that offered more gateways than this would use them up. */
export const MAX_PATH_GATEWAYS = 16;

export const ACCEPTED: CompileCondition = { type: "Accepted", status: "True", reason: "Accepted", message: "" };

export function refusedBecause(reason: string, message: string): CompileCondition {
  return { type: "Accepted", status: "False", reason, message };
}

/** What becomes of traffic that has no gateway, where the intent does not let it out by the underlay. */
export const UNREACHABLE = "meanwhile traffic to the destinations is refused as unreachable";

/**
 * Says which gateways an intent has.
 * @param otherwise what becomes of the traffic while there is none
 * @param unknown those that it names and that are not there
 */
export function gatewaysResolved(gateways: readonly Gateway[], left: number, otherwise: string, unknown: readonly string[] = []): CompileCondition {
  const type = "GatewaysResolved";
  if (gateways.length === 0) {
    const because = unknown.length === 0 ? "no node is selected as gateway" : unknown.join("; ");
    return { type, status: "False", reason: "NoGateway", message: `${because}; ${otherwise}` };
  }
  if (unknown.length > 0) return { type, status: "False", reason: "InvalidGateway", message: unknown.join("; ") };
  if (left > 0)
    return {
      type,
      status: "True",
      reason: "Limited",
      message: `${gateways.length} of ${gateways.length + left} selected nodes are used as gateways`,
    };
  return { type, status: "True", reason: "Resolved", message: count(gateways.length, "gateway") };
}

/** Highest priority first, then the higher priority of the site (the order for disaster recovery), then by name. */
export function rankGateways(candidates: readonly { readonly node: NodeContext; readonly priority: number }[]): Gateway[] {
  return [...candidates]
    .sort(
      (a, b) =>
        b.priority - a.priority ||
        sitePriority(b.node) - sitePriority(a.node) ||
        (a.node.name < b.node.name ? -1 : a.node.name > b.node.name ? 1 : 0),
    )
    .map(({ node, priority }) => ({ node: node.name, priority }));
}

function sitePriority(node: NodeContext): number {
  return node.site?.spec.priority ?? -1;
}

/** Names of nodes. */
export function namesOf(nodes: readonly NodeContext[]): NodeName[] {
  return nodes.map((node) => node.name);
}
