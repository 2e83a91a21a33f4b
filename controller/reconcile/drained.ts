/** Whether a cordoned node may be rebooted: nothing uses it any more. Pure. */
import { hopsAreCut, hopsOf } from "../../mesh/model/wire.ts";
import type { IntentCompileStatus } from "../../mesh/compile/types.ts";
import type { Condition } from "../../mesh/model/meta.ts";
import type { NodeContact, NodeReport } from "./reports.ts";

export interface DrainInput {
  readonly node: string;
  /** The revision that cordoned it: what a client said before it knew of that may have changed since. */
  readonly revision: number;
  readonly intents: Iterable<IntentCompileStatus>;
  readonly report: (node: string) => Pick<NodeReport, "applied" | "results" | "conditions"> | undefined;
  readonly contact: (node: string) => Pick<NodeContact, "connected"> | undefined;
  /** The longest drain timeout has passed: clients that nobody hears from have moved by then. */
  readonly overdue: boolean;
}

type Plain = Pick<Condition, "type" | "status" | "reason" | "message">;

/** The agent's condition that says that no client's flow goes through it; only gateways that are drained have it. */
export const NO_FLOWS = "NoFlows";

/** Every client says which gateway it uses and which it still drains; a gateway that sees no flow ends the drains early. */
export function drainedCondition(input: DrainInput): Plain {
  const { active, draining, silent } = usersOf(input);
  const idle = input.contact(input.node)?.connected === true && input.report(input.node)?.conditions?.some(({ type }) => type === NO_FLOWS) === true;
  const wait = (reason: string, message: string): Plain => ({ type: "Drained", status: "False", reason, message });
  if (active.length > 0) return wait("InUse", `still used by ${few(active)}`);
  if (silent.length > 0 && !input.overdue) return wait("Waiting", `not heard from ${few(silent)} yet`);
  if (draining.length > 0 && !idle) return wait("FlowsLeft", `established flows of ${few(draining)} have until the drain timeout`);
  return { type: "Drained", status: "True", reason: idle ? "NoFlowsLeft" : "NotUsed", message: "nothing uses it any more; it can be rebooted" };
}

function usersOf({ node, revision, intents, report, contact }: DrainInput): Record<"active" | "draining" | "silent", string[]> {
  const active = new Set<string>();
  const draining = new Set<string>();
  const silent = new Set<string>();
  for (const { id, nodes, gateways, retiring } of intents) {
    if (id === undefined || ![...gateways, ...(retiring ?? [])].some((one) => one === node)) continue;
    for (const client of nodes) {
      if (client === node) continue;
      const said = report(client);
      const result = said?.results.get(id);
      if (contact(client)?.connected !== true || result === undefined) silent.add(client);
      else if (hopsOf(result).includes(node) || hopsAreCut(result)) active.add(client);
      else if (result.draining?.some((one) => one === node) === true) draining.add(client);
      // It may have moved there since, and its word is under way.
      else if ((said?.applied?.revision ?? 0) < revision) silent.add(client);
    }
  }
  return { active: [...active], draining: [...draining], silent: [...silent] };
}

function few(nodes: readonly string[]): string {
  return nodes.length <= 5 ? nodes.join(", ") : `${nodes.slice(0, 5).join(", ")} and ${nodes.length - 5} more`;
}
