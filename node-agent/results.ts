/** Per-resource results and events of one pass: what the controller and the user are told (I7). Pure. */
import { type Choice, isForlorn, type Reason, REASONS, wasForlorn } from "../mesh/elect/types.ts";
import { claimsOf } from "../mesh/kernel/desired.ts";
import { pathSlots } from "../mesh/kernel/nexthops.ts";
import type { Operation } from "../mesh/kernel/operations.ts";
import type { Refusal } from "../mesh/kernel/types.ts";
import type { PathId } from "../mesh/model/plan.ts";
import type { NodeName } from "../mesh/model/scalars.ts";
import { type AgentEvent, LONGEST_HOP, type ResourceResult } from "../mesh/model/wire.ts";
import type { Pass } from "./reconcile.ts";

const MESSAGE = 512;

/** What is refused of each path and LAN route, and those that are refused as a whole: no gateway carries anything of them. */
interface Refused {
  readonly byId: ReadonlyMap<string, readonly Refusal[]>;
  readonly whole: ReadonlySet<string>;
}

export function refusedOf({ input: { plan }, desired }: Pass): Refused {
  const byId = Map.groupBy(desired.refusals, ({ id }) => id);
  const wanted = (id: string): number => (plan.paths.get(id as PathId)?.destinations ?? plan.lanRoutes.get(id)?.destinations ?? []).length;
  return { byId, whole: new Set([...byId].flatMap(([id, refusals]) => (refusals.length >= wanted(id) ? [id] : []))) };
}

/** One result for each path and LAN route of the plan. */
export function resultsOf(pass: Pass, wall: (at: number) => number, refused: Refused = refusedOf(pass)): Record<string, ResourceResult> {
  const { plan } = pass.input;
  const failed = failuresById(pass);
  const results: Record<string, ResourceResult> = {};
  const put = (
    id: string,
    nextHop: readonly string[],
    reason: Reason,
    since: number,
    alive: boolean,
    of: Pick<ResourceResult, "draining" | "cordons" | "unusable"> = {},
  ): void => {
    const error = failed.get(id);
    const refusals = refused.byId.get(id) ?? [];
    const forlorn = nextHop.length > 0 && isForlorn(reason);
    const idle = nextHop.length === 0 || refused.whole.has(id);
    const hop = idle ? {} : hopsIn(nextHop, plan.paths.has(id as PathId));
    const at = { since: Math.round(wall(since)), ...of };
    if (error !== undefined) results[id] = { ok: false, reason: "KernelRefused", message: error.slice(0, MESSAGE), ...hop, ...at };
    else if (refusals.length > 0) results[id] = { ok: false, reason: refusals[0]?.why ?? "Refused", message: refusalText(refusals), ...hop, ...at };
    else {
      const ok = alive && !forlorn;
      results[id] = { ok, reason, ...(ok ? {} : { message: faultText(id, reason) }), ...hop, ...at };
    }
  };
  for (const [id, choice] of pass.elections.paths) {
    put(
      id,
      choice.active,
      choice.reason,
      choice.since,
      choice.active.length > 0 || choice.reason === "SelfGateway" || (plan.paths.get(id)?.destinations.length ?? 0) === 0,
      {
        ...listed(
          "draining",
          choice.draining.map(({ node }) => node),
        ),
        ...listed(
          "cordons",
          (plan.paths.get(id)?.gateways ?? []).flatMap(({ node, cordon }) => (cordon === undefined ? [] : [{ gateway: node, cordon }])),
        ),
        ...listed("unusable", unusableOf(choice)),
      },
    );
  }
  for (const [id, choice] of pass.elections.lans) put(id, choice.gateways, choice.reason, choice.since, choice.gateways.length > 0);
  return results;
}

function listed<K extends string, T>(key: K, items: readonly T[]): { readonly [P in K]?: T[] } {
  return items.length === 0 ? {} : ({ [key]: items.slice(0, 64) } as { readonly [P in K]: T[] });
}

/** Those that failed, not those that are merely not preferred, not heard yet, or drained by somebody. */
function unusableOf({ rejected }: Choice): NonNullable<ResourceResult["unusable"]> {
  return rejected.flatMap(({ node, why }) => (why === "Down" || why === "UplinkDown" ? [{ gateway: node, why }] : []));
}

/** Who drains a gateway must find it here, however many there are. */
export function hopsIn(hops: readonly string[], nodes: boolean): Pick<ResourceResult, "nextHop" | "active"> {
  const nextHop = hops.join(",");
  return { nextHop: nextHop.slice(0, LONGEST_HOP), ...(nodes && nextHop.length >= LONGEST_HOP ? { active: hops.slice(0, 64) as NodeName[] } : {}) };
}

