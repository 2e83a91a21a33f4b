/** The view `node/<name>` of every node: itself, the paths that it serves, the clients that may use its gateway interface. */
import type { ClientPlan, SelfPlan, ServePlan } from "../model/plan.ts";
import { durationMs, type Cidr, type NodeName } from "../model/scalars.ts";
import type { NodeFacts } from "../model/wire.ts";
import { NO_CLAIMS, sortCidrs, type ClaimResult } from "./claims.ts";
import type { Context, NodeContext } from "./context.ts";
import type { PathDraft } from "./drafts.ts";
import { createMemo } from "./memo.ts";
import { createPairCompiler } from "./pairs.ts";

type Entry = readonly [string, unknown];

/** A drain without a time of its own. */
const DEFAULT_DRAIN_MS = 60_000;

/** Paths that a node uses as client, and by which gateways; nodes with the same paths share one. */
interface Membership {
  readonly key: string;
  readonly paths: readonly PathDraft[];
  /** Next membership by the path that is added. */
  readonly next: Map<PathDraft, Membership>;
  /** Plan that this membership gives at each gateway, without the client's port; made when first asked for. */
  plans: readonly (readonly [NodeName, ClientPlan])[] | undefined;
}

/** Makes the entries of every node's own view, sorted by key. Drafts come sorted by id. */
export function createNodeViewCompiler(): (
  context: Context,
  claims: ReadonlyMap<string, ClaimResult>,
  drafts: readonly PathDraft[],
) => ReadonlyMap<NodeName, readonly Entry[]> {
  const selfEntries = createMemo<Entry>();
  const serveEntries = createMemo<Entry>();
  const shared = createMemo<readonly (readonly [NodeName, ClientPlan])[]>();
  const ported = createMemo<readonly (readonly [NodeName, Entry])[]>();
  const compilePairs = createPairCompiler();
  return (context, claims, drafts) => {
    const clients = new Map<NodeName, Entry[]>();
    const memberships = membershipsOf(drafts);
    const pairs = compilePairs(drafts);
    for (const node of context.nodes) {
      const member = memberships.get(node);
      if (member === undefined) continue;
      // Equal content has an equal key: so the plans of an earlier run serve again.
      const plans = (member.plans ??= shared.get(member.key, [], () => clientPlans(member.paths)));
      const paired = pairs.get(node.name);
      const entries = ported.get(node.name, [plans, node.facts?.links, paired], () => clientEntries(node.name, plans, node.facts, paired));
      for (const [gateway, entry] of entries) {
        const list = clients.get(gateway);
        if (list === undefined) clients.set(gateway, [entry]);
        else list.push(entry);
      }
    }
    const serves = new Map<NodeName, Entry[]>();
    for (const draft of drafts) {
      const entry = serveEntries.get(draft.id, [JSON.stringify(draft.serve)], () => [`serve/${draft.id}`, draft.serve satisfies ServePlan]);
      for (const { node } of draft.gateways) serves.set(node, [...(serves.get(node) ?? []), entry]);
    }
    const out = new Map<NodeName, readonly Entry[]>();
    for (const node of context.nodes) {
      const claim = claims.get(node.name) ?? NO_CLAIMS;
      const self = selfEntries.get(node.name, [node, claim], () => ["self", selfPlan(node, claim)]);
      const mine = clients.get(node.name);
      const served = serves.get(node.name);
      out.set(node.name, mine === undefined && served === undefined ? [self] : [...(mine ?? []), self, ...(served ?? [])]);
    }
    for (const memory of [selfEntries, serveEntries, shared, ported]) memory.endRun();
    return out;
  };
}

/** Which paths each node is a client of. Growing shared lists costs one map lookup per node and path. */
function membershipsOf(drafts: readonly PathDraft[]): Map<NodeContext, Membership> {
  const none: Membership = { key: "", paths: [], next: new Map(), plans: undefined };
  const out = new Map<NodeContext, Membership>();
  for (const draft of drafts) {
    const part = `${draft.id}(${draft.gateways.map(({ node }) => node).join()})`;
    for (const client of draft.clients) {
      const before = out.get(client) ?? none;
      let after = before.next.get(draft);
      if (after === undefined) {
        after = { key: `${before.key} ${part}`, paths: [...before.paths, draft], next: new Map(), plans: undefined };
        before.next.set(draft, after);
      }
      out.set(client, after);
    }
  }
  return out;
}

function clientPlans(paths: readonly PathDraft[]): (readonly [NodeName, ClientPlan])[] {
  const byGateway = new Map<NodeName, string[]>();
  for (const { id, gateways } of paths) {
    for (const { node } of gateways) byGateway.set(node, [...(byGateway.get(node) ?? []), id]);
  }
  return [...byGateway].map(([gateway, ids]) => [gateway, { paths: ids }] as const);
}

function clientEntries(
  client: NodeName,
  plans: readonly (readonly [NodeName, ClientPlan])[],
  facts: NodeFacts | undefined,
  paired: ReadonlySet<NodeName> | undefined,
): (readonly [NodeName, Entry])[] {
  const key = `client/${client}`;
  return plans.map(([gateway, plan]) => {
    const port = facts?.links[gateway];
    const more = { ...(paired?.has(gateway) === true ? { pair: 1 as const } : {}), ...(port === undefined ? {} : { port }) };
    return [gateway, [key, { ...plan, ...more } satisfies ClientPlan]] as const;
  });
}

function selfPlan(node: NodeContext, claim: ClaimResult): SelfPlan {
  const { spec } = node.resource;
  const drainMs = spec.drainTimeout === undefined ? DEFAULT_DRAIN_MS : durationMs(spec.drainTimeout);
  return {
    name: node.name,
    index: spec.index,
    site: spec.site,
    labels: node.labels,
    ...(spec.cordoned === true ? { drain: { timeoutMs: drainMs } } : {}),
    advertise: [...claim.granted],
    subnets: sortCidrs([...new Set<Cidr>(node.site?.spec.subnets)]),
  };
}
