/** Runs all parts of compile: intents and facts → the views that agents hold, and who holds which. */
import type { PathId, PathPlan, ViewData } from "../model/plan.ts";
import type { Resource } from "../model/resources.ts";
import { durationMs, type NodeName } from "../model/scalars.ts";
import { byName, createContextMaker, type Context } from "./context.ts";
import type { Compiled, Draft, PathDraft } from "./drafts.ts";
import { compileEgress } from "./egress.ts";
import { createKeeper, createMemo, sameItems, sameJson } from "./memo.ts";
import { createNodeViewCompiler } from "./node-views.ts";
import { createPeerCompiler } from "./peers.ts";
import { servedBy, withRetiring, type Served } from "./retiring.ts";
import { compileRoute, compileStaticRoute } from "./routes.ts";
import { createSiteMeshCompiler } from "./site-mesh.ts";
import { compileSite, ownSubnets, type SubnetOwnership } from "./sites.ts";
import { intentKey, type CompileInput, type CompileOutput, type IntentCompileStatus, type ViewId } from "./types.ts";

/**
 * A compiler that remembers its last run: parts whose input did not change keep their objects, so a join among 1,000
 * nodes costs about that join. What it says depends on the input alone. Input objects must not be changed in place.
 */
export function createCompiler(): (input: CompileInput) => CompileOutput {
  const makeContext = createContextMaker();
  const compilePeers = createPeerCompiler();
  const compileNodeViews = createNodeViewCompiler();
  const compileSiteMesh = createSiteMeshCompiler();
  const ownership = createMemo<ReadonlyMap<string, SubnetOwnership>>();
  const compiled = createMemo<Compiled>();
  const retired = createMemo<Compiled>();
  const served = createMemo<Served>();
  const statuses = createKeeper<IntentCompileStatus>(sameStatus);
  const heads = createKeeper<unknown>(sameJson);
  const views = createMemo<ViewData>();
  const audiences = createKeeper<readonly ViewId[]>(sameItems);
  const contexts = createKeeper<Context>((a, b) => a.network === b.network && a.sites === b.sites && sameItems(a.nodes, b.nodes));

  return (input) => {
    const context = contexts.keep("context", makeContext(input));
    const subnets = ownership.get("all", [context.network, context.sites], () => ownSubnets(context));
    const peers = compilePeers(context, subnets);

    const each = <R extends Resource>(
      intents: readonly R[],
      compile: (intent: R) => Compiled,
      more: (intent: R) => unknown = () => undefined,
    ): Compiled[] =>
      [...intents]
        .sort(byName)
        .map((intent) => compiled.get(intentKey(intent.kind, intent.metadata.name), [context, intent, more(intent)], () => compile(intent)));
    const byIntent = [
      ...each(input.egress, (egress) => compileEgress(context, egress)),
      ...each(input.routes, (route) => compileRoute(context, route)),
      ...each(input.staticRoutes, (route) => compileStaticRoute(context, route)),
      ...each(
        context.sites,
        (site) => compileSite(context, site, subnets.get(site.metadata.name) as SubnetOwnership),
        () => subnets,
      ),
    ];
    const all = byIntent.map((one) => {
      const serving = one.draft === undefined ? undefined : input.serving?.get(one.draft.id);
      return serving === undefined ? one : retired.get(one.draft!.id, [context, one, serving], () => withRetiring(context, one, serving));
    });
    const siteMesh = compileSiteMesh(context, subnets, peers.claims);
    const drafts = [...all.flatMap(({ draft }) => draft ?? []), ...siteMesh.drafts].sort((a, b) => (a.id < b.id ? -1 : 1));
    const paths = drafts.filter((draft) => draft.kind === "path");

    const out = new Map<ViewId, ViewData>();
    // Entries keep their identity from run to run, so an equal list means an equal view.
    const addView = (id: ViewId, madeFrom: readonly unknown[], entries: () => Iterable<Entry>): void => {
      out.set(
        id,
        views.get(id, madeFrom, () => new Map(entries())),
      );
    };
    const addDraft = (draft: Draft): void => {
      const head = heads.keep(draft.id, headOf(draft, context));
      addView(draft.id, [head, draft.destinations], () => [
        ...draft.destinations.map((cidr): Entry => [`d/${cidr}`, 1]),
        [draft.kind === "path" ? "path" : "lan", head],
      ]);
    };
    // In the order of ids, so that nothing is sorted again: drafts below `mesh`, then `mesh` and `node/…`, then the rest.
    drafts.filter(isBelowMesh).forEach(addDraft);
    addView("mesh", peers.entries, () => peers.entries);
    for (const [name, entries] of compileNodeViews(context, peers.claims, paths)) addView(`node/${name}`, entries, () => entries);
    drafts.filter((draft) => !isBelowMesh(draft)).forEach(addDraft);
    const result: CompileOutput = {
      views: out,
      audience: audienceOf(context, drafts, audiences.keep),
      nodeStatus: peers.status,
      intentStatus: new Map([
        ...all.map(({ status }) => [intentKey(status.kind, status.name), statuses.keep(intentKey(status.kind, status.name), status)] as const),
        ...siteMesh.status.map((status) => [status.id as string, statuses.keep(status.id as string, status)] as const),
      ]),
      served: new Map(
        byIntent.flatMap(({ draft }): [PathId, Served][] =>
          draft?.kind === "path" ? [[draft.id, served.get(draft.id, [draft], () => servedBy(draft))]] : [],
        ),
      ),
    };
    for (const memory of [ownership, compiled, retired, served, statuses, heads, views, audiences, contexts]) memory.endRun();
    return result;
  };
}

