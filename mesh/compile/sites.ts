/** Subnets of sites: LANs that the nodes of other sites reach through the site's gateway nodes. */
import { LinkHealth } from "../model/health.ts";
import type { Resource } from "../model/resources.ts";
import { durationMs, type Cidr } from "../model/scalars.ts";
import { prefixSet, setsOverlap, touches } from "../net/prefix-set.ts";
import type { SiteSubnets } from "./claims.ts";
import { byAge, byName, createdAt, selects, SPECIAL_RANGES, type Context, type NodeContext } from "./context.ts";
import { ACCEPTED, gatewaysResolved, MAX_PATH_GATEWAYS, namesOf, rankGateways, type Compiled, type Gateway, type PathDraft } from "./drafts.ts";
import type { CompileCondition } from "./types.ts";

/** Which of a site's subnets take effect. */
export interface SubnetOwnership {
  /** Sorted by text. */
  readonly effective: readonly Cidr[];
  readonly conditions: readonly CompileCondition[];
}

/** What subnet paths do that nobody configures; the defaults of an egress gateway. */
export const PATH_DEFAULTS = {
  strategy: "Failover",
  failback: { type: "Delayed", delayMs: 60_000 },
  drainTimeoutMs: 60_000,
  onNoGateway: "Unreachable",
} as const;

/**
 * Gateways of a site that does not select any: a few of its nodes, not all of hundreds. The oldest, because a machine that joins
 * chooses its own name and must not take over what crosses the site by it.
 */
const DEFAULT_SITE_GATEWAYS = 4;

/** What becomes of traffic that would cross a site's gateways while it has none. */
const NOT_CROSSED = "meanwhile its nodes and those of other sites do not reach each other";
const NOT_REACHED = "meanwhile other sites do not reach its subnets";

/** Of all of a site's gateways. */
const PRIORITY = 100;

const health = LinkHealth.parse({});

/** Two sites cannot own one address: the older site keeps it, the younger one's subnet has no effect. By site name. */
export function ownSubnets(context: Context): Map<string, SubnetOwnership> {
  const taken: (SiteSubnets & { readonly cidr: Cidr })[] = [];
  const out = new Map<string, SubnetOwnership>();
  for (const site of [...context.sites].sort(byAge)) {
    const effective: Cidr[] = [];
    const conflicts: string[] = [];
    const refused: string[] = [];
    for (const cidr of new Set(site.spec.subnets)) {
      const set = prefixSet([cidr]);
      const rival = taken.find((entry) => entry.site !== site.metadata.name && setsOverlap(entry.set, set));
      if (touches(context.overlay, cidr)) refused.push(`${cidr} overlaps the overlay's own ranges`);
      else if (touches(SPECIAL_RANGES, cidr)) refused.push(`${cidr} overlaps loopback, link-local or multicast addresses`);
      else if (rival !== undefined) conflicts.push(`${cidr} overlaps ${rival.cidr} of the older site ${rival.site}`);
      else {
        effective.push(cidr);
        taken.push({ site: site.metadata.name, set, cidr });
      }
    }
    out.set(site.metadata.name, { effective: effective.sort(), conditions: conditionsOf(conflicts, refused) });
  }
  return out;
}

/** The nodes of a site that carry what crosses sites, best first; `left`: how many are selected beyond those. */
export function siteGateways(context: Context, site: Resource<"Site">): { readonly gateways: readonly Gateway[]; readonly left: number } {
  const known = gatewaysOf.get(context) ?? new Map<Resource<"Site">, { readonly gateways: readonly Gateway[]; readonly left: number }>();
  gatewaysOf.set(context, known);
  let found = known.get(site);
  if (found === undefined) {
    const selected = context.nodes.filter((node) => node.site === site).filter(selects(site.spec.gateways));
    const given = site.spec.gateways !== undefined;
    const ranked = given ? rankGateways(selected.map((node) => ({ node, priority: PRIORITY }))) : byJoin(selected);
    const gateways = ranked.slice(0, given ? MAX_PATH_GATEWAYS : DEFAULT_SITE_GATEWAYS);
    found = { gateways, left: ranked.length - gateways.length };
    known.set(site, found);
  }
  return found;
}

function byJoin(nodes: readonly NodeContext[]): Gateway[] {
  const oldest = [...nodes].sort((a, b) => a.created - b.created || byName(a.resource, b.resource));
  return oldest.map(({ name }) => ({ node: name, priority: PRIORITY }));
}

/** Every part of one run asks, each for all nodes. */
const gatewaysOf = new WeakMap<Context, Map<Resource<"Site">, { readonly gateways: readonly Gateway[]; readonly left: number }>>();

export function isSiteGateway(context: Context, { site, name }: NodeContext): boolean {
  return site !== undefined && siteGateways(context, site).gateways.some(({ node }) => node === name);
}

/** One path per site that has subnets in effect. */
export function compileSite(context: Context, site: Resource<"Site">, ownership: SubnetOwnership): Compiled {
  const name = site.metadata.name;
  const { effective, conditions } = ownership;
  const crossing = context.network.topology === "SiteGateways";
  if (effective.length === 0 && !crossing) {
    // Nobody crosses by its gateways, and a thousand nodes are not ranked for nothing.
    return { draft: undefined, status: { kind: "Site", name, conditions: [ACCEPTED, ...conditions], nodes: [], gateways: [] } };
  }
  const { gateways, left } = siteGateways(context, site);
  if (effective.length === 0) {
    const resolved = context.nodes.some((node) => node.site === site) ? [gatewaysResolved(gateways, left, NOT_CROSSED)] : [];
    return { draft: undefined, status: { kind: "Site", name, conditions: [ACCEPTED, ...resolved, ...conditions], nodes: [], gateways: [] } };
  }
  const others = context.nodes.filter((node) => node.resource.spec.site !== name);
  const clients = crossing ? others.filter((node) => isSiteGateway(context, node)) : others;
  const draft: PathDraft = {
    kind: "path",
    id: `subnet/${name}`,
    plan: {
      created: createdAt(site),
      intervalMs: durationMs(health.interval),
      threshold: health.threshold,
      holdDownMs: durationMs(health.holdDown),
      ...PATH_DEFAULTS,
      snat: { type: site.spec.snat },
    },
    gateways,
    clients,
    serve: {
      snat: { type: site.spec.snat },
      uplink: [],
      uplinkIntervalMs: durationMs(health.uplinkInterval),
      threshold: health.threshold,
      holdDownMs: durationMs(health.holdDown),
    },
    destinations: effective,
  };
  return {
    draft,
    status: {
      kind: "Site",
      name,
      id: draft.id,
      conditions: [ACCEPTED, gatewaysResolved(gateways, left, NOT_REACHED), ...conditions],
      nodes: namesOf(clients),
      gateways: gateways.map(({ node }) => node),
    },
  };
}

function conditionsOf(conflicts: readonly string[], refused: readonly string[]): CompileCondition[] {
  const conditions: CompileCondition[] = [];
  if (conflicts.length > 0) conditions.push({ type: "Conflict", status: "True", reason: "OverlapsSubnet", message: conflicts.join("; ") });
  if (refused.length > 0) conditions.push({ type: "DestinationsAccepted", status: "False", reason: "SomeRefused", message: refused.join("; ") });
  return conditions;
}
