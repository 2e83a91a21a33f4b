/** Nodes that say too much: what each has left of its allowance, and one word a minute about those that are over it. */
import type { NodeName } from "../../mesh/model/scalars.ts";
import type { Events } from "../reconcile/events.ts";
import { createAllowance, type Allowance } from "./allowance.ts";

export type Measure = "slowed" | "cut off" | "events dropped";

export interface Floods {
  allowanceOf(node: NodeName): Allowance;
  /** Something was done about a node; an event and a line in the log tell it, once a minute. */
  tell(node: NodeName, what: Measure): void;
  /** Forgets who has paid everything off, but for those connected. */
  sweep(connected: ReadonlyMap<NodeName, unknown>): void;
  readonly count: number;
}

const NEWS_MS = 60_000;

const DONE: { readonly [M in Measure]: { readonly reason: string; readonly text: string } } = {
  slowed: { reason: "AgentSlowed", text: "it is slowed down" },
  "cut off": { reason: "AgentCutOff", text: "its connection was ended; its data plane goes on by the last plan" },
  "events dropped": { reason: "EventsDropped", text: "some of its events were dropped" },
};

/** @param monotonic milliseconds */
export function createFloods(events: Pick<Events, "record">, log: (message: string, detail?: object) => void, monotonic: () => number): Floods {
  const allowances = new Map<NodeName, Allowance>();
  const toldAt = new Map<string, number>();
  let count = 0;
  return {
    get count() {
      return count;
    },
    allowanceOf(node) {
      const known = allowances.get(node) ?? createAllowance();
      allowances.set(node, known);
      return known;
    },
    tell(node, what) {
      count++;
      const key = `${node} ${what}`;
      const told = toldAt.get(key);
      if (told !== undefined && monotonic() - told < NEWS_MS) return;
      toldAt.set(key, monotonic());
      log("an agent says too much", { node, what });
      const { reason, text } = DONE[what];
      const message = `${node} says more than a controller takes from one node: ${text}`;
      events.record(undefined, { type: "Warning", reason, message, about: `node/${node}` });
    },
    sweep(connected) {
      const now = monotonic();
      for (const [node, allowance] of allowances) if (!connected.has(node) && allowance.idle(now)) allowances.delete(node);
      for (const [key, told] of toldAt) if (now - told >= NEWS_MS) toldAt.delete(key);
    },
  };
}
