/**
 * Keeps the facts of what each path serves, and until when it goes on with what its intent let go (I5). The plan itself says
 * "retiring" from the first moment on; here is only the clock: when it began, and that it ends, also over a restart.
 */
import { isTooLong, nextEnd, nextServing, type Served, type Serving } from "../../mesh/compile/retiring.ts";
import type { CompileOutput } from "../../mesh/compile/types.ts";
import type { PathId } from "../../mesh/model/plan.ts";
import type { Store } from "../store/types.ts";
import { commit } from "./draft.ts";
import type { Events } from "./events.ts";
import { resourceKey, servingKey } from "./keys.ts";
import type { Mirror } from "./mirror.ts";
import { servingFacts } from "./planner.ts";

const RETRY_MS = 1_000;
/** A clock that was set back is seen within this time. */
const MOST_MS = 60_000;

export interface ServingKeeper {
  /** A plan was made: whether the facts fit it. */
  planned(output: Pick<CompileOutput, "served">): void;
  close(): void;
}

export interface ServingOptions {
  readonly store: Store;
  readonly mirror: Mirror;
  readonly events: Pick<Events, "record">;
  readonly now: () => number;
  readonly onFailure: (error: unknown) => void;
}

export function keepServing({ store, mirror, events, now, onFailure }: ServingOptions): ServingKeeper {
  let served: ReadonlyMap<PathId, Served> = new Map();
  /** Pairs that were found to fit: thousands of destinations are not compared again because a node joined. */
  const fitting = new WeakMap<Served, Serving>();
  let timer: NodeJS.Timeout | undefined;
  let writing = false;
  let closed = false;

  const isNode = (name: string): boolean => mirror.get(resourceKey("MeshNode", name)) !== undefined;

  /** Paths whose fact is to be another one, or none. */
  function due(): PathId[] {
    const facts = servingFacts(mirror);
    const at = now();
    const wrong = [...served].filter(([id, one]) => {
      const fact = facts.get(id);
      if (fact !== undefined && fitting.get(one) === fact && (nextEnd(fact) ?? Infinity) > at && !isTooLong(one, fact, at)) return false;
      if (nextServing(one, fact, at, isNode) !== fact) return true;
      fitting.set(one, fact);
      return false;
    });
    const gone = [...facts.keys()].filter((id) => !served.has(id as PathId));
    return [...wrong.map(([id]) => id), ...(gone as PathId[])];
  }

  function look(): void {
    // A write that is under way looks again when it is done.
    if (closed || writing) return;
    const ids = due();
    if (ids.length === 0) arm(nextLook());
    else void write(ids);
  }

  async function write(ids: readonly PathId[]): Promise<void> {
    writing = true;
    let failed = false;
    try {
      const { result } = await commit(store, mirror, (draft) =>
        ids.flatMap((id) => {
          const one = served.get(id);
          const before = draft.read(servingKey(id)) as Serving | undefined;
          if (one === undefined) {
            draft.remove(servingKey(id));
            return [];
          }
          const next = nextServing(one, before, now(), isNode);
          if (next !== before) draft.write(servingKey(id), next);
          return [{ id, before, next }];
        }),
      );
      for (const { id, before, next } of result) tell(id, before, next);
    } catch (thrown) {
      failed = true;
      onFailure(thrown);
    }
    writing = false;
    if (failed) arm(RETRY_MS);
    else look();
  }

  function tell(id: PathId, before: Serving | undefined, next: Serving): void {
    const [were, are] = [before?.retiring.gateways ?? {}, next.retiring.gateways];
    const say = (reason: string, gateway: string, message: string): void =>
      events.record(undefined, { type: "Normal", reason, message: `${id}: ${gateway} ${message}`, about: id });
    for (const gateway of Object.keys(are))
      if (!(gateway in were)) say("Retiring", gateway, "is no gateway any more; established flows go on until they have moved");
    for (const gateway of Object.keys(were))
      if (!(gateway in are) && !next.gateways.some((name) => name === gateway)) say("Retired", gateway, "serves no more");
  }

  function nextLook(): number | undefined {
    const ends = [...servingFacts(mirror).values()].flatMap((fact) => nextEnd(fact) ?? []);
    return ends.length === 0 ? undefined : ends.reduce((a, b) => Math.min(a, b)) - now();
  }

  function arm(ms: number | undefined): void {
    clearTimeout(timer);
    timer = ms === undefined || closed ? undefined : setTimeout(look, Math.min(MOST_MS, Math.max(1, ms)));
  }

  return {
    planned: (output) => {
      served = output.served;
      look();
    },
    close: () => {
      closed = true;
      clearTimeout(timer);
    },
  };
}
