/** How good a gateway is for one path, as one number: the election's only view of health. */
import type { PathId } from "../model/plan.ts";
import type { NodeName } from "../model/scalars.ts";
import type { LinkView, Rejected } from "./types.ts";

/** Lower is better; up to `LastResort` traffic gets through, from `Unheard` on nobody believes so. */
export const TIER = {
  /** Up, and the gateway takes new flows. */
  Good: 0,
  /** Up, but being drained. */
  Draining: 1,
  /** Up, but the intent let it go: it will not serve for long. */
  Retiring: 2,
  /** Answers again within its quiet period. */
  LastResort: 3,
  /** Not heard yet: neither dead nor alive. */
  Unheard: 4,
  /** The gateway answers and says that this path's uplink is down. */
  NoUplink: 5,
  Dead: 6,
} as const;
export type Tier = (typeof TIER)[keyof typeof TIER];

export function tierOf(id: PathId, link: LinkView | undefined, retiring = false): Tier {
  if (link === undefined) return TIER.Dead;
  if (link.verdict === "Unknown") return TIER.Unheard;
  if (link.verdict === "Down" && link.holdDownUntil === undefined) return TIER.Dead;
  if (uplinkDown(id, link)) return TIER.NoUplink;
  if (link.verdict === "Down") return TIER.LastResort;
  if (retiring) return TIER.Retiring;
  return link.gateway === "Draining" ? TIER.Draining : TIER.Good;
}

/** Whether the gateway is believed to carry the path's traffic (I4). */
export function isAlive(tier: Tier): boolean {
  return tier <= TIER.LastResort;
}

/** Why a candidate of this tier is not in use; `before` when the plan prefers it to the one in use. */
export function whyRejected(tier: Tier, link: LinkView | undefined, before: boolean): Rejected["why"] {
  switch (tier) {
    case TIER.Good:
      return before ? "Failback" : "LowerPreference";
    case TIER.Draining:
      return "Draining";
    case TIER.Retiring:
      return "Retiring";
    case TIER.LastResort:
      return "HoldDown";
    case TIER.Unheard:
      return "Unknown";
    case TIER.NoUplink:
      return "UplinkDown";
    case TIER.Dead:
      return link === undefined ? "NotAPeer" : "Down";
  }
}

/** `UplinkDown` without a list of paths is meant for all of them. */
function uplinkDown(id: PathId, link: LinkView): boolean {
  return link.downPaths !== undefined && link.downPaths.length > 0 ? link.downPaths.includes(id) : link.gateway === "UplinkDown";
}

/** The candidates of a path that this node may choose, best first. */
export interface Candidate {
  readonly node: NodeName;
  readonly priority: number;
  readonly rank: number;
  readonly tier: Tier;
  readonly link: LinkView | undefined;
}
