/**
 * Topology SiteGateways at the door: what crosses sites goes through nodes that somebody chose. A site that chose none is refused,
 * because a machine that joins must not become its gateway by joining; and a site with nodes keeps one of those that it chose.
 */
import { createContextMaker, type Context } from "../../mesh/compile/context.ts";
import { siteGateways } from "../../mesh/compile/sites.ts";
import { IsthmusError } from "../../mesh/errors.ts";
import type { Resource } from "../../mesh/model/resources.ts";
import type { Draft } from "../reconcile/draft.ts";
import { kindFolder, NETWORK, resourceKey, splitKey } from "../reconcile/keys.ts";
import type { Mirror } from "../reconcile/mirror.ts";
import { compileInput } from "../reconcile/planner.ts";

const LOOKED_AT = new Set([kindFolder("MeshNetwork"), kindFolder("Site"), kindFolder("MeshNode")]);

interface Lack {
  readonly site: string;
  readonly what: "Selector" | "Gateway";
  readonly message: string;
  readonly remedy: string;
}

/**
 * Refuses what would leave a site without gateways. What lacked them before does not stand in the way of other changes.
 * @param replaced resources by store key as the draft has them now; undefined where one is deleted
 * @throws {IsthmusError} `Invalid`, with the first such site
 */
export function guardCrossing(draft: Draft, mirror: Mirror, replaced: ReadonlyMap<string, Resource | undefined>): void {
  if (![...replaced.keys()].some((key) => LOOKED_AT.has(splitKey(key).folder))) return;
  // What is read here is compared when the draft is committed: another change at the same time must not take what this one relies on.
  draft.read(resourceKey("MeshNetwork", NETWORK));
  const after = crossing(mirror, replaced);
  if (after === undefined) return;
  for (const site of after.sites) {
    draft.read(resourceKey("Site", site.metadata.name));
    for (const { node } of siteGateways(after, site).gateways.slice(0, 1)) draft.read(resourceKey("MeshNode", node));
  }
  const before = crossing(mirror, new Map());
  const known = new Set((before === undefined ? [] : lacksOf(before)).map(({ site, what }) => `${what} ${site}`));
  const [lack, ...more] = lacksOf(after).filter(({ site, what }) => !known.has(`${what} ${site}`));
  if (lack === undefined) return;
  const others = more.length === 0 ? "" : ` (and ${more.length} more)`;
  throw new IsthmusError("Invalid", lack.message + others, { remedy: lack.remedy });
}

function crossing(mirror: Mirror, replaced: ReadonlyMap<string, Resource | undefined>): Context | undefined {
  const input = compileInput(mirror, replaced);
  return input.network.spec.topology === "SiteGateways" ? createContextMaker()(input) : undefined;
}

function lacksOf(context: Context): Lack[] {
  return context.sites.flatMap((site): Lack[] => {
    const { name } = site.metadata;
    const selector = Object.entries(site.spec.gateways ?? {}).map(([key, value]) => `${key}=${value}`);
    if (selector.length === 0)
      return [
        {
          site: name,
          what: "Selector",
          message: `site ${name} does not say which of its nodes are gateways, which topology SiteGateways needs of every site`,
          remedy: "Give the Site spec.gateways, as in { role: gateway }, and that label to some of its nodes first.",
        },
      ];
    const nodes = context.nodes.filter((node) => node.site === site);
    if (nodes.length === 0 || siteGateways(context, site).gateways.length > 0) return [];
    const said = selector.join(",");
    return [
      {
        site: name,
        what: "Gateway",
        message: `site ${name} would be cut off from all others: none of its ${nodes.length} nodes has ${said}, which its spec.gateways selects`,
        remedy: `Run \`isthmus label node NAME ${said.replaceAll(",", " ")}\` for another node of site ${name} first, or change spec.gateways of the Site.`,
      },
    ];
  });
}
