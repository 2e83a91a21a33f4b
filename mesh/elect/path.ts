/**
 * Which gateway carries a path, and why. Pure: plan, links, the choice before and the time go in, the choice comes out.
 *
 *   alive         the best tier wins (`rank.ts`), then the plan's order
 *   sticky        a gateway that carries stays until a better one has waited out the intent's failback
 *   planned move  the old gateway is still alive: its established flows keep it until `drainTimeout`
 *   nobody alive  the last working choice stays (I4)
 *   own stall     nothing moves
 */
import type { PathId, PathPlan } from "../model/plan.ts";
import type { NodeName } from "../model/scalars.ts";
import { isAlive, TIER, tierOf, whyRejected, type Candidate, type Tier } from "./rank.ts";
import { type Choice, type LinkView, type Reason, type Rejected, wasForlorn } from "./types.ts";

/**
 * After a first choice, made while better gateways did not answer, a better one is taken at once for so long. A first handshake
 * that came before the gateway knew its client is repeated after 5 s (REKEY_TIMEOUT): that gateway is not to wait for failback.
 */
export const SETTLE_MS = 8_000;

export interface PathInput {
  readonly id: PathId;
  readonly path: PathPlan;
  readonly self: NodeName;
  /** Also those of gateways that a choice still uses although the plan no longer names them (make before break, I5). */
  readonly links: ReadonlyMap<NodeName, LinkView>;
  readonly previous: Choice | undefined;
  /** This node's own probing stalled (`stall.ts`). */
  readonly stalled: boolean;
  readonly now: number;
}

/** Why a gateway that is alive is left for a better one. */
const LEFT: Partial<Record<Tier, Reason>> = { [TIER.Draining]: "Draining", [TIER.Retiring]: "PlanChanged" };

/** What is to be in use, before times and the rest are put in. */
interface Pick {
  readonly active: readonly NodeName[];
  readonly reason: Reason;
}

/** A choice that was in force before this process: what the kernel or the cache still holds (I2). */
export function adoptedChoice(active: readonly NodeName[], now: number): Choice {
  return { active, reason: "NotHeardYet", since: now, rejected: [], draining: [], wakeAt: undefined };
}

/** Elects. Returns `previous` itself when nothing changed. */
export function electPath(input: PathInput): Choice {
  const { path, previous } = input;
  if (path.gateways.some(({ node }) => node === input.self)) return finish(input, [], { active: [], reason: "SelfGateway" });
  const candidates: Candidate[] = path.gateways.map(({ node, priority, drainMs, retiring }, rank) => {
    const link = input.links.get(node);
    const tier = tierOf(input.id, link, retiring);
    // The plan's word comes before the gateway's own: who told the controller that he knows of a drain does not go back there.
    return { node, priority, rank, link, tier: tier === TIER.Good && drainMs !== undefined ? TIER.Draining : tier };
  });
  const current = candidates.filter(({ node }) => previous?.active.includes(node));
  const pick = choose(input, candidates, current);
  const held = input.stalled && current.length > 0 && !sameNodes(pick.active, nodes(current));
  return finish(input, candidates, held ? { active: nodes(current), reason: "OwnStall" } : pick);
}

function choose(input: PathInput, candidates: readonly Candidate[], current: readonly Candidate[]): Pick {
  const alive = candidates.filter(({ tier }) => isAlive(tier));
  if (alive.length === 0) return nobodyAlive(input, candidates, current);
  return input.path.strategy === "Spread" ? spread(input, alive, candidates, current) : failover(input, alive, candidates, current[0]);
}

function nobodyAlive(input: PathInput, candidates: readonly Candidate[], current: readonly Candidate[]): Pick {
  // Not heard since the start is not dead: what carried before goes on, for its own reason, until the probes have spoken (I2).
  const unheard = current.some(({ tier, link }) => tier === TIER.Unheard || link === undefined);
  if (current.length > 0) return { active: nodes(current), reason: (unheard ? input.previous?.reason : undefined) ?? "LastKnown" };
  // The plan named other gateways; the old one carries on until the new ones have been heard, or found dead.
  const working = (input.previous?.active ?? []).filter((node) => isAlive(tierOf(input.id, input.links.get(node))));
  if (working.length > 0 && candidates.some(({ tier }) => tier === TIER.Unheard)) return { active: working, reason: "PlanChanged" };
  if (candidates.length === 0) return { active: [], reason: "NoGateway" };
  return { active: [], reason: candidates.some((one) => isAwaited(one, input.previous)) ? "NotHeardYet" : "NoneEverAlive" };
}

