/** All elections of one node at one moment, and what is kept of them over a restart. Pure. */
import { z } from "zod";
import { adoptedLanChoice, electLan, type LanChoice, type LanHealthView } from "../mesh/elect/lan.ts";
import { adoptedChoice, electPath } from "../mesh/elect/path.ts";
import { type Choice, type LinkView, type Reason, REASONS } from "../mesh/elect/types.ts";
import { LINK_NEXTHOP } from "../mesh/kernel/layout.ts";
import { pathSlots } from "../mesh/kernel/nexthops.ts";
import type { KernelState } from "../mesh/kernel/types.ts";
import { serves } from "../mesh/kernel/claims.ts";
import type { PathId, Plan } from "../mesh/model/plan.ts";
import { IpAddress, NodeName } from "../mesh/model/scalars.ts";
import type { Links } from "./links.ts";

/** What the probes say. */
export interface Health {
  readonly links: ReadonlyMap<NodeName, LinkView>;
  readonly stalled: boolean;
  /** By LAN route. */
  readonly lan: ReadonlyMap<string, ReadonlyMap<IpAddress, LanHealthView>>;
}

export interface Elections {
  readonly paths: ReadonlyMap<PathId, Choice>;
  readonly lans: ReadonlyMap<string, LanChoice>;
}

export const NO_ELECTIONS: Elections = { paths: new Map(), lans: new Map() };

/** Elects for every path and LAN route of the plan. Unchanged choices are the same objects; nothing changed gives `previous`. */
export function electAll(plan: Plan, health: Health, previous: Elections, now: number): Elections {
  const paths = new Map<PathId, Choice>();
  for (const [id, path] of plan.paths) {
    paths.set(id, electPath({ id, path, self: plan.self.name, links: health.links, previous: previous.paths.get(id), stalled: health.stalled, now }));
  }
  const lans = new Map<string, LanChoice>();
  for (const [id, lan] of plan.lanRoutes) {
    lans.set(id, electLan({ id, lan, health: health.lan.get(id) ?? new Map(), previous: previous.lans.get(id), stalled: false, now }));
  }
  return sameMap(paths, previous.paths) && sameMap(lans, previous.lans) ? previous : { paths, lans };
}

/** When an election wants to be asked again, on the monotonic clock. */
export function nextWake({ paths, lans }: Elections): number | undefined {
  const times = [...paths.values(), ...lans.values()].flatMap(({ wakeAt }) => (wakeAt === undefined ? [] : [wakeAt]));
  return times.length === 0 ? undefined : Math.min(...times);
}

/** Links that are believed dead, when another one is not; where all are dead nothing moves (I4), nor does a standstill revive one. */
export function deadLinks(links: Links, health: Health): ReadonlySet<NodeName> {
  const dead = [...links.keys()].filter((node) => {
    const view = health.links.get(node);
    return view?.verdict === "Down" && view.holdDownUntil === undefined;
  });
  return dead.length === links.size ? new Set() : new Set(dead);
}

const Reasons = z.custom<Reason>((value) => typeof value === "string" && value in REASONS);
const Draining = z.object({ node: NodeName, since: z.number().optional(), until: z.number() });
const Path = z.object({
  active: z.array(NodeName),
  reason: Reasons,
  since: z.number(),
  order: z.array(NodeName).optional(),
  draining: z.array(Draining).optional(),
});
const Stored = z.object({
  paths: z.record(z.string(), Path),
  lans: z.record(z.string(), z.object({ gateways: z.array(IpAddress), reason: Reasons, since: z.number() })),
});

/** @param wall from the monotonic clock to ms since 1970 */
export function formatElections({ paths, lans }: Elections, wall: (at: number) => number): string {
  return JSON.stringify({
    paths: Object.fromEntries(
      [...paths]
        .filter(([, one]) => one.active.length > 0)
        .map(([id, { active, reason, since, order, draining }]) => [
          id,
          {
            active,
            reason,
            since: Math.round(wall(since)),
            ...(order === undefined ? {} : { order }),
            ...(draining.length === 0 ? {} : { draining: draining.map((one) => shifted(one, (at) => Math.round(wall(at)))) }),
          },
        ]),
    ),
    lans: Object.fromEntries([...lans].map(([id, { gateways, reason, since }]) => [id, { gateways, reason, since: Math.round(wall(since)) }])),
  });
}

function shifted({ node, since, until }: z.infer<typeof Draining>, to: (at: number) => number): Choice["draining"][number] {
  return { node, ...(since === undefined ? {} : { since: to(since) }), until: to(until) };
}

/** Choices of an earlier run, as previous choices for the first election: a restart moves nothing (I2). */
export function parseElections(value: unknown, now: number, wall: (at: number) => number): Elections {
  const stored = Stored.parse(value);
  const offset = wall(0);
  return {
    paths: new Map(
      Object.entries(stored.paths).map(([id, { active, reason, since, order, draining = [] }]) => [
        id as PathId,
        {
          ...adoptedChoice(active, Math.min(now, since - offset)),
          reason,
          ...(order === undefined ? {} : { order }),
          draining: draining.map((one) => shifted(one, (at) => at - offset)),
        },
      ]),
    ),
    lans: new Map(
      Object.entries(stored.lans).map(([id, { gateways, reason, since }]) => [
        id,
        { gateways, reason, since: Math.min(now, since - offset), rejected: [], wakeAt: undefined },
      ]),
    ),
  };
}

/**
 * What the kernel holds is the truth: the members of each path's group, the next hops of each LAN route. What was stored
 * tells the reason where both agree, and what to begin with after a reboot; a crash right after a move leaves it outdated.
 */
export function adoptElections(plan: Plan, observed: KernelState, links: Links, stored: Elections, now: number): Elections {
  const nodeOf = new Map([...links].map(([node, k]) => [LINK_NEXTHOP + k, node]));
  const paths = new Map(stored.paths);
  const ids = [...plan.paths.keys()].filter((id) => !serves(plan, id));
  for (const [id, slot] of pathSlots(ids)) {
    const active = (observed.nexthops.get(slot)?.group ?? []).flatMap((member) => nodeOf.get(member) ?? []);
    if (active.length > 0 && !sameMembers(active, paths.get(id)?.active))
      paths.set(id, { ...adoptedChoice(active, now), draining: paths.get(id)?.draining ?? [] });
  }
  const lans = new Map(stored.lans);
  const byDestination = new Map(
    [...observed.routes.values()].filter((route) => route.via !== undefined).map((route) => [`${route.table}|${route.dst}`, route.via]),
  );
  for (const [id, lan] of plan.lanRoutes) {
    const via = lan.destinations.map((dst) => byDestination.get(`${lan.table}|${dst}`)).find((one) => one !== undefined);
    if (via !== undefined && lan.gateways.includes(via) && !sameMembers([via], lans.get(id)?.gateways)) lans.set(id, adoptedLanChoice([via], now));
  }
  return { paths, lans };
}

function sameMembers<T>(a: readonly T[], b: readonly T[] | undefined): boolean {
  return a.length === b?.length && a.every((one) => b.includes(one));
}

function sameMap<K, V>(a: ReadonlyMap<K, V>, b: ReadonlyMap<K, V>): boolean {
  if (a.size !== b.size) return false;
  for (const [key, value] of a) if (b.get(key) !== value) return false;
  return true;
}
