/** What elections see and say. All times are milliseconds of the agent's monotonic clock. */
import type { NodeName } from "../model/scalars.ts";

export type LinkVerdict = "Up" | "Down" | "Unknown";

/** What a gateway says of itself on the link (`mesh/model/link-state`): pushed on change, asked each second. */
export type GatewayState = "Serving" | "Draining" | "UplinkDown" | "Unknown";

/** A link to one gateway, folded from probes and state messages. */
export interface LinkView {
  readonly node: NodeName;
  readonly verdict: LinkVerdict;
  readonly since: number;
  readonly gateway: GatewayState;
  /** Whether the gateway serves a given path (uplink checks are per path); absent means `gateway` speaks for all. */
  readonly downPaths?: readonly string[];
  readonly srttMs: number | undefined;
  /** Set while the verdict is Down although the link answers again: when its quiet period ends. A last resort until then. */
  readonly holdDownUntil?: number;
}

/** Typed reasons (I7). A reason is stable for programs; `message` is for people. */
export const REASONS = {
  Preferred: "the best gateway that is healthy",
  OnlyHealthy: "no better gateway is healthy",
  Sticky: "still healthy; failback waits or is manual",
  GatewayDown: "the gateway before it stopped answering probes",
  UplinkDown: "the gateway before it lost its uplink",
  Draining: "the gateway before it is being drained",
  LastKnown: "no gateway is believed alive; the last working choice stays",
  NoneEverAlive: "no gateway was ever alive",
  NoGateway: "no node is selected as its gateway; select one that is there, or join or label one",
  NotHeardYet: "until the first probes have spoken it stays as it is",
  OwnStall: "this node's own probing stalled; nothing moves",
  PlanChanged: "the intent changed",
  Spread: "spread over all healthy gateways of the best priority",
  SelfGateway: "this node is a gateway of the path; the traffic leaves here",
} as const;
export type Reason = keyof typeof REASONS;

/** The choice stands although nobody believes that it gets anything through (I4). */
export function isForlorn(reason: Reason): boolean {
  return reason === "LastKnown" || reason === "NoneEverAlive";
}

/** As said last: a standstill of this node's own probing tells nothing new of it. */
export function wasForlorn(choice: { readonly reason: Reason; readonly forlorn?: true } | undefined): boolean {
  return choice !== undefined && (isForlorn(choice.reason) || choice.forlorn === true);
}

/**
 * Why a candidate is not chosen. `Retiring`: the intent let it go, it serves established flows only. `HoldDown`: it answers again,
 * its quiet period runs. `Failback`: healthy and preferred, the intent's failback is delayed (from `since` on) or manual.
 * `NotAPeer`: there is no link to it.
 */
export interface Rejected {
  readonly node: NodeName;
  readonly why: "Down" | "Unknown" | "UplinkDown" | "Draining" | "Retiring" | "LowerPreference" | "HoldDown" | "Failback" | "Self" | "NotAPeer";
  readonly since: number;
}

/** The choice for one path. `active` is empty only when no gateway was ever alive, none was heard yet, or the path has none. */
export interface Choice {
  readonly active: readonly NodeName[];
  readonly reason: Reason;
  readonly since: number;
  readonly rejected: readonly Rejected[];
  /** Gateways that were left by a planned move: established flows stay on them `until` then; `since` when, if it is known. */
  readonly draining: readonly { readonly node: NodeName; readonly since?: number; readonly until: number }[];
  /** When the election wants to be asked again although nothing changed (failback delay, hold-down, drain end). */
  readonly wakeAt: number | undefined;
  /** The plan's order when `active` was chosen: a gateway that a later plan puts before it is taken at once. */
  readonly order?: readonly NodeName[];
  /** A first choice, made while better gateways did not answer: until then a better one is taken at once. */
  readonly provisionalUntil?: number;
  /** With `OwnStall`: nobody was believed alive when it began. */
  readonly forlorn?: true;
}