/** Its first probes are on their way; a link that is missing for the first time is made with this choice. */
function isAwaited({ node, tier, link }: Candidate, previous: Choice | undefined): boolean {
  return tier === TIER.Unheard || (link === undefined && sinceOf(previous, node, "NotAPeer") === undefined);
}

function failover(input: PathInput, alive: readonly Candidate[], candidates: readonly Candidate[], current: Candidate | undefined): Pick {
  const best = alive.reduce((a, b) => (b.tier < a.tier ? b : a));
  if (current === undefined) {
    const replaced = (input.previous?.active.length ?? 0) > 0;
    return { active: [best.node], reason: replaced ? "PlanChanged" : standing(best, candidates) };
  }
  if (current.tier === TIER.Unheard) return stay(input, current, candidates);
  if (!isAlive(current.tier)) return { active: [best.node], reason: current.tier === TIER.NoUplink ? "UplinkDown" : "GatewayDown" };
  if (best.tier < current.tier) return { active: [best.node], reason: LEFT[current.tier] ?? standing(best, candidates) };
  if (current.tier !== TIER.Good) return stay(input, current, candidates);
  const ripe = alive.find((one) => one.rank < current.rank && one.tier === TIER.Good && isRipe(input, one, current));
  if (ripe === undefined) return stay(input, current, candidates);
  const reason = standing(ripe, candidates);
  return { active: [ripe.node], reason: reason !== "Sticky" && isNewlyPreferred(input, ripe, current) ? "PlanChanged" : reason };
}

/** All good gateways of one priority. Members come and go at once (the links' hysteresis calms them); groups fail back. */
function spread(input: PathInput, alive: readonly Candidate[], candidates: readonly Candidate[], current: readonly Candidate[]): Pick {
  const tier = Math.min(...alive.map((one) => one.tier));
  const pool = alive.filter((one) => one.tier === tier);
  const kept = current.filter((one) => one.tier === tier || one.tier === TIER.Unheard);
  const first = kept[0];
  const ripe = first === undefined ? pool : pool.filter((one) => tier === TIER.Good && one.priority > first.priority && isRipe(input, one, first));
  const priority = Math.max(...ripe.map((one) => one.priority), first?.priority ?? -Infinity);
  const members = candidates.filter((one) => one.priority === priority && (one.tier === tier || kept.includes(one)));
  return { active: nodes(members), reason: "Spread" };
}

/** Whether a better gateway may take over from a good one now. */
function isRipe(input: PathInput, better: Candidate, current: Candidate): boolean {
  const { previous, now } = input;
  const { type, delayMs } = input.path.failback;
  if (type === "Immediate" || isNewlyPreferred(input, better, current)) return true;
  if (previous?.provisionalUntil !== undefined && now < previous.provisionalUntil) return true;
  return type === "Delayed" && now >= waitsSince(previous, better.node, now) + delayMs;
}

/** The plan put it before the gateway in use after that one was chosen. */
function isNewlyPreferred(input: PathInput, better: Candidate, current: Candidate): boolean {
  const order = input.previous?.order;
  if (order === undefined) return false;
  const [was, now] = [order.indexOf(better.node), order.indexOf(current.node)];
  return now >= 0 && (was < 0 || was > now);
}

function stay(input: PathInput, current: Candidate, candidates: readonly Candidate[]): Pick {
  const before = input.previous?.reason;
  const now = standing(current, candidates);
  const keeps =
    now !== "Sticky" &&
    now !== "Preferred" &&
    (before === "GatewayDown" || before === "UplinkDown" || before === "Draining" || before === "OnlyHealthy");
  // How it came to be first stays visible until something else happens.
  const cause = now === "Preferred" && (before === "GatewayDown" || before === "UplinkDown" || before === "Draining");
  const planned = now !== "Sticky" && before === "PlanChanged";
  return { active: [current.node], reason: before !== undefined && (keeps || cause || planned) ? before : now };
}

/** What can be said of a gateway that carries, looking only at those before it. */
function standing(current: Candidate, candidates: readonly Candidate[]): Reason {
  if (current.rank === 0) return "Preferred";
  return candidates.some((one) => one.rank < current.rank && one.tier === TIER.Good) ? "Sticky" : "OnlyHealthy";
}

