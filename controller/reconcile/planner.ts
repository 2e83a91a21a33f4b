/**
 * Store → plan. A change is compiled at once when nothing was compiled lately, else in a window that grows with what a
 * round costs, so that a thousand joins are a few dozen rounds and not a thousand.
 */
import { createCompiler } from "../../mesh/compile/plan.ts";
import type { Serving } from "../../mesh/compile/retiring.ts";
import type { CompileInput, CompileOutput } from "../../mesh/compile/types.ts";
import { IsthmusError, asIsthmusError } from "../../mesh/errors.ts";
import type { Kind, Resource } from "../../mesh/model/resources.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import type { NodeFacts } from "../../mesh/model/wire.ts";
import type { ControllerRecord } from "../join/records.ts";
import { FOLDER, NETWORK, kindFolder, resourceKey, splitKey } from "./keys.ts";
import type { Mirror } from "./mirror.ts";

/** A round may use this share of the time: 1 in 4. */
const WINDOW_FACTOR = 3;
const MAX_WINDOW_MS = 500;
/** A round that failed is tried again by itself: doubled each time, with jitter. A change tries again at once. */
const RETRY_MS = { first: 500, longest: 30_000 } as const;

export interface Planner {
  /**
   * Resolves when the plan of this revision or a later one was published.
   * @throws {IsthmusError} `Unreachable`: the revision is stored, but its plan could not be made yet
   */
  settled(revision: number): Promise<void>;
  close(): void;
}

export interface PlannerOptions {
  readonly mirror: Mirror;
  /** Milliseconds of a monotonic clock. */
  readonly monotonic: () => number;
  /** From 0 to 1. */
  readonly random: () => number;
  readonly publish: (output: CompileOutput, revision: number) => void;
  /** What a round cost, in seconds. */
  readonly onRound: (seconds: number) => void;
  readonly onFailure: (error: unknown) => void;
}

const COMPILED: readonly Kind[] = ["MeshNetwork", "Site", "MeshNode", "MeshRoute", "StaticRoute", "EgressGateway"];
const READ_FOLDERS = new Set([...COMPILED.map(kindFolder), FOLDER.facts, FOLDER.controllers, FOLDER.serving]);

/** All that compile reads, with `replaced` instead of what the store holds (`undefined` deletes): what a diff asks for. */
export function compileInput(mirror: Mirror, replaced: ReadonlyMap<string, Resource | undefined> = new Map()): CompileInput {
  const all = <K extends Kind>(kind: K): Resource<K>[] => {
    const folder = kindFolder(kind);
    const found = new Map([...mirror.folder(folder)].map(([name, item]) => [name, item.value as Resource<K>]));
    for (const [key, value] of replaced) {
      const at = splitKey(key);
      if (at.folder !== folder) continue;
      if (value === undefined) found.delete(at.name);
      else found.set(at.name, value as Resource<K>);
    }
    return [...found.values()];
  };
  const network = (replaced.get(resourceKey("MeshNetwork", NETWORK)) ??
    mirror.get(resourceKey("MeshNetwork", NETWORK))?.value) as Resource<"MeshNetwork">;
  return {
    network,
    sites: all("Site"),
    nodes: all("MeshNode"),
    facts: new Map([...mirror.folder(FOLDER.facts)].map(([name, item]) => [name as NodeName, item.value as NodeFacts])),
    routes: all("MeshRoute"),
    staticRoutes: all("StaticRoute"),
    egress: all("EgressGateway"),
    serving: servingFacts(mirror),
    controllers: [...mirror.folder(FOLDER.controllers).values()].flatMap((item) => (item.value as ControllerRecord).addresses).sort(),
  };
}

/** By path id. */
export function servingFacts(mirror: Mirror): ReadonlyMap<string, Serving> {
  return new Map([...mirror.folder(FOLDER.serving)].map(([name, item]) => [name.replace(":", "/"), item.value as Serving]));
}

interface Waiting {
  readonly revision: number;
  readonly done: () => void;
  readonly failed: (error: IsthmusError) => void;
}

export function startPlanner({ mirror, monotonic, random, publish, onRound, onFailure }: PlannerOptions): Planner {
  let compile = createCompiler();
  let published = 0;
  let failure: { readonly revision: number; readonly error: IsthmusError; readonly times: number } | undefined;
  let timer: NodeJS.Timeout | undefined;
  let scheduled: NodeJS.Immediate | undefined;
  let notBefore = 0;
  let waiting: Waiting[] = [];
  let dirty = true;

  function round(): void {
    clearTimeout(timer);
    timer = undefined;
    scheduled = undefined;
    const started = monotonic();
    const { revision } = mirror;
    try {
      if (dirty) publish(compile(compileInput(mirror)), revision);
      dirty = false;
      failure = undefined;
      published = revision;
    } catch (thrown) {
      // What it remembers of a round that was cut short is not to be built on.
      compile = createCompiler();
      failure = { revision, error: unplanned(revision, thrown), times: (failure?.times ?? 0) + 1 };
      onFailure(thrown);
    }
    const cost = monotonic() - started;
    onRound(cost / 1_000);
    notBefore = monotonic() + Math.min(cost * WINDOW_FACTOR, MAX_WINDOW_MS);
    if (failure !== undefined) timer = setTimeout(round, backOff(failure.times));
    const ready = waiting.filter((one) => one.revision <= revision);
    waiting = waiting.filter((one) => one.revision > revision);
    for (const one of ready) {
      if (failure === undefined) one.done();
      else one.failed(failure.error);
    }
  }

  function backOff(times: number): number {
    return Math.min(RETRY_MS.first * 2 ** (times - 1), RETRY_MS.longest) * (0.5 + random() / 2);
  }

  function schedule(): void {
    if (scheduled !== undefined || (timer !== undefined && failure === undefined)) return;
    clearTimeout(timer);
    const wait = notBefore - monotonic();
    if (wait <= 0) scheduled = setImmediate(round);
    else timer = setTimeout(round, wait);
  }

  const unsubscribe = mirror.subscribe((changes, revision) => {
    const read = changes.some((change) => READ_FOLDERS.has(splitKey(change.key).folder));
    if (!read && !dirty && waiting.length === 0) {
      published = Math.max(published, revision);
      return;
    }
    dirty ||= read;
    schedule();
  });
  round();
  return {
    settled: (revision) => {
      if (revision <= published) return Promise.resolve();
      if (failure !== undefined && revision <= failure.revision) return Promise.reject(failure.error);
      schedule();
      return new Promise((done, failed) => waiting.push({ revision, done, failed }));
    },
    close: () => {
      unsubscribe();
      clearTimeout(timer);
      clearImmediate(scheduled);
      for (const one of waiting) one.failed(unplanned(one.revision, new Error("the controller stops")));
    },
  };
}

function unplanned(revision: number, thrown: unknown): IsthmusError {
  return new IsthmusError("Unreachable", `revision ${revision} is stored, but the nodes have no plan of it yet: ${asIsthmusError(thrown).message}`, {
    remedy: "It is tried again by itself; the controller's log and `isthmus events` say more.",
    cause: thrown,
  });
}
