/**
 * Reports to the controller: changed fields only, the first at once, then at most one a second. After a new connection
 * everything is said again, because the controller may have restarted.
 */
import type { AgentEvent, AgentReport, ResourceResult } from "../mesh/model/wire.ts";

type Fields = Omit<AgentReport, "t" | "events" | "links" | "observed" | "results"> & {
  links?: Readonly<Record<string, number>>;
  observed?: Readonly<Record<string, AgentEndpoint>>;
  results?: Readonly<Record<string, ResourceResult>>;
};
type AgentEndpoint = NonNullable<NonNullable<AgentReport["observed"]>[string]>;

const INTERVAL_MS = 1_000;
const MOST_EVENTS = 100;
/** Events that wait for a connection; the oldest go first. */
const KEPT_EVENTS = 500;
const MAPS = ["links", "observed", "results"] as const;

export interface Reporter {
  /** Sets fields; unchanged ones cost nothing. */
  set(fields: Fields): void;
  event(event: Omit<AgentEvent, "at">): void;
  /** A new connection: everything is new to the other side. */
  connected(): void;
  /** Newest last. */
  readonly events: readonly AgentEvent[];
}

/** @param send false when there is no connection */
export function createReporter(send: (report: AgentReport) => boolean, now: () => number): Reporter {
  const current: Fields = {};
  let told: Fields = {};
  let waiting: AgentEvent[] = [];
  const recent: AgentEvent[] = [];
  let timer: NodeJS.Timeout | undefined;
  let last = -Infinity;

  const flush = (): void => {
    timer = undefined;
    const changes = changedFields(current, told);
    const events = waiting.slice(0, MOST_EVENTS);
    if (changes === undefined && events.length === 0) return;
    if (!send({ t: "report", ...changes, ...(events.length === 0 ? {} : { events }) })) return;
    last = performance.now();
    told = structuredClone(current);
    waiting = waiting.slice(events.length);
    if (waiting.length > 0) schedule();
  };
  const schedule = (): void => {
    if (timer !== undefined) return;
    const wait = Math.max(0, last + INTERVAL_MS - performance.now());
    // Changes of one turn of the loop go together.
    timer = setTimeout(flush, wait);
    timer.unref();
  };

  return {
    set(fields) {
      Object.assign(current, fields);
      if (changedFields(current, told) !== undefined) schedule();
    },
    event(event) {
      const whole = { at: now(), ...event, message: event.message.slice(0, 1024), about: event.about.slice(0, 128) };
      waiting = [...waiting, whole].slice(-KEPT_EVENTS);
      recent.push(whole);
      if (recent.length > MOST_EVENTS) recent.shift();
      schedule();
    },
    connected() {
      told = {};
      last = -Infinity;
      clearTimeout(timer);
      timer = undefined;
      schedule();
    },
    get events() {
      return recent;
    },
  };
}

/** Fields of `current` that differ from `told`; entries that left a map are `null`. Nothing when all is told. */
export function changedFields(current: Fields, told: Fields): Omit<AgentReport, "t" | "events"> | undefined {
  const changes: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(current)) {
    if (MAPS.some((name) => name === field)) continue;
    if (JSON.stringify(value) !== JSON.stringify(told[field as keyof Fields])) changes[field] = value;
  }
  for (const field of MAPS) {
    const now: Readonly<Record<string, unknown>> = current[field] ?? {};
    const before: Readonly<Record<string, unknown>> = told[field] ?? {};
    const entries: Record<string, unknown> = {};
    for (const [key, value] of Object.entries(now)) if (JSON.stringify(value) !== JSON.stringify(before[key])) entries[key] = value;
    for (const key of Object.keys(before)) if (!(key in now)) entries[key] = null;
    if (Object.keys(entries).length > 0) changes[field] = entries;
  }
  return Object.keys(changes).length === 0 ? undefined : changes;
}