/** One run without memory. */
export function compile(input: CompileInput): CompileOutput {
  return createCompiler()(input);
}

type Entry = readonly [string, unknown];

function headOf(draft: Draft, context: Context): unknown {
  if (draft.kind === "lan") return draft.plan;
  const { created, ...plan } = draft.plan;
  const gateways = draft.gateways.map(({ node, priority, retiring }) => {
    const { cordoned, cordonedAt = "", drainTimeout } = context.nodeByName.get(node)?.resource.spec ?? {};
    const drainMs = drainTimeout === undefined ? plan.drainTimeoutMs : durationMs(drainTimeout);
    const more = retiring === undefined ? {} : { retiring };
    // Clients hear of it here and not from the gateway alone: only who knows of a drain can say that he is out of its way.
    return { node, priority, ...more, ...(cordoned === true ? { drainMs, cordon: cordonedAt } : {}) };
  });
  return { created, gateways, ...plan } satisfies PathPlan;
}

/** Whether its view sorts before `mesh` and `node/…`. No id lies between those two. */
function isBelowMesh({ id }: Draft): boolean {
  return id < "mesh";
}

/** A path concerns its clients and its gateways; a LAN route the nodes that it selects. */
function audienceOf(
  context: Context,
  drafts: readonly Draft[],
  keep: (key: string, ids: readonly ViewId[]) => readonly ViewId[],
): Map<NodeName, readonly ViewId[]> {
  const lists = new Map<NodeName, ViewId[]>(context.nodes.map((node) => [node.name, []]));
  const add = (draft: Draft): void => {
    for (const client of draft.clients) lists.get(client.name)?.push(draft.id);
    if (draft.kind === "path") for (const node of gatewaysOf(draft)) lists.get(node)?.push(draft.id);
  };
  drafts.filter(isBelowMesh).forEach(add);
  for (const [node, list] of lists) list.push("mesh", `node/${node}`);
  drafts.filter((draft) => !isBelowMesh(draft)).forEach(add);
  return new Map([...lists].map(([node, list]) => [node, keep(node, list)] as const));
}

function gatewaysOf(draft: PathDraft): NodeName[] {
  return draft.gateways.map(({ node }) => node);
}

function sameStatus(a: IntentCompileStatus, b: IntentCompileStatus): boolean {
  if (a === b) return true;
  const lists = sameItems(a.nodes, b.nodes) && sameItems(a.gateways, b.gateways) && sameItems(a.retiring ?? [], b.retiring ?? []);
  return lists && a.id === b.id && sameJson(a.conditions, b.conditions);
}
