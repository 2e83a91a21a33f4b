/** Since when each condition of each object has the status that it has. */
import type { Condition } from "../../mesh/model/meta.ts";
import type { Plain } from "./conditions.ts";

interface Since {
  readonly status: Condition["status"];
  /** RFC 3339. */
  readonly at: string;
}

type ByType = ReadonlyMap<string, Since>;

export interface Times {
  /** Takes an object's conditions in; one whose status stays keeps its time. */
  note(owner: string, conditions: readonly Plain[]): ByType;
  /** Notes them, and gives them with their times. */
  dated(owner: string, conditions: readonly Plain[], generation: number | undefined): Condition[];
  of(owner: string, type: string): Since | undefined;
  /** Whether any object has a condition of this type. */
  some(type: string): boolean;
  /** Forgets all other objects. */
  keep(owners: ReadonlySet<string>): void;
}

export function createTimes(now: () => number): Times {
  const known = new Map<string, ByType>();

  function note(owner: string, conditions: readonly Plain[]): ByType {
    const before = known.get(owner);
    const next = new Map<string, Since>();
    let changed = before?.size !== conditions.length;
    for (const { type, status } of conditions) {
      const held = before?.get(type);
      changed ||= held?.status !== status;
      next.set(type, held?.status === status ? held : { status, at: new Date(now()).toISOString() });
    }
    if (before !== undefined && !changed) return before;
    known.set(owner, next);
    return next;
  }

  return {
    note,
    dated(owner, conditions, generation) {
      const held = note(owner, conditions);
      return conditions.map((condition) => ({
        ...condition,
        lastTransitionTime: held.get(condition.type)?.at ?? "",
        ...(generation === undefined ? {} : { observedGeneration: generation }),
      }));
    },
    of: (owner, type) => known.get(owner)?.get(type),
    some: (type) => known.values().some((conditions) => conditions.has(type)),
    keep(owners) {
      for (const owner of known.keys()) if (!owners.has(owner)) known.delete(owner);
    },
  };
}
