/**
 * Store → plan. A change is compiled at once when nothing was compiled lately, else in a window that grows with what a
 * round costs, so that a thousand joins are a few dozen rounds and not a thousand.
 */
import { createCompiler } from "../../mesh/compile/plan.ts";
import type { Serving } from "../../mesh/compile/retiring.ts";
import type { CompileInput, CompileOutput } from "../../mesh/compile/types.ts";
import type { Kind, Resource } from "../../mesh/model/resources.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import type { NodeFacts } from "../../mesh/model/wire.ts";
import type { ControllerRecord } from "../join/records.ts";
import { FOLDER, NETWORK, kindFolder, resourceKey, splitKey } from "./keys.ts";
import type { Mirror } from "./mirror.ts";

/** A round may use this share of the time: 1 in 4. */
const WINDOW_FACTOR = 3;
const MAX_WINDOW_MS = 500;

export interface Planner {
  /** Resolves when the plan of this revision or a later one was published. */
  settled(revision: number): Promise<void>;
  close(): void;
}

export interface PlannerOptions {
  readonly mirror: Mirror;
  /** Milliseconds of a monotonic clock. */
  readonly monotonic: () => number;
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

export function startPlanner({ mirror, monotonic, publish, onRound, onFailure }: PlannerOptions): Planner {
  const compile = createCompiler();
  let output: CompileOutput | undefined;
  let published = 0;
  let timer: NodeJS.Timeout | undefined;
  let scheduled: NodeJS.Immediate | undefined;
  let notBefore = 0;
  let waiting: { revision: number; done: () => void }[] = [];
  let dirty = false;

  function round(): void {
    timer = undefined;
    scheduled = undefined;
    const started = monotonic();
    const { revision } = mirror;
    try {
      if (dirty || output === undefined) {
        dirty = false;
        output = compile(compileInput(mirror));
        publish(output, revision);
      }
    } catch (thrown) {
      onFailure(thrown);
    }
    published = revision;
    const cost = monotonic() - started;
    onRound(cost / 1_000);
    notBefore = monotonic() + Math.min(cost * WINDOW_FACTOR, MAX_WINDOW_MS);
    const ready = waiting.filter((one) => one.revision <= revision);
    waiting = waiting.filter((one) => one.revision > revision);
    for (const one of ready) one.done();
  }

  function schedule(): void {
    if (timer !== undefined || scheduled !== undefined) return;
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
      schedule();
      return new Promise((done) => waiting.push({ revision, done }));
    },
    close: () => {
      unsubscribe();
      clearTimeout(timer);
      clearImmediate(scheduled);
      for (const one of waiting) one.done();
    },
  };
}
