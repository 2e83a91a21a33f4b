/**
 * Numbers of the client links: `ismg<k>`, k from 1 to 63, one per gateway node in use. A number stays with its gateway
 * across plans and restarts, because interface, table, mark and UDP port hang on it.
 */
import { z } from "zod";
import { MAX_LINKS, type KernelState } from "../mesh/kernel/types.ts";
import type { Choice } from "../mesh/elect/types.ts";
import type { PathId, Plan } from "../mesh/model/plan.ts";
import { NodeName } from "../mesh/model/scalars.ts";

export type Links = ReadonlyMap<NodeName, number>;

const Stored = z.record(z.string(), z.int().min(1).max(MAX_LINKS));

export function parseLinks(value: unknown): Links {
  return new Map(Object.entries(Stored.parse(value)).map(([node, k]) => [NodeName.parse(node), k]));
}

export function formatLinks(links: Links): string {
  return JSON.stringify(Object.fromEntries(links));
}

/**
 * Gateways that this node's own paths use: every candidate gets a warm link, and one that a choice still uses although the
 * plan no longer names it keeps its link until the choice has let go (make before break, I5). Sorted.
 */
export function gatewaysInUse(plan: Plan, choices: ReadonlyMap<PathId, Pick<Choice, "active" | "draining">> = new Map()): NodeName[] {
  const used = new Set<NodeName>();
  for (const path of plan.paths.values()) {
    // A gateway of the path itself sends the traffic out; it is no client of its own path's other gateways.
    if (path.gateways.some(({ node }) => node === plan.self.name)) continue;
    for (const { node } of path.gateways) if (plan.peers.has(node)) used.add(node);
  }
  for (const [id, { active, draining }] of choices) {
    if (!plan.paths.has(id)) continue;
    for (const node of [...active, ...draining.map((one) => one.node)]) if (plan.peers.has(node)) used.add(node);
  }
  return [...used].toSorted();
}

export interface LinkNumbers {
  readonly links: Links;
  /** Gateways beyond the 63rd: no link, said in a condition. */
  readonly without: readonly NodeName[];
}

/** Keeps numbers in use, adopts those that the kernel shows, gives the lowest free ones to the rest. */
export function numberLinks(needed: readonly NodeName[], before: Links, adopted: Links): LinkNumbers {
  const links = new Map<NodeName, number>();
  const taken = new Set<number>();
  for (const source of [before, adopted]) {
    for (const node of needed) {
      const k = source.get(node);
      if (links.has(node) || k === undefined || taken.has(k)) continue;
      links.set(node, k);
      taken.add(k);
    }
  }
  const without: NodeName[] = [];
  let free = 1;
  for (const node of needed) {
    if (links.has(node)) continue;
    while (taken.has(free)) free++;
    if (free > MAX_LINKS) without.push(node);
    else {
      links.set(node, free);
      taken.add(free);
    }
  }
  return { links, without };
}

/** What is said of gateways without a link. */
export function linksExhausted(without: readonly NodeName[]): string | undefined {
  if (without.length === 0) return undefined;
  return `${MAX_LINKS} links are in use; none for ${without.join(", ")}: select fewer gateways, in intents and in each Site spec.gateways`;
}

/** Links that stand in the kernel: an interface `ismg<k>` whose one peer is a known node. */
export function adoptLinks(plan: Plan, observed: KernelState): Links {
  const byKey = new Map([...plan.peers].map(([node, peer]) => [peer.k as string, node]));
  const found = new Map<NodeName, number>();
  for (const [name, link] of observed.wireguard) {
    const k = Number(/^ismg(\d+)$/.exec(name)?.[1] ?? 0);
    const node = byKey.get([...link.peers.keys()][0] ?? "");
    if (k >= 1 && k <= MAX_LINKS && node !== undefined) found.set(node, k);
  }
  return found;
}
