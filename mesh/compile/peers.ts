/** The view that every agent holds: the network, all peers and all sites; and what each node's status says of them. */
import type { NetworkPlan, PeerPlan, SitePlan } from "../model/plan.ts";
import type { Resource } from "../model/resources.ts";
import { meshAddress } from "../net/overlay.ts";
import { prefixSet } from "../net/prefix-set.ts";
import { judgeClaims, NO_CLAIMS, resolveOverlaps, type ClaimResult, type SiteSubnets } from "./claims.ts";
import type { Context, NodeContext } from "./context.ts";
import { isUnproven, rankEndpoints, resolveEndpoints, sameOwn, type OwnEndpoints, type RankedEndpoints, type TakenEndpoint } from "./endpoints.ts";
import { createKeeper, createMemo, sameItems, sameJson } from "./memo.ts";
import { isSiteGateway, type SubnetOwnership } from "./sites.ts";
import type { CompileCondition, NodeCompileStatus } from "./types.ts";

export interface CompiledPeers {
  /** Entries of view `mesh`, sorted by key. */
  readonly entries: readonly (readonly [string, unknown])[];
  readonly claims: ReadonlyMap<string, ClaimResult>;
  readonly status: ReadonlyMap<NodeContext["name"], NodeCompileStatus>;
}

/** How many names a condition lists. */
const NAMED = 8;

/** Sites that a node cannot reach because both are behind NAT: none for one that can be dialled, or has no peers across sites. */
const NOWHERE: readonly string[] = [];

/** Compiles peers, remembering those that did not change. */
export function createPeerCompiler(): (context: Context, subnets: ReadonlyMap<string, SubnetOwnership>) => CompiledPeers {
  const subnetLists = createMemo<readonly SiteSubnets[]>();
  const judged = createMemo<ClaimResult>();
  const resolved = createMemo<ReadonlyMap<string, ClaimResult>>();
  const claimLists = createKeeper<ClaimResult>(sameJson);
  const ranked = createMemo<RankedEndpoints>();
  const owned = createKeeper<OwnEndpoints>(sameOwn);
  const peers = createMemo<{ readonly entry: readonly [string, PeerPlan]; readonly status: NodeCompileStatus }>();
  const entriesByPeer = createKeeper<readonly [string, PeerPlan]>(sameJson);
  const sites = createMemo<readonly [string, SitePlan]>();
  const networks = createMemo<readonly [string, NetworkPlan]>();
  const natSites = createKeeper<readonly string[]>(sameItems);
  return (context, subnets) => {
    const { network, overlay } = context;
    const inEffect = subnetLists.get("all", [subnets], () => [...subnets].map(([site, { effective }]) => ({ site, set: prefixSet(effective) })));
    const claiming = context.nodes.filter((node) => (node.facts?.advertise.length ?? 0) > 0);
    const alone = claiming.map(
      (node) => [node, judged.get(node.name, [node, overlay, inEffect], () => judgeClaims(node, context, inEffect))] as const,
    );
    const judgedTogether = resolved.get("all", alone.flat(), () => resolveOverlaps(alone));
    const claims = new Map([...judgedTogether].map(([name, claim]) => [name, claimLists.keep(name, claim)] as const));
    const wanted = context.nodes.map((node) =>
      ranked.get(node.name, [node, network], () => rankEndpoints(node.resource.spec.endpoints ?? [], node.facts, network.ports.mesh, overlay)),
    );
    const endpoints = resolveEndpoints(context.nodes.map(({ name, created }, i) => ({ name, created, ranked: wanted[i] as RankedEndpoints }))).map(
      (own, i) => owned.keep((context.nodes[i] as NodeContext).name, own),
    );
    const crosses = context.nodes.map((node) => network.topology !== "SiteGateways" || isSiteGateway(context, node));
    const nat = natSites.keep("all", sitesBehindNat(context.nodes, endpoints, crosses));
    const entries: (readonly [string, unknown])[] = [networks.get("network", [network], () => ["network", network])];
    const status = new Map<NodeContext["name"], NodeCompileStatus>();
    context.nodes.forEach((node, i) => {
      const reach = endpoints[i] as OwnEndpoints;
      const claim = claims.get(node.name) ?? NO_CLAIMS;
      const apart = reach.behindNat && crosses[i] === true ? nat : NOWHERE;
      const compiled = peers.get(node.name, [node, network, reach, claim, apart], () => ({
        entry: [`peer/${node.name}`, peerPlan(node, reach, claim)] as const,
        status: nodeStatus(context, node, reach, claim, apart),
      }));
      entries.push(entriesByPeer.keep(node.name, compiled.entry));
      status.set(node.name, compiled.status);
    });
    for (const site of context.sites) entries.push(sites.get(site.metadata.name, [site], () => [`site/${site.metadata.name}`, sitePlan(site)]));
    for (const memory of [subnetLists, judged, resolved, claimLists, ranked, owned, peers, entriesByPeer, sites, networks, natSites]) memory.endRun();
    return { entries, claims, status };
  };
}

