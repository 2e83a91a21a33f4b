/** Status as the API shows it: what compile says, what agents report, and since when. It never raises the revision. */
import type { CompileCondition, CompileOutput } from "../../mesh/compile/types.ts";
import { intentKey } from "../../mesh/compile/types.ts";
import { MAX_FAILING_NODES, type Condition, type IntentStatus, type NodeFault } from "../../mesh/model/meta.ts";
import type { MeshNodeStatus } from "../../mesh/model/mesh-node.ts";
import type { Kind, Resource } from "../../mesh/model/resources.ts";
import { durationMs, type NodeName } from "../../mesh/model/scalars.ts";
import { drainedCondition } from "./drained.ts";
import { kindFolder } from "./keys.ts";
import type { Mirror } from "./mirror.ts";
import { readyCondition } from "./ready.ts";
import type { Reports } from "./reports.ts";

export interface StatusKeeper {
  /** The object with its status filled in. */
  withStatus<K extends Kind>(resource: Resource<K>): Resource<K>;
  /** Whether a node is ready, and why not. */
  nodeReady(node: string): Plain;
  /** Notes since when each condition of every object holds, also when nobody looks; cheap while nothing changed. */
  fold(): void;
}

export interface StatusOptions {
  readonly mirror: Mirror;
  readonly reports: Reports;
  readonly output: () => CompileOutput | undefined;
  readonly now: () => number;
}

/** Kinds whose conditions are made here. */
const WITH_CONDITIONS: readonly Kind[] = ["MeshNode", "Site", "MeshRoute", "StaticRoute", "EgressGateway"];

/** Drain timeout of intents that have none of their own. */
const DEFAULT_DRAIN_MS = 60_000;

type Plain = Pick<Condition, "type" | "status" | "reason" | "message">;

