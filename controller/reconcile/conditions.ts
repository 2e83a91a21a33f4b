/** The conditions of nodes, sites and intents, from what compile says and what agents report. They are not dated yet. */
import type { CompileCondition, CompileOutput, IntentCompileStatus } from "../../mesh/compile/types.ts";
import { intentKey } from "../../mesh/compile/types.ts";
import type { Reason } from "../../mesh/elect/types.ts";
import { type Condition, type IntentStatus, MAX_FAILING_NODES, type NodeFault } from "../../mesh/model/meta.ts";
import type { Resource } from "../../mesh/model/resources.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import { count } from "../../mesh/model/words.ts";
import { drainedCondition } from "./drained.ts";
import type { Reports } from "./reports.ts";
import { hopsOf } from "../../mesh/model/wire.ts";

export type Plain = Pick<Condition, "type" | "status" | "reason" | "message">;

export interface Judged {
  readonly conditions: readonly Plain[];
  readonly rest: Omit<IntentStatus, "conditions">;
}

/**
 * @param ready its condition of that name
 * @param overdue whether its drain has had the longest drain timeout; asked of a cordoned node only
 */
export function nodeConditions(
  node: Resource<"MeshNode">,
  reports: Reports,
  output: CompileOutput | undefined,
  ready: Plain,
  overdue: () => boolean,
): readonly Plain[] {
  const { name } = node.metadata;
  const report = reports.get(name);
  const lost = report?.handshakes?.lost ?? [];
  const conditions = [ready];
  if (node.spec.cordoned === true)
    conditions.push(
      { type: "Draining", status: "True", reason: "Cordoned", message: "gateways and routes move away" },
      drainedCondition({
        node: name,
        cordon: node.spec.cordonedAt ?? "",
        intents: output?.intentStatus.values() ?? [],
        report: (one) => reports.get(one),
        contact: (one) => reports.contact(one),
        overdue: overdue(),
      }),
    );
  conditions.push(...(output?.nodeStatus.get(name as unknown as NodeName)?.conditions ?? []).map(plain));
  for (const { message, ...condition } of report?.conditions ?? []) conditions.push({ ...condition, ...(message === undefined ? {} : { message }) });
  // Where the node itself knows why (both ends behind NAT), its word stands.
  if (lost.length > 0) conditions.push({ type: "NoPathTo", status: "True", reason: "NoHandshake", message: `no handshake with ${lost.join(", ")}` });
  return firstOfType(conditions);
}

/** What nodes report of an intent; `undefined` where none was compiled. */
export function judgeIntent(intent: Resource, reports: Reports, output: CompileOutput | undefined): Judged | undefined {
  const { name, generation } = intent.metadata;
  const compiled = output?.intentStatus.get(intentKey(intent.kind, name));
  if (compiled === undefined) return undefined;
  const { failing, active, ready, unheard, unusable } = countResults(compiled, reports);
  const total = compiled.nodes.length;
  const conflict = failing.find((fault) => fault.reason === "Conflict");
  const conditions = [readiness(compiled.id, { total, ready, unheard }, failing), ...compiled.conditions.map(plain)];
  if (conflict !== undefined)
    conditions.push({
      type: "Conflict",
      status: "True",
      reason: "DestinationTaken",
      message: `on ${conflict.node}: ${conflict.message ?? "another object holds a destination"}`,
    });
  const lacking = gatewaysUsable(unusable, total);
  if (lacking !== undefined) conditions.push(lacking);
  const rest = {
    ...(generation === undefined ? {} : { observedGeneration: generation }),
    nodes: { total, ready, failing: failing.length },
    ...(failing.length === 0 ? {} : { failing: failing.slice(0, MAX_FAILING_NODES) }),
    ...(active.length === 0 ? {} : { active: active.slice(0, 64) }),
  };
  return { conditions: firstOfType(conditions), rest };
}

/** Nodes that cannot use a gateway, by gateway and why. */
type Unusable = ReadonlyMap<string, { readonly gateway: string; readonly why: string; readonly nodes: readonly string[] }>;

const UNUSABLE: Readonly<Record<string, string>> = {
  Down: "the link to it does not answer",
  UplinkDown: "it says that its uplink, or its way to other sites, is down",
};
const MOST_NAMED = 3;
/** A node's reason while nothing is known of its gateways yet (`mesh/elect`): no fault, and not in effect. */
const FIRST_PROBES = "NotHeardYet" satisfies Reason;

/** Said only where a gateway fails somebody, also while others carry the traffic. */
function gatewaysUsable(unusable: Unusable, total: number): Plain | undefined {
  const all = [...unusable.values()].sort((a, b) => b.nodes.length - a.nodes.length || (a.gateway < b.gateway ? -1 : 1));
  if (all.length === 0) return undefined;
  const texts = all.slice(0, MOST_NAMED).map(({ gateway, why, nodes }) => {
    const named = nodes.slice(0, MOST_NAMED).join(", ") + (nodes.length > MOST_NAMED ? ` and ${nodes.length - MOST_NAMED} more` : "");
    return `${gateway} for ${nodes.length} of ${count(total, "node")} (${named}): ${UNUSABLE[why] ?? why}`;
  });
  const more = all.length > MOST_NAMED ? `; and ${all.length - MOST_NAMED} more` : "";
  const reason = all[0]?.why === "UplinkDown" ? "UplinkDown" : "GatewayDown";
  return { type: "GatewaysUsable", status: "False", reason, message: `cannot be used: ${texts.join("; ")}${more}` };
}