/** What can be done where no gateway is believed to carry the traffic. */
function faultText(id: string, reason: Reason): string {
  if (!isForlorn(reason)) return REASONS[reason];
  const lan = id.startsWith("lanroute/") || id.startsWith("staticroute/");
  const remedy = lan
    ? "is the router up, and does it answer its health check? `health.type: none` believes it alive always"
    : "look at the gateways (`isthmus status` on them) and at their uplinks";
  return `${REASONS[reason]}; ${remedy}`;
}

/** One event per path whose gateway changed, or that lost its last living one; not one per destination, and none where nothing is routed. */
export function moveEvents(pass: Pass, refused: Refused = refusedOf(pass)): Omit<AgentEvent, "at">[] {
  const events: Omit<AgentEvent, "at">[] = [];
  const move = (
    id: string,
    before: readonly string[] | undefined,
    after: readonly string[],
    reason: Reason,
    forlorn: { readonly before: boolean; readonly now: boolean },
  ): void => {
    if (refused.whole.has(id)) return;
    if (before === undefined ? after.length === 0 : before.join() === after.join()) {
      const lost = forlorn.now;
      if (after.length === 0 || lost === forlorn.before) return;
      const message = lost ? `${id} stays with ${after.join(", ")}: ${REASONS[reason]}` : `${id} is carried by ${after.join(", ")} again`;
      events.push({ type: lost ? "Warning" : "Normal", reason, message, about: id });
      return;
    }
    const from = before === undefined || before.length === 0 ? "" : ` from ${before.join(", ")}`;
    const to = after.length === 0 ? "no gateway" : after.join(", ");
    events.push({
      type: reason === "GatewayDown" || reason === "UplinkDown" || after.length === 0 || isForlorn(reason) ? "Warning" : "Normal",
      reason,
      message: `${id} goes${from} to ${to}: ${REASONS[reason]}`,
      about: id,
    });
  };
  for (const [id, choice] of pass.elections.paths) {
    const before = pass.before.paths.get(id);
    move(id, before?.active, choice.active, choice.reason, { before: wasForlorn(before), now: wasForlorn(choice) });
  }
  for (const [id, choice] of pass.elections.lans) {
    const before = pass.before.lans.get(id);
    move(id, before?.gateways, choice.gateways, choice.reason, { before: wasForlorn(before), now: wasForlorn(choice) });
  }
  return events;
}

/** Why a destination is not routed, and what can be done. */
const REFUSED: Readonly<Record<Refusal["why"], (detail: string) => string>> = {
  NotReachable: (router) => `(${router}), which is on no network of this node: give a router of its LAN, or choose other nodes with nodeSelector`,
  InsideOwnDestination: (router) => `(${router}), a gateway inside its own destination: list the gateway's LAN in excludedDestinations`,
  Protected: (what) => `(${what}), which no intent may steer: leave it out, or choose other nodes`,
  Conflict: (owner) => `(${owner} has it already and is older): change or delete one of the two`,
};

export function refusalText(refusals: readonly Refusal[]): string {
  const shown = refusals.slice(0, 3).map(({ destination, why, detail }) => `${destination}: ${why} ${REFUSED[why](detail)}`);
  const more = refusals.length > shown.length ? `, and ${refusals.length - shown.length} more` : "";
  return `not routed: ${shown.join("; ")}${more}`.slice(0, MESSAGE);
}

/** What the kernel refused, by the resource that asked for it; `node` for what belongs to none. */
export function failuresById(pass: Pass): Map<string, string> {
  const found = new Map<string, string>();
  if (pass.failures.length === 0) return found;
  const claims = claimsOf(pass.input);
  const byGroup = new Map([...pathSlots([...pass.input.plan.paths.keys()])].map(([id, slot]) => [slot, id as string]));
  const byDestination = new Map<string, string>(claims.overlay);
  for (const [id, { destinations }] of claims.lan) for (const cidr of destinations) byDestination.set(cidr, id);
  for (const { op, error } of pass.failures) {
    const id = ownerOf(op, byDestination, byGroup) ?? "node";
    if (!found.has(id)) found.set(id, `${op.op}: ${error ?? "refused"}`);
  }
  return found;
}

function ownerOf(op: Operation, byDestination: ReadonlyMap<string, string>, byGroup: ReadonlyMap<number, string>): string | undefined {
  if ("route" in op) return byDestination.get(op.route.dst);
  if ("nexthop" in op) return byGroup.get(op.nexthop.id);
  return undefined;
}
