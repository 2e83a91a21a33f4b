/**
 * Which site gateways share a link of their own, with everything allowed on both ends. Each is the other's client: it reaches the
 * other site's LAN there. Where machines of a LAN keep their addresses, they may come in by any gateway of their site, and a
 * WireGuard interface with several peers knows one peer per prefix only.
 */
import { intoSite } from "../model/plan.ts";
import type { NodeName } from "../model/scalars.ts";
import type { PathDraft } from "./drafts.ts";
import { createMemo } from "./memo.ts";

/** Partners of each site gateway; a node without any is not in it. */
export type Pairs = ReadonlyMap<NodeName, ReadonlySet<NodeName>>;

const NONE: Pairs = new Map();

/** The same pairs are the same sets, so that what is made from them can be remembered. */
export function createPairCompiler(): (drafts: readonly PathDraft[]) => Pairs {
  const memo = createMemo<Pairs>();
  return (drafts) => {
    const sites = drafts.flatMap(({ id, serve, gateways }): Site[] =>
      intoSite(id) ? [{ keeps: serve.snat.type === "None", gateways: gateways.map(({ node }) => node) }] : [],
    );
    const pairs = sites.some(({ keeps }) => keeps) ? memo.get("all", [JSON.stringify(sites)], () => pairsOf(sites)) : NONE;
    memo.endRun();
    return pairs;
  };
}

/** A site with subnets in effect, or one whose nodes are reached through its gateways. */
interface Site {
  /** What is behind the gateways keeps its addresses. */
  readonly keeps: boolean;
  readonly gateways: readonly NodeName[];
}

function pairsOf(sites: readonly Site[]): Pairs {
  const pairs = new Map<NodeName, Set<NodeName>>();
  const add = (one: NodeName, other: NodeName): void => void pairs.set(one, (pairs.get(one) ?? new Set()).add(other));
  sites.forEach((site, i) => {
    for (const other of sites.slice(i + 1)) {
      if (!site.keeps && !other.keeps) continue;
      for (const a of site.gateways) {
        for (const b of other.gateways) {
          // A node that has just moved to another site may still serve flows of the site before: it is no client of either.
          if (site.gateways.includes(b) || other.gateways.includes(a)) continue;
          add(a, b);
          add(b, a);
        }
      }
    }
  });
  return pairs;
}
