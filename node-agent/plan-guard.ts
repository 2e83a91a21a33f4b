/**
 * What of the controller's views becomes the plan. An empty or half plan is no plan (I1), and an entry that this version
 * does not understand fails static: what stood before stays, with the reason (DESIGN §6, skew). Pure.
 */
import { parsePlan, type PlanFault } from "../mesh/compile/parse-plan.ts";
import type { PathId, Plan, ViewData } from "../mesh/model/plan.ts";
import type { NodeName } from "../mesh/model/scalars.ts";

export type Accepted =
  | { readonly plan: Plan; /** Absent when every entry was understood. */ readonly faults?: string }
  /** Nothing may be decided by these views. */
  | { readonly plan: undefined; readonly faults: string };

/** @param before the plan in force, if any */
export function acceptPlan(views: ReadonlyMap<string, ViewData>, before: Plan | undefined): Accepted {
  const { plan, faults } = parsePlan(views);
  if (plan === undefined || !plan.peers.has(plan.self.name)) {
    return { plan: undefined, faults: "it lacks the network, this node or its peers; the last good plan stays" };
  }
  if (faults.length === 0) return { plan };
  const shown = faults.slice(0, 3).map((fault) => `${fault.view} ${fault.key}: ${fault.message}`);
  const more = faults.length > shown.length ? `, and ${faults.length - shown.length} more` : "";
  return {
    plan: before === undefined ? plan : withOld(plan, before, faults),
    faults: `not understood, and left as it was: ${shown.join("; ")}${more}`,
  };
}

/** The new plan with what stood before in the places of what was not understood. */
function withOld(plan: Plan, before: Plan, faults: readonly PlanFault[]): Plan {
  const peers = new Map(plan.peers);
  const paths = new Map(plan.paths);
  const lanRoutes = new Map(plan.lanRoutes);
  const serves = new Map(plan.serves);
  const clients = new Map(plan.clients);
  for (const { view, key } of faults) {
    keep(paths, before.paths, view as PathId);
    keep(lanRoutes, before.lanRoutes, view);
    const slash = key.indexOf("/");
    const [head, name] = [key.slice(0, slash), key.slice(slash + 1)];
    if (head === "peer") keep(peers, before.peers, name as NodeName);
    if (head === "serve") keep(serves, before.serves, name as PathId);
    if (head === "client") keep(clients, before.clients, name as NodeName);
  }
  return { ...plan, peers: sorted(peers), paths: sorted(paths), lanRoutes: sorted(lanRoutes), serves: sorted(serves), clients: sorted(clients) };
}

function keep<K, V>(into: Map<K, V>, from: ReadonlyMap<K, V>, key: K): void {
  const value = from.get(key);
  if (value !== undefined && !into.has(key)) into.set(key, value);
}

function sorted<K extends string, V>(map: ReadonlyMap<K, V>): ReadonlyMap<K, V> {
  return new Map([...map].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
