/** Gateways that this node cannot use, in words for people: also while others carry its traffic (I7). Pure. */
import { sitesOutOfReach } from "../mesh/elect/beyond.ts";
import type { Choice, LinkView } from "../mesh/elect/types.ts";
import type { PathId } from "../mesh/model/plan.ts";
import type { NodeName } from "../mesh/model/scalars.ts";

const MOST = 5;

export function unusableText(paths: ReadonlyMap<PathId, Choice>, links: ReadonlyMap<NodeName, LinkView>): string | undefined {
  const dead = new Map<string, PathId[]>();
  const beyond: string[] = [];
  for (const [id, { active, rejected }] of paths) {
    for (const { node, why } of rejected) {
      const text = why === "Down" ? "the link to it does not answer" : why === "UplinkDown" ? "it says that its way out is down" : undefined;
      if (text === undefined) continue;
      const key = `${node}: ${text}`;
      dead.set(key, [...(dead.get(key) ?? []), id]);
    }
    if (!id.startsWith("via/")) continue;
    for (const node of active) {
      const lost = sitesOutOfReach(links.get(node) ?? {});
      if (lost.length > 0)
        beyond.push(
          `${node}, which carries ${id}, does not reach site ${lost.join(", ")}: drain it if another gateway does, and see its links there`,
        );
    }
  }
  const said = [...beyond, ...[...dead].map(([key, ids]) => `${key} (${few(ids)})`)];
  return said.length === 0 ? undefined : few(said, "; ");
}

function few(items: readonly string[], separator = ", "): string {
  const more = items.length > MOST ? [`and ${items.length - MOST} more`] : [];
  return [...items.slice(0, MOST), ...more].join(separator);
}
