/**
 * Nexthop objects: a device nexthop per link, a group per path, and a group per link for its pinned flows. Moving any
 * number of destinations is one replaced group.
 */
import type { PathId } from "../model/plan.ts";
import type { NodeName } from "../model/scalars.ts";
import { serves } from "./claims.ts";
import { FLOW_GROUP, LINK_NEXTHOP, linkInterface, PATH_GROUP, PATH_GROUPS } from "./layout.ts";
import { isOpen } from "./pairs.ts";
import type { DesiredInput, Nexthop } from "./types.ts";
import { linkCarriesV6 } from "./wireguard.ts";

export interface Groups {
  readonly nexthops: Map<number, Nexthop>;
  /** Group of each path that has a gateway in use. */
  readonly byPath: ReadonlyMap<string, number>;
}

export function desiredNexthops(input: DesiredInput): Groups {
  const nexthops = new Map<number, Nexthop>();
  const byPath = new Map<string, number>();
  const links = [...input.links].filter(([name]) => input.plan.peers.has(name)).sort(([, a], [, b]) => a - b);
  // A v6 device nexthop serves both families; below 1280 bytes the kernel has no IPv6 on the device and refuses it.
  for (const [name, k] of links) {
    const family = linkCarriesV6(input, name) ? {} : ({ family: 4 } as const);
    nexthops.set(LINK_NEXTHOP + k, { id: LINK_NEXTHOP + k, dev: linkInterface(k), ...family });
  }
  for (const [name, k] of links) nexthops.set(FLOW_GROUP + k, { id: FLOW_GROUP + k, group: [LINK_NEXTHOP + flowLink(input, name, k)] });

  const ids = [...input.plan.paths.keys()].filter((id) => !serves(input.plan, id)).sort();
  for (const [id, slot] of pathSlots(ids)) {
    const members = membersOf(input, id);
    if (members.length === 0) continue;
    nexthops.set(slot, { id: slot, group: members });
    byPath.set(id, slot);
  }
  return { nexthops, byPath };
}

/** Ids that do not move when another path comes or goes: a hash of the path's id, the next free one on a collision. */
export function pathSlots(ids: readonly PathId[]): Map<PathId, number> {
  const taken = new Set<number>();
  const slots = new Map<PathId, number>();
  for (const id of [...ids].sort()) {
    let slot = fnv1a(id) % PATH_GROUPS;
    while (taken.has(slot)) slot = (slot + 1) % PATH_GROUPS;
    taken.add(slot);
    slots.set(id, PATH_GROUP + slot);
  }
  return slots;
}

function membersOf(input: DesiredInput, id: PathId): number[] {
  const links = (input.choices.get(id)?.active ?? []).flatMap((name) => linkOf(input, name));
  return [...new Set(links)].sort((a, b) => a - b).map((k) => LINK_NEXTHOP + k);
}

function linkOf(input: DesiredInput, name: NodeName): number[] {
  const k = input.links.get(name);
  return k === undefined || !input.plan.peers.has(name) ? [] : [k];
}

/**
 * Where the flows pinned to a link go: the link itself, unless it is believed dead, or nothing uses it any more (its
 * drain time is over). Then a live link of a path that it served takes them: they are reset instead of hanging.
 */
function flowLink(input: DesiredInput, name: NodeName, k: number): number {
  const choices = [...input.choices.values()];
  const used = choices.some((choice) => choice.active.includes(name) || choice.draining.some((drain) => drain.node === name));
  // Flows that others began are on it as long as those send them there: they end with a drain, not with this node's own choice.
  const drained = choices.some(({ rejected }) => rejected.some((one) => one.node === name && one.why === "Draining"));
  if ((used || (isOpen(input.plan, name) && !drained)) && !input.deadLinks.has(name)) return k;
  for (const id of [...input.plan.paths.keys()].sort()) {
    if (serves(input.plan, id) || !input.plan.paths.get(id)?.gateways.some(({ node }) => node === name)) continue;
    const live = (input.choices.get(id)?.active ?? [])
      .filter((node) => node !== name && !input.deadLinks.has(node))
      .flatMap((node) => linkOf(input, node));
    if (live.length > 0) return Math.min(...live);
  }
  return k;
}

/** FNV-1a, 32 bits: small, and the same everywhere. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
