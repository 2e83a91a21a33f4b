/**
 * Topology SiteGateways: nodes of one site are peers of each other, across sites only the sites' gateways are, over pairwise links. A
 * site's nodes are to other sites what its LANs are: reached through its gateways, and never translated.
 *
 *   site/<site>   the site's other nodes            gateways of other sites → the site's gateways
 *   via/<site>    all that lies beyond the site     the site's other nodes  → the site's gateways
 */
import { LinkHealth } from "../model/health.ts";
import type { PathId } from "../model/plan.ts";
import { durationMs, type Cidr, type NodeName } from "../model/scalars.ts";
import { hostCidr } from "../net/ip.ts";
import { meshAddress, meshRanges } from "../net/overlay.ts";
import { sortCidrs, type ClaimResult } from "./claims.ts";
import type { Context, NodeContext } from "./context.ts";
import { namesOf, type Gateway, type PathDraft } from "./drafts.ts";
import { createKeeper, sameItems } from "./memo.ts";
import { isSiteGateway, PATH_DEFAULTS, siteGateways, type SubnetOwnership } from "./sites.ts";
import type { IntentCompileStatus } from "./types.ts";

export interface SiteMesh {
  readonly drafts: readonly PathDraft[];
  /** For each draft, under its id: who uses which gateways. */
  readonly status: readonly IntentCompileStatus[];
}

const NONE: SiteMesh = { drafts: [], status: [] };
const health = LinkHealth.parse({});
const snat = { type: "None" } as const;

/** Destinations that did not change are the same lists as before. */
export function createSiteMeshCompiler(): (
  context: Context,
  subnets: ReadonlyMap<string, SubnetOwnership>,
  claims: ReadonlyMap<string, ClaimResult>,
) => SiteMesh {
  const lists = createKeeper<readonly Cidr[]>(sameItems);
  return (context, subnets, claims) => {
    if (context.network.topology !== "SiteGateways") return NONE;
    const crossing = context.nodes.filter((node) => isSiteGateway(context, node));
    const granted = (nodes: readonly NodeContext[]): Cidr[] => nodes.flatMap(({ name }) => [...(claims.get(name)?.granted ?? [])]);
    const drafts = context.sites.flatMap((site): PathDraft[] => {
      const name = site.metadata.name as string;
      const { gateways } = siteGateways(context, site);
      const isGateway = new Set<NodeName>(gateways.map(({ node }) => node));
      const inside = context.nodes.filter((node) => node.site === site && !isGateway.has(node.name));
      const own = inside.flatMap((node) => Object.values(meshAddress(context.network, node.resource.spec.index)).map(hostCidr));
      const outside = context.nodes.filter((node) => node.site !== site);
      const lans = [...subnets].flatMap(([other, { effective }]) => (other === name ? [] : [...effective]));
      const draft = (id: PathId, clients: readonly NodeContext[], destinations: readonly Cidr[]): PathDraft =>
        draftOf(id, gateways, clients, lists.keep(id, sortCidrs([...new Set(destinations)])));
      return [
        // Without other nodes, too: the gateways of other sites get their links by it.
        draft(
          `site/${name}`,
          crossing.filter((node) => node.site !== site),
          [...own, ...granted(inside)],
        ),
        ...(inside.length === 0 ? [] : [draft(`via/${name}`, inside, [...meshRanges(context.network), ...lans, ...granted(outside)])]),
      ];
    });
    lists.endRun();
    return { drafts, status: drafts.map(statusOf) };
  };
}

function draftOf(id: PathId, gateways: readonly Gateway[], clients: readonly NodeContext[], destinations: readonly Cidr[]): PathDraft {
  const times = { intervalMs: durationMs(health.interval), threshold: health.threshold, holdDownMs: durationMs(health.holdDown) };
  return {
    kind: "path",
    id,
    // No intent is older: these are the overlay's own addresses.
    plan: { created: 0, ...times, ...PATH_DEFAULTS, snat },
    gateways,
    clients,
    serve: {
      snat,
      uplink: [],
      uplinkIntervalMs: durationMs(health.uplinkInterval),
      threshold: health.threshold,
      holdDownMs: durationMs(health.holdDown),
    },
    destinations,
  };
}

function statusOf({ id, gateways, clients }: PathDraft): IntentCompileStatus {
  const name = id.slice(id.indexOf("/") + 1);
  return { kind: "Site", name, id, conditions: [], nodes: namesOf(clients), gateways: gateways.map(({ node }) => node) };
}
