/** What is not as it should be on this node, for the controller and for `isthmus status`. */
import type { AgentReport } from "../mesh/model/wire.ts";

export type NodeCondition = NonNullable<AgentReport["conditions"]>[number];

/** Without a message the condition is gone. Saying what is so already costs nothing. */
export type SetCondition = (type: string, reason: string, message: string | undefined) => void;

export interface Conditions {
  readonly set: SetCondition;
  all(): NodeCondition[];
}

const LONGEST = 1_024;

export function createConditions(onChange: (all: NodeCondition[]) => void): Conditions {
  const conditions = new Map<string, NodeCondition>();
  return {
    set(type, reason, message) {
      const before = conditions.get(type);
      const text = message?.slice(0, LONGEST);
      if (text === before?.message && (text === undefined || reason === before?.reason)) return;
      if (text === undefined) conditions.delete(type);
      else conditions.set(type, { type, status: "True", reason, message: text });
      onChange([...conditions.values()].toSorted((a, b) => (a.type < b.type ? -1 : 1)));
    },
    all: () => [...conditions.values()],
  };
}
