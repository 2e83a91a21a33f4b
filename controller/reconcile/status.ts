/** Status as the API shows it: what compile says, what agents report, and since when. It never raises the revision. */
import { type CompileOutput, intentKey } from "../../mesh/compile/types.ts";
import type { MeshNodeStatus } from "../../mesh/model/mesh-node.ts";
import type { IntentStatus } from "../../mesh/model/meta.ts";
import type { Kind, Resource } from "../../mesh/model/resources.ts";
import { durationMs, type NodeName } from "../../mesh/model/scalars.ts";
import { judgeIntent, nodeConditions, type Plain, siteConditions } from "./conditions.ts";
import { IDLE, idleCondition } from "./idle.ts";
import { FOLDER, kindFolder, resourceKey } from "./keys.ts";
import type { Mirror } from "./mirror.ts";
import { readyCondition } from "./ready.ts";
import type { Reports } from "./reports.ts";
import { createTimes } from "./since.ts";
import { tokenState } from "./tokens.ts";

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
  /** Of the store. */
  readonly epoch: () => number;
}

/** Kinds whose status is told by the nodes that carry them. */
const INTENTS = ["MeshRoute", "StaticRoute", "EgressGateway"] as const satisfies readonly Kind[];

/** Drain timeout of intents that have none of their own. */
const DEFAULT_DRAIN_MS = 60_000;
/** What a status may list (mesh/model). */
const MAX_NODE_CONDITIONS = 32;
const MAX_CONDITIONS = 16;
const MAX_ENDPOINTS = 16;

