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
export function cutOff({ self, serves, paths }: Pick<Plan, "self" | "serves" | "paths">, links: ReadonlyMap<NodeName, LinkView>): PathId[] {
  const via: PathId = `via/${self.site}`;
  if (!serves.has(via)) return [];
  const beyond = [...paths].flatMap(([id, { gateways }]) => (id.startsWith("site/") ? gateways.flatMap(({ node }) => links.get(node) ?? []) : []));
  const silent = beyond.every(({ verdict, holdDownUntil }) => verdict === "Down" && holdDownUntil === undefined);
  return beyond.length > 0 && silent ? [via] : [];
}
