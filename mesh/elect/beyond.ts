/**
 * Topology SiteGateways: what a gateway carries for the other nodes of its site, it carries by links to gateways of other sites. Those nodes see
 * its link to them only, so that a gateway without a way out has to say so (docs/decisions/018).
 */
import type { PathId, Plan } from "../model/plan.ts";
import type { NodeName } from "../model/scalars.ts";
import type { LinkView } from "./types.ts";

/**
 * The path by which this node serves its own site, while it reaches no gateway of any other site. One site alone says nothing: then all
 * gateways would say the same of a site that is dead.
 */
export function cutOff(plan: Beyond, links: ReadonlyMap<NodeName, LinkView>): PathId[] {
  const { lost, others } = sitesBeyond(plan, links);
  return lost.length > 0 && others === 0 ? [`via/${plan.self.site}`] : [];
}

/** Sites of which it reaches no gateway, as `site/<site>`, while it reaches another one: it is said to its own site's nodes, and moves none. */
export function lostSites(plan: Beyond, links: ReadonlyMap<NodeName, LinkView>): PathId[] {
  const { lost, others } = sitesBeyond(plan, links);
  return others > 0 ? lost : [];
}

type Beyond = Pick<Plan, "self" | "serves" | "paths">;

function sitesBeyond({ self, serves, paths }: Beyond, links: ReadonlyMap<NodeName, LinkView>): { readonly lost: PathId[]; readonly others: number } {
  if (!serves.has(`via/${self.site}`)) return { lost: [], others: 0 };
  const known = [...paths].flatMap(([id, { gateways }]) => {
    const views = id.startsWith("site/") ? gateways.flatMap(({ node }) => links.get(node) ?? []) : [];
    return views.length === 0 ? [] : [{ id, silent: views.every(({ verdict, holdDownUntil }) => verdict === "Down" && holdDownUntil === undefined) }];
  });
  const lost = known.flatMap(({ id, silent }) => (silent ? [id] : []));
  return { lost: lost.toSorted(), others: known.length - lost.length };
}

/** Sites that a gateway of this node's own site says it does not reach. */
export function sitesOutOfReach({ downPaths = [] }: Pick<LinkView, "downPaths">): string[] {
  return downPaths.flatMap((id) => (id.startsWith("site/") ? [id.slice("site/".length)] : []));
}