export function keepStatus({ mirror, reports, output, now, epoch }: StatusOptions): StatusKeeper {
  const times = createTimes(now);
  let folded: { readonly version: number; readonly revision: number; readonly output: CompileOutput | undefined } | undefined;

  const all = <K extends Kind>(kind: K): Resource<K>[] => [...mirror.folder(kindFolder(kind)).values()].map(({ value }) => value as Resource<K>);

  /** How long a client that nobody hears from may keep flows on a node that is drained. */
  function longestDrainMs(node: Resource<"MeshNode">): number {
    if (node.spec.drainTimeout !== undefined) return durationMs(node.spec.drainTimeout);
    return Math.max(DEFAULT_DRAIN_MS, ...all("EgressGateway").map(({ spec }) => durationMs(spec.drainTimeout)));
  }

  function ofNode(node: Resource<"MeshNode">): readonly Plain[] {
    return nodeConditions(node, reports, output(), nodeReady(node.metadata.name), () => {
      const cordoned = times.of(intentKey("MeshNode", node.metadata.name), "Draining");
      return cordoned !== undefined && now() - Date.parse(cordoned.at) >= longestDrainMs(node);
    });
  }

  function nodeStatus(node: Resource<"MeshNode">): MeshNodeStatus {
    const { name, generation } = node.metadata;
    const compiled = output()?.nodeStatus.get(name as unknown as NodeName);
    const report = reports.get(name);
    const contact = reports.contact(name);
    return {
      ...(compiled === undefined ? {} : { overlay: [...compiled.overlay], endpoints: [...compiled.endpoints].slice(0, MAX_ENDPOINTS) }),
      connected: contact?.connected ?? false,
      ...(contact === undefined ? {} : { lastSeen: new Date(contact.lastSeen).toISOString() }),
      ...(contact?.version === undefined ? {} : { agentVersion: contact.version }),
      ...(report?.kernel === undefined ? {} : { kernel: report.kernel }),
      ...(report?.wireguard === undefined ? {} : { wireguard: report.wireguard }),
      ...(report?.applied === undefined ? {} : { appliedRevision: report.applied.revision }),
      ...(report?.handshakes === undefined ? {} : { handshakes: { peers: report.handshakes.peers, fresh: report.handshakes.fresh } }),
      ...((compiled?.pendingCidrs.length ?? 0) === 0 ? {} : { pendingCidrs: [...(compiled?.pendingCidrs ?? [])] }),
      conditions: times.dated(intentKey("MeshNode", name), ofNode(node), generation).slice(0, MAX_NODE_CONDITIONS),
    };
  }

  function intentStatus(intent: Resource): IntentStatus {
    const { name, generation } = intent.metadata;
    const found = judgeIntent(intent, reports, output());
    if (found === undefined) return {};
    return { ...found.rest, conditions: times.dated(intentKey(intent.kind, name), found.conditions, generation).slice(0, MAX_CONDITIONS) };
  }

  function nodeReady(node: string): Plain {
    const known = mirror.get(resourceKey("MeshNode", node))?.value as Resource<"MeshNode"> | undefined;
    const revoked = known !== undefined && mirror.get(FOLDER.revoked + known.spec.tlsKey) !== undefined;
    return readyCondition(reports.contact(node), reports.get(node), revoked);
  }

  function ofSite(site: Resource<"Site">, nodes: readonly string[]): { readonly conditions: readonly Plain[]; readonly missing: number } {
    const missing = nodes.filter((node) => nodeReady(node).status !== "True").sort();
    return { conditions: siteConditions(site, nodes.length, missing, judgeIntent(site, reports, output())), missing: missing.length };
  }

  function siteStatus(site: Resource<"Site">): Resource<"Site">["status"] {
    const { name, generation } = site.metadata;
    const nodes = all("MeshNode").flatMap((node) => (node.spec.site === name ? [node.metadata.name as string] : []));
    const { conditions, missing } = ofSite(site, nodes);
    return {
      nodes: { total: nodes.length, ready: nodes.length - missing },
      conditions: times.dated(intentKey("Site", name), conditions, generation).slice(0, MAX_CONDITIONS),
    };
  }

  function idleStatus({ kind, metadata }: Resource): IntentStatus {
    const idle = idleCondition(kind);
    return idle === undefined ? {} : { conditions: times.dated(intentKey(kind, metadata.name), [idle], metadata.generation) };
  }

  function tokenStatus(token: Resource<"JoinToken">): Resource<"JoinToken">["status"] {
    const hasSite = (site: string): boolean => mirror.get(resourceKey("Site", site)) !== undefined;
    return token.status === undefined ? undefined : { ...token.status, state: tokenState(token, { now: now(), epoch: epoch(), hasSite }) };
  }

  /** Conditions of every object, without the rest of its status. */
  function* conditionsOfAll(): Generator<readonly [owner: string, conditions: readonly Plain[]]> {
    const nodes = all("MeshNode");
    const bySite = Map.groupBy(nodes, ({ spec }) => spec.site);
    for (const node of nodes) yield [intentKey("MeshNode", node.metadata.name), ofNode(node)];
    for (const site of all("Site")) {
      const names = (bySite.get(site.metadata.name) ?? []).map(({ metadata }) => metadata.name);
      yield [intentKey("Site", site.metadata.name), ofSite(site, names).conditions];
    }
    for (const kind of INTENTS)
      for (const intent of all(kind)) {
        const found = judgeIntent(intent, reports, output());
        if (found !== undefined) yield [intentKey(kind, intent.metadata.name), found.conditions];
      }
    for (const kind of IDLE) {
      const idle = idleCondition(kind);
      if (idle !== undefined) for (const { metadata } of all(kind)) yield [intentKey(kind, metadata.name), [idle]];
    }
  }

  function statusOf(resource: Resource): unknown {
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
        return tokenStatus(resource as Resource<"JoinToken">);
      case "MeshNetwork":
        return resource.status;
      case "VirtualIP":
      case "MeshCluster":
        return idleStatus(resource);
    }
    throw new Error(`no status for ${String(resource.kind)}`);
  }

  return {
    withStatus(resource) {
      const status = statusOf(resource);
      return status === undefined ? resource : { ...resource, status: status as NonNullable<typeof resource.status> };
    },
    nodeReady,
    fold() {
      const current = { version: reports.version, revision: mirror.revision, output: output() };
      // A drain ends by the clock alone.
      if (!times.some("Draining") && folded?.version === current.version && folded.revision === current.revision && folded.output === current.output)
        return;
      folded = current;
      const met = new Set<string>();
      for (const [owner, conditions] of conditionsOfAll()) {
        times.note(owner, conditions);
        met.add(owner);
      }
      times.keep(met);
    },
  };
}
