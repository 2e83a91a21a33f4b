/** What every part of compile looks at: the network, the sites, and the nodes with their effective labels, in sorted order. */
import { IsthmusError } from "../errors.ts";
import type { NetworkPlan } from "../model/plan.ts";
import type { Resource } from "../model/resources.ts";
import type { Cidr, Labels, NodeName, ObjectName } from "../model/scalars.ts";
import type { NodeFacts } from "../model/wire.ts";
import { hostCidr, splitEndpoint } from "../net/ip.ts";
import { rangesFault } from "../net/overlay.ts";
import { prefixSet, union, type PrefixSet } from "../net/prefix-set.ts";
import { createKeeper, createMemo, sameItems, sameJson } from "./memo.ts";
import type { CompileInput } from "./types.ts";

/** A node with all that selectors and views need of it. */
export interface NodeContext {
  readonly name: NodeName;
  readonly resource: Resource<"MeshNode">;
  readonly site: Resource<"Site"> | undefined;
  readonly facts: NodeFacts | undefined;
  readonly labels: Labels;
  readonly created: number;
}

export interface Context {
  readonly network: NetworkPlan;
  /** Overlay and link ranges. */
  readonly overlay: PrefixSet;
  /** Where no intent may lead to: overlay and link ranges, loopback, link-local, multicast, the controllers. */
  readonly reserved: PrefixSet;
  /** Sorted by name. */
  readonly sites: readonly Resource<"Site">[];
  readonly siteByName: ReadonlyMap<string, Resource<"Site">>;
  /** Sorted by name. */
  readonly nodes: readonly NodeContext[];
  readonly nodeByName: ReadonlyMap<string, NodeContext>;
}

/** Never destinations, never endpoints: unspecified, loopback, link-local, multicast, broadcast. */
export const SPECIAL_RANGES: PrefixSet = prefixSet([
  "0.0.0.0/8",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "224.0.0.0/4",
  "255.255.255.255/32",
  "::/128",
  "::1/128",
  "fe80::/10",
  "ff00::/8",
]);

const LABEL_SITE = "isthmus.dev/site";
const LABEL_LOCATION = "location";
const LABEL_REGION = "topology.kubernetes.io/region";
const LABEL_ZONE = "topology.kubernetes.io/zone";

/** When an object was made (ms since 1970). One that is not stored yet is the youngest of all. */
export function createdAt(resource: Resource): number {
  const at = Date.parse(resource.metadata.creationTimestamp ?? "");
  return Number.isNaN(at) ? Number.MAX_SAFE_INTEGER : at;
}

/** Older first, ties by name: who keeps what two objects claim. */
export function byAge(a: Resource, b: Resource): number {
  return createdAt(a) - createdAt(b) || byName(a, b);
}

export function byName(a: Resource, b: Resource): number {
  return a.metadata.name < b.metadata.name ? -1 : a.metadata.name > b.metadata.name ? 1 : 0;
}

/** Selector → predicate; an empty or absent selector selects all. */
export function selects(selector: Labels | undefined): (node: NodeContext) => boolean {
  const pairs = Object.entries(selector ?? {});
  return (node) => pairs.every(([key, value]) => node.labels[key] === value);
}

/**
 * What selectors look at: the site's labels, over them the node's own. Where a node is, only its site says; region and zone
 * are the node's own where the site has none.
 */
export function effectiveLabels(site: Resource<"Site"> | undefined, siteName: ObjectName, own: Labels | undefined): Labels {
  const { region, zone, kind, labels } = site?.spec ?? {};
  const { [LABEL_LOCATION]: _, ...rest } = { ...labels, ...own };
  const all: Labels = {
    ...rest,
    [LABEL_SITE]: siteName,
    ...(kind === undefined ? {} : { [LABEL_LOCATION]: kind }),
    ...(region === undefined ? {} : { [LABEL_REGION]: region }),
    ...(zone === undefined ? {} : { [LABEL_ZONE]: zone }),
  };
  return Object.fromEntries(Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Makes contexts, remembering the nodes that did not change. */
export function createContextMaker(): (input: CompileInput) => Context {
  const nodes = createMemo<NodeContext>();
  const ranges = createMemo<Pick<Context, "overlay" | "reserved">>();
  const networks = createKeeper<NetworkPlan>(sameJson);
  const siteLists = createKeeper<readonly Resource<"Site">[]>(sameItems);
  return (input) => {
    const network = networks.keep("network", networkPlan(input));
    const { overlay, reserved } = ranges.get("ranges", [network], () => rangesOf(network));
    const sites = siteLists.keep("sites", [...input.sites].sort(byName));
    const siteByName = new Map(sites.map((site) => [site.metadata.name as string, site]));
    const sorted = [...input.nodes].sort(byName).map((resource) => {
      const name = resource.metadata.name as string as NodeName;
      const site = siteByName.get(resource.spec.site);
      const facts = input.facts.get(name);
      return nodes.get(name, [resource, site, facts], () => ({
        name,
        resource,
        site,
        facts,
        labels: effectiveLabels(site, resource.spec.site, resource.spec.labels),
        created: createdAt(resource),
      }));
    });
    for (const memory of [nodes, ranges, networks, siteLists]) memory.endRun();
    return { network, overlay, reserved, sites, siteByName, nodes: sorted, nodeByName: new Map(sorted.map((node) => [node.name as string, node])) };
  };
}

function networkPlan({ network, controllers }: CompileInput): NetworkPlan {
  const { overlay, links, ports, mtu, markMask, topology } = network.spec;
  if (overlay.v6 === undefined) throw new IsthmusError("Invalid", `MeshNetwork ${network.metadata.name}: spec.overlay.v6 is missing`);
  const plan: NetworkPlan = {
    name: network.metadata.name,
    overlay: { v4: overlay.v4, v6: overlay.v6 },
    links: { v4: links.v4 },
    ports: { mesh: ports.mesh, gateway: ports.gateway, links: ports.links, echo: ports.echo, state: ports.state },
    ...(mtu === undefined ? {} : { mtu }),
    markMask,
    ...(topology === "SiteGateways" ? { topology } : {}),
    controllers: [...new Set(controllers)].sort(),
  };
  const fault = rangesFault(plan);
  if (fault !== undefined) throw new IsthmusError("Invalid", `MeshNetwork ${network.metadata.name}: ${fault}`);
  return plan;
}

function rangesOf(network: NetworkPlan): Pick<Context, "overlay" | "reserved"> {
  const overlay = prefixSet([network.overlay.v4, network.overlay.v6, network.links.v4]);
  const controllers = prefixSet(network.controllers.flatMap(controllerAddress));
  return { overlay, reserved: union(union(overlay, SPECIAL_RANGES), controllers) };
}

/** A controller's address as a prefix; none when it is given by name (each agent resolves and protects it itself). */
export function controllerAddress(text: string): Cidr[] {
  try {
    return [hostCidr(splitEndpoint(text).address)];
  } catch {
    return [];
  }
}