function peerPlan(node: NodeContext, reach: RankedEndpoints, claim: ClaimResult): PeerPlan {
  const { index, publicKey, site } = node.resource.spec;
  return {
    i: index,
    k: publicKey,
    s: site,
    e: [...reach.endpoints],
    ...(reach.behindNat ? { n: 1 } : {}),
    ...(reach.unproven === 0 ? {} : { h: reach.unproven }),
    ...(claim.granted.length === 0 ? {} : { a: [...claim.granted] }),
  };
}

function sitePlan({ spec }: Resource<"Site">): SitePlan {
  return { kind: spec.kind, ...(spec.region === undefined ? {} : { region: spec.region }), ...(spec.zone === undefined ? {} : { zone: spec.zone }) };
}

/** Sites with a node that has peers across sites and that nobody outside can dial, sorted. */
function sitesBehindNat(nodes: readonly NodeContext[], endpoints: readonly RankedEndpoints[], crosses: readonly boolean[]): string[] {
  const sites = new Set<string>();
  nodes.forEach((node, i) => {
    if (endpoints[i]?.behindNat === true && crosses[i] === true) sites.add(node.resource.spec.site);
  });
  return [...sites].sort();
}

function nodeStatus(context: Context, node: NodeContext, reach: OwnEndpoints, claim: ClaimResult, natSites: readonly string[]): NodeCompileStatus {
  const { v4, v6 } = meshAddress(context.network, node.resource.spec.index);
  return {
    overlay: [v4, v6],
    endpoints: reach.endpoints,
    provenEndpoints: reach.endpoints.filter((_, i) => !isUnproven(reach.unproven, i)),
    behindNat: reach.behindNat,
    labels: node.labels,
    pendingCidrs: claim.pending.map(({ cidr }) => cidr),
    pending: claim.pending,
    conditions: [siteKnown(node), claimsGranted(claim, reach.taken), peersReachable(node, natSites)],
  };
}

function siteKnown(node: NodeContext): CompileCondition {
  const site = node.resource.spec.site;
  if (node.site !== undefined) return { type: "SiteKnown", status: "True", reason: "Known", message: `site ${site}` };
  return {
    type: "SiteKnown",
    status: "False",
    reason: "NoSuchSite",
    message: `there is no site ${site}: the node has no location and carries no subnets`,
  };
}

function claimsGranted({ granted, pending }: ClaimResult, taken: readonly TakenEndpoint[]): CompileCondition {
  const refused = [
    ...taken.map(
      ({ endpoint, owner }) =>
        `${endpoint} is the endpoint of node ${owner}; remove it from --endpoint here, or from node ${owner} if it is wrong there`,
    ),
    ...pending.map(({ message }) => message),
  ];
  if (refused.length === 0) return { type: "ClaimsGranted", status: "True", reason: "Granted", message: `${granted.length} prefixes advertised` };
  const named = refused.slice(0, NAMED);
  const more = refused.length > NAMED ? [`and ${refused.length - NAMED} more`] : [];
  return { type: "ClaimsGranted", status: "False", reason: "Pending", message: [...named, ...more].join("; ") };
}

/** Two nodes behind different NATs cannot dial each other: said plainly, by site, so that a join does not change it for all. */
function peersReachable(node: NodeContext, natSites: readonly string[]): CompileCondition {
  const others = natSites.filter((site) => site !== node.resource.spec.site);
  if (others.length === 0) return { type: "PeersReachable", status: "True", reason: "Reachable", message: "every peer can be dialled, or dials" };
  const named = others.slice(0, NAMED).join(", ") + (others.length > NAMED ? ` and ${others.length - NAMED} more` : "");
  return {
    type: "PeersReachable",
    status: "False",
    reason: "BothBehindNat",
    message: `this node and nodes of ${named} are behind different NATs, so they cannot reach each other; give one side a forwarded port (--endpoint)`,
  };
}