export function keepStatus({ mirror, reports, output, now }: StatusOptions): StatusKeeper {
  /** When a condition last changed its status, by object and type. */
  const since = new Map<string, { status: string; at: string }>();
  /** Keys that a fold came across: the others are of objects and conditions that are gone. */
  let met = new Set<string>();
  let folded: { readonly version: number; readonly revision: number; readonly output: CompileOutput | undefined } | undefined;

  function dated(owner: string, conditions: readonly Plain[], generation: number | undefined): Condition[] {
    return conditions.map((condition) => {
      const key = `${owner}/${condition.type}`;
      const known = since.get(key);
      const at = known?.status === condition.status ? known.at : new Date(now()).toISOString();
      since.set(key, { status: condition.status, at });
      met.add(key);
      return { ...condition, lastTransitionTime: at, ...(generation === undefined ? {} : { observedGeneration: generation }) };
    });
  }

  /** How long a client that nobody hears from may keep flows on a node that is drained. */
  function longestDrainMs(node: Resource<"MeshNode">): number {
    if (node.spec.drainTimeout !== undefined) return durationMs(node.spec.drainTimeout);
    const egress = [...mirror.folder(kindFolder("EgressGateway")).values()].map((item) => item.value as Resource<"EgressGateway">);
    return Math.max(DEFAULT_DRAIN_MS, ...egress.map(({ spec }) => durationMs(spec.drainTimeout)));
  }

  function nodeStatus(node: Resource<"MeshNode">): MeshNodeStatus {
    const { name, generation } = node.metadata;
    const compiled = output()?.nodeStatus.get(name as unknown as NodeName);
    const report = reports.get(name);
    const contact = reports.contact(name);
    const lost = report?.handshakes?.lost ?? [];
    const cordonedAt = node.spec.cordoned === true ? since.get(`MeshNode/${name}/Draining`) : undefined;
    const conditions: Plain[] = [
      readyCondition(contact, report),
      ...(node.spec.cordoned === true
        ? [
            { type: "Draining", status: "True", reason: "Cordoned", message: "gateways and routes move away" } as const,
            drainedCondition({
              node: name,
              intents: output()?.intentStatus.values() ?? [],
              report: (one) => reports.get(one),
              contact: (one) => reports.contact(one),
              overdue: cordonedAt?.status === "True" && now() - Date.parse(cordonedAt.at) >= longestDrainMs(node),
            }),
          ]
        : []),
      ...(compiled?.conditions ?? []).map(plain),
      ...(report?.conditions ?? []).map(({ message, ...condition }) => ({ ...condition, ...(message === undefined ? {} : { message }) })),
      // Where the node itself knows why (both ends behind NAT), its word stands.
      ...(lost.length > 0
        ? [{ type: "NoPathTo", status: "True", reason: "NoHandshake", message: `no handshake with ${lost.join(", ")}` } as const]
        : []),
    ];
    if (node.spec.cordoned !== true) since.delete(`MeshNode/${name}/Draining`);
    return {
      ...(compiled === undefined ? {} : { overlay: [...compiled.overlay], endpoints: [...compiled.endpoints].slice(0, 16) }),
      connected: contact?.connected ?? false,
      ...(contact === undefined ? {} : { lastSeen: new Date(contact.lastSeen).toISOString() }),
      ...(contact?.version === undefined ? {} : { agentVersion: contact.version }),
      ...(report?.kernel === undefined ? {} : { kernel: report.kernel }),
      ...(report?.wireguard === undefined ? {} : { wireguard: report.wireguard }),
      ...(report?.applied === undefined ? {} : { appliedRevision: report.applied.revision }),
      ...(report?.handshakes === undefined ? {} : { handshakes: { peers: report.handshakes.peers, fresh: report.handshakes.fresh } }),
      ...((compiled?.pendingCidrs.length ?? 0) === 0 ? {} : { pendingCidrs: [...(compiled?.pendingCidrs ?? [])] }),
      conditions: dated(`MeshNode/${name}`, firstOfType(conditions), generation).slice(0, 32),
    };
  }

  /** What nodes report of an intent; its conditions are not dated yet. */
  function judged(intent: Resource): { readonly conditions: readonly Plain[]; readonly rest: Omit<IntentStatus, "conditions"> } | undefined {
    const { name, generation } = intent.metadata;
    const compiled = output()?.intentStatus.get(intentKey(intent.kind, name));
    if (compiled === undefined) return undefined;
    const gateways = new Set<string>(compiled.gateways);
    const failing: NodeFault[] = [];
    const active = new Map<string, number>();
    let ready = 0;
    for (const node of compiled.nodes) {
      const result = compiled.id === undefined ? undefined : reports.get(node)?.results.get(compiled.id);
      if (result === undefined) continue;
      if (result.ok) ready++;
      else
        failing.push({
          node,
          reason: result.reason,
          ...(result.message === undefined ? {} : { message: result.message }),
          ...(result.nextHop === undefined ? {} : { nextHop: result.nextHop }),
        });
      for (const hop of (result.nextHop ?? "").split(/[\s,]+/)) if (gateways.has(hop)) active.set(hop, (active.get(hop) ?? 0) + 1);
    }
    const total = compiled.nodes.length;
    const conflict = failing.find((fault) => fault.reason === "Conflict");
    const conditions: Plain[] = [
      readiness(compiled.id, total, ready, failing),
      ...compiled.conditions.map(plain),
      ...(conflict === undefined
        ? []
        : [
            {
              type: "Conflict",
              status: "True",
              reason: "DestinationTaken",
              message: `on ${conflict.node}: ${conflict.message ?? "another object holds a destination"}`,
            } as const,
          ]),
    ];
    const rest = {
      ...(generation === undefined ? {} : { observedGeneration: generation }),
      nodes: { total, ready, failing: failing.length },
      ...(failing.length === 0 ? {} : { failing: failing.slice(0, MAX_FAILING_NODES) }),
      ...(active.size === 0
        ? {}
        : {
            active: [...active]
              .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
              .map(([gateway]) => gateway)
              .slice(0, 64),
          }),
    };
    return { conditions, rest };
  }

  function intentStatus(intent: Resource): IntentStatus {
    const { name, generation } = intent.metadata;
    const found = judged(intent);
    if (found === undefined) return {};
    return { ...found.rest, conditions: dated(intentKey(intent.kind, name), firstOfType(found.conditions), generation).slice(0, 16) };
  }

  function nodeReady(node: string): Plain {
    return readyCondition(reports.contact(node), reports.get(node));
  }

  /** A site is ready when its nodes are; whether others reach its subnets is told apart. */
  function siteStatus(site: Resource<"Site">): Resource<"Site">["status"] {
    const { name, generation } = site.metadata;
    const nodes = [...mirror.folder(kindFolder("MeshNode")).values()]
      .map((item) => item.value as Resource<"MeshNode">)
      .filter((node) => node.spec.site === (name as string))
      .map((node) => node.metadata.name as string);
    const missing = nodes.filter((node) => nodeReady(node).status !== "True").sort();
    const hasSubnets = (site.spec.subnets ?? []).length > 0;
    const others = (judged(site)?.conditions ?? []).flatMap((one) =>
      one.type !== "Ready" ? [one] : hasSubnets ? [{ ...one, type: "SubnetsReachable" }] : [],
    );
    return {
      nodes: { total: nodes.length, ready: nodes.length - missing.length },
      conditions: dated(intentKey("Site", name), firstOfType([siteReady(nodes.length, missing), ...others]), generation).slice(0, 16),
    };
  }

  function withStatus<K extends Kind>(resource: Resource<K>): Resource<K> {
    const status = ((): unknown => {
      switch (resource.kind) {
        case "MeshNode":
          return nodeStatus(resource as Resource<"MeshNode">);
        case "Site":
          return siteStatus(resource as Resource<"Site">);
        case "MeshRoute":
        case "StaticRoute":
        case "EgressGateway":
          return intentStatus(resource);
        case "JoinToken":
        case "MeshNetwork":
        case "VirtualIP":
        case "MeshCluster":
          return resource.status;
      }
      throw new Error(`no status for ${String(resource.kind)}`);
    })();
    return status === undefined ? resource : { ...resource, status: status as NonNullable<typeof resource.status> };
  }

  return {
    withStatus,
    nodeReady,
    fold: () => {
      const current = { version: reports.version, revision: mirror.revision, output: output() };
      // A drain ends by the clock alone.
      const draining = since.keys().some((key) => key.endsWith("/Draining"));
      if (!draining && folded?.version === current.version && folded.revision === current.revision && folded.output === current.output) return;
      folded = current;
      met = new Set();
      for (const kind of WITH_CONDITIONS) for (const { value } of mirror.folder(kindFolder(kind)).values()) withStatus(value as Resource);
      for (const key of since.keys()) if (!met.has(key)) since.delete(key);
    },
  };
}

function readiness(id: string | undefined, total: number, ready: number, failing: readonly NodeFault[]): Plain {
  if (id === undefined) return { type: "Ready", status: "False", reason: "NoEffect", message: "the object has no effect on any node" };
  if (failing.length > 0)
    return {
      type: "Ready",
      status: "False",
      reason: "NodesFailing",
      message: `${failing.length} of ${total} nodes report a fault; the first is ${failing[0]?.node}: ${failing[0]?.reason}`,
    };
  if (ready < total)
    return { type: "Ready", status: "Unknown", reason: "Waiting", message: `${total - ready} of ${total} nodes have not reported yet` };
  return { type: "Ready", status: "True", reason: "AllNodesReady", message: `${total} nodes` };
}

function siteReady(total: number, missing: readonly string[]): Plain {
  if (total === 0) return { type: "Ready", status: "Unknown", reason: "NoNodes", message: "no node has joined this site" };
  if (missing.length === 0) return { type: "Ready", status: "True", reason: "AllNodesReady", message: `${total} nodes` };
  const named = missing.slice(0, 5).join(", ") + (missing.length > 5 ? ` and ${missing.length - 5} more` : "");
  const message = `${missing.length} of ${total} nodes are not ready: ${named}`;
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