function finish(input: PathInput, candidates: readonly Candidate[], pick: Pick): Choice {
  const { previous, now, path } = input;
  const changed = !sameNodes(pick.active, previous?.active ?? []);
  const draining = drainingAfter(input, pick.active);
  const rejected = rejectedBy(input, candidates, pick.active);
  const provisionalUntil = provisional(previous, candidates, pick.active, now);
  const order = changed || previous === undefined ? path.gateways.map(({ node }) => node) : previous.order;
  const ripening =
    path.failback.type === "Delayed" ? rejected.filter(({ why }) => why === "Failback").map(({ since }) => since + path.failback.delayMs) : [];
  const times = [...draining.map(({ until }) => until), ...ripening].filter((at) => at > now);
  const choice: Choice = {
    active: pick.active,
    reason: pick.reason,
    since: !changed && previous?.reason === pick.reason ? previous.since : now,
    rejected,
    draining,
    wakeAt: times.length === 0 ? undefined : Math.min(...times),
    ...(order === undefined ? {} : { order }),
    ...(provisionalUntil === undefined ? {} : { provisionalUntil }),
    ...(pick.reason === "OwnStall" && wasForlorn(previous) ? { forlorn: true } : {}),
  };
  return previous !== undefined && JSON.stringify(previous) === JSON.stringify(choice) ? previous : choice;
}

/** Flows stay only on gateways that were left alive and still are; a drain may name its timeout after the move has begun. */
function drainingAfter({ id, path, links, previous, now }: PathInput, active: readonly NodeName[]): Choice["draining"] {
  if (previous === undefined) return [];
  const left = previous.active
    .filter((node) => !previous.draining.some((one) => one.node === node))
    .map((node) => ({ node, since: now, until: now }));
  const timeoutOf = (node: NodeName): number => path.gateways.find((gateway) => gateway.node === node)?.drainMs ?? path.drainTimeoutMs;
  const all = [...previous.draining, ...left].map((one) =>
    one.since === undefined ? one : { node: one.node, since: one.since, until: one.since + timeoutOf(one.node) },
  );
  return all.filter(({ node, until }) => until > now && !active.includes(node) && keepsFlows(id, links.get(node)));
}

/** After a restart a link is not heard yet: its flows stay where they are (I2). */
function keepsFlows(id: PathId, link: LinkView | undefined): boolean {
  return link === undefined || tierOf(id, link) <= TIER.Unheard;
}

function rejectedBy(input: PathInput, candidates: readonly Candidate[], active: readonly NodeName[]): Rejected[] {
  const { previous, now } = input;
  if (candidates.length === 0)
    return input.path.gateways.map(({ node }) => ({ node, why: "Self" as const, since: sinceOf(previous, node, "Self") ?? now }));
  const used = candidates.filter(({ node }) => active.includes(node));
  const isBefore = (one: Candidate): boolean =>
    used.length > 0 &&
    (input.path.strategy === "Spread" ? used.every(({ priority }) => one.priority > priority) : used.every(({ rank }) => one.rank < rank));
  return candidates
    .filter((one) => !used.includes(one))
    .map((one) => {
      const why = whyRejected(one.tier, one.link, isBefore(one));
      const fallback = (why === "Down" || why === "HoldDown" || why === "Unknown") && one.link !== undefined ? one.link.since : now;
      return { node: one.node, why, since: sinceOf(previous, one.node, why) ?? fallback };
    });
}

/** A first choice is provisional while better gateways may still be on their way: links that are new on both ends take a moment. */
function provisional(previous: Choice | undefined, candidates: readonly Candidate[], active: readonly NodeName[], now: number): number | undefined {
  const used = candidates.find(({ node }) => active.includes(node));
  const awaited = used !== undefined && candidates.some((one) => one.rank < used.rank && one.tier >= TIER.Unheard);
  if (previous === undefined || previous.active.length === 0) return awaited ? now + SETTLE_MS : undefined;
  const until = previous.provisionalUntil;
  // It is over with the move that it was for; what fails after that is no first contact.
  const over = !awaited && !sameNodes(active, previous.active);
  return until === undefined || until <= now || over ? undefined : until;
}

function waitsSince(previous: Choice | undefined, node: NodeName, now: number): number {
  return sinceOf(previous, node, "Failback") ?? now;
}

function sinceOf(previous: Choice | undefined, node: NodeName, why: Rejected["why"]): number | undefined {
  return previous?.rejected.find((one) => one.node === node && one.why === why)?.since;
}

function nodes(list: readonly Candidate[]): NodeName[] {
  return list.map(({ node }) => node);
}

function sameNodes(a: readonly NodeName[], b: readonly NodeName[]): boolean {
  return a.length === b.length && a.every((node) => b.includes(node));
}
