/**
 * What a path no longer has but still serves for a while (I5): gateways and destinations that an intent let go. Their established
 * flows have until the drain timeout; new ones go the new way at once, as when a node is drained.
 *
 * Pure: what was served before, and until when the rest goes on, are facts of the store. What the facts still name and the
 * intent no longer does is retiring, also before anybody wrote down until when; so no plan in between lets it go.
 */
import type { Cidr, NodeName } from "../model/scalars.ts";
import type { Context } from "./context.ts";
import type { Compiled, PathDraft } from "./drafts.ts";
import type { CompileCondition } from "./types.ts";

/** A fact of the store, one per path. */
export interface Serving {
  /** As the intent was last seen to say. */
  readonly gateways: readonly NodeName[];
  readonly destinations: readonly Cidr[];
  /** What it said before, and until when that goes on (ms since 1970). */
  readonly retiring: {
    readonly gateways: Readonly<Record<string, number>>;
    readonly destinations: Readonly<Record<string, number>>;
    /** Until when new flows go there too, of clients that have not heard yet. What has none is settled: only established flows go on. */
    readonly open?: Readonly<Record<string, number>>;
  };
}

/** What a path serves by its intent alone. */
export interface Served {
  readonly gateways: readonly NodeName[];
  readonly destinations: readonly Cidr[];
  readonly drainTimeoutMs: number;
}

/**
 * Longer than the clients' own drain timeout, which begins when they move: the change has to reach them, and links to new gateways
 * have to come up first.
 */
export const RETIRE_GRACE_MS = 10_000;

export function servedBy(draft: PathDraft): Served {
  return { gateways: draft.gateways.map(({ node }) => node), destinations: draft.destinations, drainTimeoutMs: draft.plan.drainTimeoutMs };
}

/** The fact as it should be at `now`; the same object where nothing changed. */
export function nextServing(served: Served, before: Serving | undefined, now: number, isNode: (name: string) => boolean): Serving {
  const until = now + served.drainTimeoutMs + RETIRE_GRACE_MS;
  const destinations = leftOver(served.destinations, before?.destinations, before?.retiring.destinations, now, until);
  const open = openStill(Object.keys(destinations), before?.retiring, now);
  const retiring = {
    gateways: leftOver(served.gateways, before?.gateways, before?.retiring.gateways, now, until, isNode),
    destinations,
    ...(Object.keys(open).length === 0 ? {} : { open }),
  };
  const next: Serving = { gateways: [...served.gateways].sort(), destinations: served.destinations, retiring };
  return before !== undefined && JSON.stringify(next) === JSON.stringify(before) ? before : next;
}

/** Whether something of it lasts longer than what begins to retire now: a clock was set back, or the drain timeout made shorter. */
export function isTooLong({ drainTimeoutMs }: Served, { retiring }: Serving, now: number): boolean {
  const most = now + drainTimeoutMs + RETIRE_GRACE_MS;
  return [...Object.values(retiring.gateways), ...Object.values(retiring.destinations)].some((end) => end > most);
}

/** When something of it ends. */
export function nextEnd({ retiring }: Serving): number | undefined {
  const times = [...Object.values(retiring.gateways), ...Object.values(retiring.destinations), ...Object.values(retiring.open ?? {})];
  return times.length === 0 ? undefined : times.reduce((a, b) => Math.min(a, b));
}

/** The path with what it still serves; itself where that is nothing. */
export function withRetiring(context: Context, compiled: Compiled, serving: Serving | undefined): Compiled {
  const { draft, status } = compiled;
  if (serving === undefined || draft?.kind !== "path") return compiled;
  const gateways = namesLeft(
    draft.gateways.map(({ node }) => node),
    serving.gateways,
    serving.retiring.gateways,
  ).filter((name) => context.nodeByName.has(name)) as NodeName[];
  const retired = namesLeft(draft.destinations, serving.destinations, serving.retiring.destinations) as Cidr[];
  if (gateways.length + retired.length === 0) return compiled;
  const settled = retired.filter((cidr) => cidr in serving.retiring.destinations && !(cidr in (serving.retiring.open ?? {})));
  const serves = new Set<string>(gateways);
  const clients = draft.clients.filter(({ name }) => !serves.has(name));
  return {
    draft: {
      ...draft,
      gateways: [...draft.gateways, ...gateways.map((node) => ({ node, priority: 0, retiring: true as const }))],
      // Until it has retired it sends its own traffic out itself, as before.
      clients,
      serve: retired.length === 0 ? draft.serve : { ...draft.serve, retired, ...(settled.length === 0 ? {} : { settled }) },
    },
    status: {
      ...status,
      nodes: clients.map(({ name }) => name),
      retiring: gateways,
      conditions: [...status.conditions, retiringCondition(gateways, retired, serving)],
    },
  };
}

function retiringCondition(gateways: readonly string[], retired: readonly string[], { retiring }: Serving): CompileCondition {
  const end = (until: number | undefined): string => (until === undefined ? "the drain timeout" : new Date(until).toISOString());
  const parts = gateways.map((name) => `gateway ${name} serves established flows until ${end(retiring.gateways[name])}`);
  if (retired.length > 0) {
    const ends = retired.flatMap((cidr) => retiring.destinations[cidr] ?? []);
    const last = ends.length === 0 ? undefined : ends.reduce((a, b) => Math.max(a, b));
    parts.push(`established flows to ${few(retired)} go on until ${end(last)}`);
  }
  return { type: "Retiring", status: "True", reason: "PlannedMove", message: parts.join("; ") };
}

function few(names: readonly string[]): string {
  return names.length <= 5 ? names.join(", ") : `${names.slice(0, 5).join(", ")} and ${names.length - 5} more`;
}

/** Named by the facts, and no longer by the intent. Sorted. */
function namesLeft(now: readonly string[], before: readonly string[], retiring: Readonly<Record<string, number>>): string[] {
  const current = new Set(now);
  return [...new Set([...before, ...Object.keys(retiring)])].filter((name) => !current.has(name)).sort();
}

function openStill(names: readonly string[], before: Serving["retiring"] | undefined, now: number): Record<string, number> {
  return Object.fromEntries(
    names.flatMap((name) => {
      const end = before !== undefined && name in before.destinations ? before.open?.[name] : Infinity;
      return end === undefined || end <= now ? [] : [[name, Math.min(end, now + RETIRE_GRACE_MS)] as const];
    }),
  );
}

function leftOver(
  current: readonly string[],
  before: readonly string[] | undefined,
  retiring: Readonly<Record<string, number>> | undefined,
  now: number,
  until: number,
  stays: (name: string) => boolean = () => true,
): Record<string, number> {
  const left = namesLeft(current, before ?? [], retiring ?? {});
  return Object.fromEntries(
    left
      .filter(stays)
      .map((name) => [name, Math.min(retiring?.[name] ?? until, until)] as const)
      .filter(([, end]) => end > now),
  );
}
