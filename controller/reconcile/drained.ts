/** Whether a cordoned node may be rebooted: nothing uses it any more. Pure. */
import { hopsAreCut, hopsOf, type ResourceResult } from "../../mesh/model/wire.ts";
import type { IntentCompileStatus } from "../../mesh/compile/types.ts";
import type { Condition } from "../../mesh/model/meta.ts";
import type { NodeContact, NodeReport } from "./reports.ts";

export interface DrainInput {
  readonly node: string;
  /** Which drain this is (`cordonedAt`): what a client said before it knew of it may have changed since. */
  readonly cordon: string;
  readonly intents: Iterable<IntentCompileStatus>;
  readonly report: (node: string) => Pick<NodeReport, "results" | "conditions"> | undefined;
  readonly contact: (node: string) => Pick<NodeContact, "connected"> | undefined;
  /** The longest drain timeout has passed: clients that nobody hears from, or whose agent is too old to say that it knows, have moved by then. */
  readonly overdue: boolean;
}

type Plain = Pick<Condition, "type" | "status" | "reason" | "message">;

/** The agent's condition that says that no client's flow goes through it; only gateways that are drained have it. */
export const NO_FLOWS = "NoFlows";

/** Every client says which gateway it uses and which it still drains; a gateway that sees no flow ends the drains early. */
export function drainedCondition(input: DrainInput): Plain {
  const { active, draining, silent, unaware } = usersOf(input);
  const idle = input.contact(input.node)?.connected === true && input.report(input.node)?.conditions?.some(({ type }) => type === NO_FLOWS) === true;
  const wait = (reason: string, message: string): Plain => ({ type: "Drained", status: "False", reason, message });
  if (active.length > 0) return wait("InUse", `still used by ${few(active)}`);
  const awaited = [
    ...(silent.length === 0 ? [] : [`not heard from ${few(silent)} yet`]),
    ...(unaware.length === 0 ? [] : [`not taken up by ${few(unaware)} yet`]),
  ];
  if (awaited.length > 0 && !input.overdue) return wait("Waiting", awaited.join("; "));
  if (draining.length > 0 && !idle) return wait("FlowsLeft", `established flows of ${few(draining)} have until the drain timeout`);
  return { type: "Drained", status: "True", reason: idle ? "NoFlowsLeft" : "NotUsed", message: "nothing uses it any more; it can be rebooted" };
}

type Use = "active" | "draining" | "silent" | "unaware";

function usersOf({ node, cordon, intents, report, contact }: DrainInput): Record<Use, string[]> {
  const users = { active: new Set<string>(), draining: new Set<string>(), silent: new Set<string>(), unaware: new Set<string>() };
  for (const { id, nodes, gateways, retiring } of intents) {
    if (id === undefined || ![...gateways, ...(retiring ?? [])].some((one) => one === node)) continue;
    for (const client of nodes) {
      if (client === node) continue;
      const result = contact(client)?.connected === true ? report(client)?.results.get(id) : undefined;
      if (result === undefined) users.silent.add(client);
      else if (hopsOf(result).includes(node) || hopsAreCut(result)) users.active.add(client);
      // It may have moved there since, and its word is under way; or its kernel did not do what it chose.
      else if (!knows(result, node, cordon) || result.reason === "KernelRefused") users.unaware.add(client);
      if (result?.draining?.some((one) => one === node) === true) users.draining.add(client);
    }
  }
  return { active: [...users.active], draining: [...users.draining], silent: [...users.silent], unaware: [...users.unaware] };
}

function knows({ cordons = [] }: ResourceResult, node: string, cordon: string): boolean {
  return cordons.some((one) => one.gateway === node && one.cordon === cordon);
}

function few(nodes: readonly string[]): string {
  return nodes.length <= 5 ? nodes.join(", ") : `${nodes.slice(0, 5).join(", ")} and ${nodes.length - 5} more`;
}
