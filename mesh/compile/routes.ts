/** MeshRoute and StaticRoute: through routers on the node's own LAN, or through nodes of the mesh. */
import { GatewayHealth, type UplinkCheck } from "../model/health.ts";
import { MAIN_TABLE } from "../model/plan.ts";
import type { Resource } from "../model/resources.ts";
import { durationMs, type IpAddress, type NodeName } from "../model/scalars.ts";
import { hostCidr } from "../net/ip.ts";
import { hasPrefix } from "../net/prefix-set.ts";
import { createdAt, selects, SPECIAL_RANGES, type Context } from "./context.ts";
import { noGatewayOfFamily, resolveDestinations, type DestinationIntent, type Objection } from "./destinations.ts";
import {
  ACCEPTED,
  gatewaysResolved,
  MAX_PATH_GATEWAYS,
  namesOf,
  refusedBecause,
  UNREACHABLE,
  type Compiled,
  type Gateway,
  type LanDraft,
  type PathDraft,
} from "./drafts.ts";
import { PATH_DEFAULTS } from "./sites.ts";
import type { IntentCompileStatus } from "./types.ts";

/** A StaticRoute has one gateway and says nothing of health: it is installed as it is. */
const NO_HEALTH = GatewayHealth.parse({ type: "none" });

export function compileRoute(context: Context, route: Resource<"MeshRoute">): Compiled {
  const { gateways } = route.spec;
  const nodes = gateways.flatMap((gateway) => gateway.node ?? []);
  const addresses = gateways.flatMap((gateway) => gateway.address ?? []);
  if (gateways.some((gateway) => (gateway.node === undefined) === (gateway.address === undefined))) {
    return refused(route, "InvalidGateway", "each gateway has exactly one of address and node");
  }
  if (nodes.length > 0 && addresses.length > 0) {
    return refused(route, "InvalidGateway", "gateways are all addresses or all nodes; write two MeshRoutes, one for each kind");
  }
  return nodes.length > 0 ? nodeRoute(context, route, nodes) : lanRoute(context, route, addresses);
}

export function compileStaticRoute(context: Context, route: Resource<"StaticRoute">): Compiled {
  const fault = gatewayFault(context, route.spec.gateway);
  if (fault !== undefined) return refused(route, "InvalidGateway", fault);
  return lanCompiled(context, route, `staticroute/${route.metadata.name}`, route.spec, context.nodes, {
    created: createdAt(route),
    gateways: [route.spec.gateway],
    table: MAIN_TABLE,
    strategy: "Failover",
    health: NO_HEALTH,
  });
}

function nodeRoute(context: Context, route: Resource<"MeshRoute">, names: readonly NodeName[]): Compiled {
  const { spec } = route;
  const distinct = [...new Set(names)];
  const unknown = distinct.filter((name) => !context.nodeByName.has(name)).map((name) => `there is no node ${name}`);
  const known = distinct.filter((name) => context.nodeByName.has(name)).slice(0, MAX_PATH_GATEWAYS);
  // In order of preference; with Spread all of them are equals.
  const gateways: Gateway[] = known.map((node, i) => ({ node, priority: spec.strategy === "Spread" ? 100 : MAX_PATH_GATEWAYS - i }));
  const serving = new Set<string>(known);
  const clients = context.nodes.filter(selects(spec.nodeSelector)).filter((node) => !serving.has(node.name));
  const destinations = resolveDestinations(context, spec);
  const intervalMs = durationMs(spec.health.interval);
  const draft: PathDraft = {
    kind: "path",
    id: `route/${route.metadata.name}`,
    plan: {
      created: createdAt(route),
      intervalMs,
      threshold: spec.health.threshold,
      holdDownMs: durationMs(spec.health.holdDown),
      ...PATH_DEFAULTS,
      strategy: spec.strategy,
    },
    gateways,
    clients,
    serve: {
      snat: { type: "None" },
      uplink: uplinkChecks(spec.health),
      uplinkIntervalMs: intervalMs,
      threshold: spec.health.threshold,
      holdDownMs: durationMs(spec.health.holdDown),
    },
    destinations: destinations.cidrs,
  };
  const status: IntentCompileStatus = {
    kind: "MeshRoute",
    name: route.metadata.name,
    id: draft.id,
    conditions: [ACCEPTED, gatewaysResolved(gateways, 0, UNREACHABLE, unknown), destinations.condition],
    nodes: namesOf(clients),
    gateways: known,
  };
  return { draft, status };
}

function lanRoute(context: Context, route: Resource<"MeshRoute">, addresses: readonly IpAddress[]): Compiled {
  const { spec } = route;
  const gateways = [...new Set(addresses)];
  const faults = gateways.flatMap((gateway) => gatewayFault(context, gateway) ?? []);
  if (faults.length > 0) return refused(route, "InvalidGateway", faults.join("; "));
  return lanCompiled(context, route, `lanroute/${route.metadata.name}`, spec, context.nodes.filter(selects(spec.nodeSelector)), {
    created: createdAt(route),
    gateways,
    table: spec.table ?? MAIN_TABLE,
    ...(spec.metric === undefined ? {} : { metric: spec.metric }),
    strategy: spec.strategy,
    health: spec.health,
  });
}

function lanCompiled(
  context: Context,
  route: Resource<"MeshRoute"> | Resource<"StaticRoute">,
  id: LanDraft["id"],
  intent: DestinationIntent,
  clients: LanDraft["clients"],
  plan: LanDraft["plan"],
): Compiled {
  const ofFamily = noGatewayOfFamily(plan.gateways);
  const own = new Set<string>(plan.gateways.map(hostCidr));
  const object: Objection = (cidr) => ofFamily(cidr) ?? (own.has(cidr) ? "is a gateway of its own route" : undefined);
  const destinations = resolveDestinations(context, intent, object);
  return {
    draft: { kind: "lan", id, plan, clients, destinations: destinations.cidrs },
    status: {
      kind: route.kind,
      name: route.metadata.name,
      id,
      conditions: [ACCEPTED, destinations.condition],
      nodes: namesOf(clients),
      gateways: plan.gateways,
    },
  };
}

/** What is wrong with a router's address, as far as can be said without standing on the node. */
function gatewayFault(context: Context, gateway: IpAddress): string | undefined {
  const cidr = hostCidr(gateway);
  if (hasPrefix(context.overlay, cidr)) return `gateway ${gateway} is an overlay address; name the node instead (gateways: [{node: NAME}])`;
  if (hasPrefix(SPECIAL_RANGES, cidr)) return `gateway ${gateway} is a loopback, link-local or multicast address`;
  return undefined;
}

/** What a gateway node checks by itself: only a check that names an address can leave from there. */
function uplinkChecks(health: GatewayHealth): UplinkCheck[] {
  if (health.type === "tcp" && health.tcp?.address !== undefined) return [{ type: "tcp", tcp: health.tcp }];
  if (health.type === "http" && health.http?.address !== undefined) return [{ type: "http", http: health.http }];
  return [];
}

function refused(route: Resource<"MeshRoute"> | Resource<"StaticRoute">, reason: string, message: string): Compiled {
  return {
    draft: undefined,
    status: { kind: route.kind, name: route.metadata.name, conditions: [refusedBecause(reason, message)], nodes: [], gateways: [] },
  };
}