/** `active`: the gateways in use, those of most nodes first. */
function countResults(
  compiled: IntentCompileStatus,
  reports: Reports,
): {
  readonly failing: readonly NodeFault[];
  readonly active: readonly string[];
  readonly ready: number;
  readonly unheard: number;
  readonly unusable: Unusable;
} {
  const gateways = new Set<string>(compiled.gateways);
  const failing: NodeFault[] = [];
  const active = new Map<string, number>();
  const unusable = new Map<string, { readonly gateway: string; readonly why: string; readonly nodes: string[] }>();
  let ready = 0;
  let unheard = 0;
  for (const node of compiled.nodes) {
    const result = compiled.id === undefined ? undefined : reports.get(node)?.results.get(compiled.id);
    if (result === undefined) continue;
    for (const { gateway, why } of result.unusable ?? []) {
      if (!gateways.has(gateway)) continue;
      const known = unusable.get(`${gateway} ${why}`);
      if (known === undefined) unusable.set(`${gateway} ${why}`, { gateway, why, nodes: [node] });
      else known.nodes.push(node);
    }
    if (result.ok) ready++;
    else if (result.reason === FIRST_PROBES) unheard++;
    else
      failing.push({
        node,
        reason: result.reason,
        ...(result.message === undefined ? {} : { message: result.message }),
        ...(result.nextHop === undefined ? {} : { nextHop: result.nextHop }),
      });
    for (const hop of hopsOf(result)) if (gateways.has(hop)) active.set(hop, (active.get(hop) ?? 0) + 1);
  }
  const byUse = [...active].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  return { failing, active: byUse.map(([gateway]) => gateway), ready, unheard, unusable };
}

/** A site is ready when its nodes are; whether others reach its subnets is told apart. */
export function siteConditions(site: Resource<"Site">, nodes: number, missing: readonly string[], judged: Judged | undefined): readonly Plain[] {
  const hasSubnets = (site.spec.subnets ?? []).length > 0;
  const others = (judged?.conditions ?? []).flatMap((one) =>
    one.type !== "Ready" ? [one] : hasSubnets ? [{ ...one, type: "SubnetsReachable" }] : [],
  );
  return firstOfType([siteReady(nodes, missing), ...others]);
}

interface Counts {
  readonly total: number;
  readonly ready: number;
  readonly unheard: number;
}

function readiness(id: string | undefined, { total, ready, unheard }: Counts, failing: readonly NodeFault[]): Plain {
  if (id === undefined) return { type: "Ready", status: "False", reason: "NoEffect", message: "the object has no effect on any node" };
  if (failing.length > 0)
    return {
      type: "Ready",
      status: "False",
      reason: "NodesFailing",
      message: `${failing.length} of ${count(total, "node")} ${failing.length === 1 ? "reports" : "report"} a fault; the first is ${faultText(failing[0])}`,
    };
  if (total === 0) return { type: "Ready", status: "Unknown", reason: "NoNodes", message: "no node uses it" };
  if (ready < total)
    return {
      type: "Ready",
      status: "Unknown",
      reason: "Waiting",
      message: waitingText(total - ready - unheard, unheard, total),
    };
  return { type: "Ready", status: "True", reason: "AllNodesReady", message: count(total, "node") };
}

function waitingText(silent: number, unheard: number, total: number): string {
  const said = [
    ...(silent === 0 ? [] : [`${silent} of ${count(total, "node")} ${silent === 1 ? "has" : "have"} not reported yet`]),
    ...(unheard === 0 ? [] : [`${unheard} of ${count(total, "node")} ${unheard === 1 ? "waits" : "wait"} for the first probes of the gateways`]),
  ];
  return said.join("; ");
}

function faultText(fault: NodeFault | undefined): string {
  return `${fault?.node}: ${fault?.reason}${fault?.message === undefined ? "" : ` (${fault.message})`}`;
}

function siteReady(total: number, missing: readonly string[]): Plain {
  if (total === 0) return { type: "Ready", status: "Unknown", reason: "NoNodes", message: "no node has joined this site" };
  if (missing.length === 0) return { type: "Ready", status: "True", reason: "AllNodesReady", message: count(total, "node") };
  const named = missing.slice(0, 5).join(", ") + (missing.length > 5 ? ` and ${missing.length - 5} more` : "");
  const message = `${missing.length} of ${count(total, "node")} ${missing.length === 1 ? "is" : "are"} not ready: ${named}`;
  return { type: "Ready", status: "False", reason: missing.length === total ? "NoNodeReady" : "NodesNotReady", message };
}

function plain({ type, status, reason, message }: CompileCondition): Plain {
  return { type, status, reason, message };
}

/** Each type once; what stands first counts. */
function firstOfType(conditions: readonly Plain[]): Plain[] {
  const byType = new Map<string, Plain>();
  for (const condition of conditions) {
    const known = byType.get(condition.type);
    if (known === undefined || (condition.type === "Conflict" && condition.status === "True")) byType.set(condition.type, condition);
  }
  return [...byType.values()];
}
