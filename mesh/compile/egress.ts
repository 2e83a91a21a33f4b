/** EgressGateway: which nodes serve, which nodes are steered, to which destinations. */
import type { SnatPlan } from "../model/plan.ts";
import type { Resource } from "../model/resources.ts";
import { durationMs } from "../model/scalars.ts";
import { createdAt, selects, type Context, type NodeContext } from "./context.ts";
import { resolveDestinations } from "./destinations.ts";
import {
  ACCEPTED,
  gatewaysResolved,
  MAX_PATH_GATEWAYS,
  namesOf,
  rankGateways,
  refusedBecause,
  UNREACHABLE,
  type Compiled,
  type PathDraft,
} from "./drafts.ts";

type Selector = Resource<"EgressGateway">["spec"]["gateways"][number];

/** What becomes of the traffic while no gateway is there. */
const WITHOUT: Readonly<Record<Resource<"EgressGateway">["spec"]["onNoGateway"], string>> = {
  Unreachable: `${UNREACHABLE} (onNoGateway: Unreachable)`,
  Underlay: "meanwhile traffic to the destinations leaves by each node's own uplink (onNoGateway: Underlay)",
};

export function compileEgress(context: Context, egress: Resource<"EgressGateway">): Compiled {
  const { spec, metadata } = egress;
  const fault = specFault(spec);
  if (fault !== undefined) {
    return {
      draft: undefined,
      status: { kind: "EgressGateway", name: metadata.name, conditions: [refusedBecause(...fault)], nodes: [], gateways: [] },
    };
  }
  const ranked = rankGateways(selectGateways(context, spec.gateways));
  const gateways = ranked.slice(0, MAX_PATH_GATEWAYS);
  // A gateway sends its own traffic out itself.
  const serving = new Set(gateways.map(({ node }) => node));
  const clients = context.nodes.filter(selects(spec.sources.nodeSelector)).filter((node) => !serving.has(node.name));
  const destinations = resolveDestinations(context, spec);
  const { health } = spec;
  const snat: SnatPlan =
    spec.snat.type === "Address" && spec.snat.address !== undefined ? { type: "Address", address: spec.snat.address } : { type: spec.snat.type };
  const draft: PathDraft = {
    kind: "path",
    id: `egress/${metadata.name}`,
    plan: {
      created: createdAt(egress),
      intervalMs: durationMs(health.interval),
      threshold: health.threshold,
      holdDownMs: durationMs(health.holdDown),
      strategy: spec.strategy,
      failback: { type: spec.failback.type, delayMs: durationMs(spec.failback.delay) },
      drainTimeoutMs: durationMs(spec.drainTimeout),
      onNoGateway: spec.onNoGateway,
      snat,
    },
    gateways,
    clients,
    serve: {
      snat,
      uplink: health.uplink ?? [],
      uplinkIntervalMs: durationMs(health.uplinkInterval),
      threshold: health.threshold,
      holdDownMs: durationMs(health.holdDown),
    },
    destinations: destinations.cidrs,
  };
  return {
    draft,
    status: {
      kind: "EgressGateway",
      name: metadata.name,
      id: draft.id,
      conditions: [
        ACCEPTED,
        gatewaysResolved(gateways, ranked.length - gateways.length, WITHOUT[spec.onNoGateway], unknownSites(context, spec.gateways)),
        destinations.condition,
      ],
      nodes: namesOf(clients),
      gateways: gateways.map(({ node }) => node),
    },
  };
}

/** Every node that a selector names, at the best priority that one gives it. */
function selectGateways(context: Context, selectors: readonly Selector[]): { node: NodeContext; priority: number }[] {
  const best = new Map<NodeContext, number>();
  for (const { site, nodeSelector, priority } of selectors) {
    const wanted = site === undefined ? selects(nodeSelector) : (node: NodeContext) => node.resource.spec.site === site;
    for (const node of context.nodes) if (wanted(node)) best.set(node, Math.max(priority, best.get(node) ?? 0));
  }
  return [...best].map(([node, priority]) => ({ node, priority }));
}

function unknownSites(context: Context, selectors: readonly Selector[]): string[] {
  return selectors.flatMap(({ site }) => (site === undefined || context.siteByName.has(site) ? [] : `there is no site ${site}`));
}

function specFault(spec: Resource<"EgressGateway">["spec"]): [reason: string, message: string] | undefined {
  if (spec.gateways.some(({ site, nodeSelector }) => (site === undefined) === (nodeSelector === undefined))) {
    return ["InvalidGateway", "each entry of spec.gateways has exactly one of nodeSelector and site"];
  }
  if (spec.snat.type === "Address" && spec.snat.address === undefined) return ["InvalidSnat", "spec.snat.address is needed with type Address"];
  return undefined;
}
