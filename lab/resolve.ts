/** From the topology file to hosts: every address given out, every name looked up. */
import { contains, pointToPoint, publicPool, subnetAddress } from "./addresses.ts";
import type { TopologyFile } from "./topology-file.ts";
import { type Host, type HostRole, type LabSite, type Nic, type Topology, WAN } from "./topology.ts";

type SiteEntry = TopologyFile["sites"][number];
type NodeEntry = SiteEntry["nodes"][number];
type VpcEntry = TopologyFile["vpcs"][number];

/** Refuses the document: where, and why. */
export type Fail = (path: string, message: string) => never;

interface Draft {
  readonly hosts: Host[];
  readonly fail: Fail;
  /** The interface of a public host; the next free address when none is given. */
  readonly wanNic: (address: string | undefined, path: string) => Nic;
}

export function resolveTopology(file: TopologyFile, fail: Fail): Topology {
  const pool = publicPool(fixedPublic(file));
  const wanNic: Draft["wanNic"] = (address, path) => {
    const link = pointToPoint(address ?? pool.next());
    if (link === undefined)
      return fail(path, `${address} cannot be public: each public host has a /30 of its own, so the last number divided by 4 must leave 1 or 2`);
    return { name: "eth0", segment: WAN, address: link.address, bits: 30, peer: link.peer };
  };
  const draft: Draft = { hosts: [], fail, wanNic };
  for (const host of file.internet)
    addPublic(draft, host.name, "internet", host.address, `internet.${host.name}.address`, { prefixes: host.prefixes });
  addPublic(draft, file.controller.name, "controller", file.controller.address, "controller.address");
  for (const site of file.sites) addSite(draft, site, `sites.${site.name}`);
  for (const vpc of file.vpcs) addVpc(draft, vpc, `vpcs.${vpc.name}`);
  const segments = [...file.sites.filter((site) => site.lan !== undefined), ...file.vpcs].map((place): string => place.name);
  const { hosts } = draft;
  const names = hosts.map((host) => host.name);
  const addresses = hosts.flatMap((host) => host.nics.map((nic) => (nic.segment === WAN ? nic.address : `${nic.address} on ${nic.segment}`)));
  refuseTwice(fail, "name", names);
  refuseTwice(fail, "address", addresses);
  refuseTwice(fail, "segment", segments);
  return { hosts, segments, sites: file.sites.map(siteOf), manifests: file.manifests };
}

function addPublic(draft: Draft, name: string, role: HostRole, address: string | undefined, path: string, more: Partial<Host> = {}): void {
  const nic = draft.wanNic(address, path);
  draft.hosts.push({ name, role, labels: {}, routes: [], prefixes: [], nics: [nic], gateway: nic.peer!, ...more });
}

function addSite(draft: Draft, site: SiteEntry, path: string): void {
  const nodes = site.nodes.flatMap(expand);
  if (site.lan !== undefined) return addLan(draft, site, site.lan, nodes, path);
  if (site.machines.length > 0) draft.fail(`${path}.machines`, "need the site to have a lan");
  for (const node of nodes)
    addPublic(draft, node.name, "node", node.address, `${path}.nodes.${node.name}.address`, { site: site.name, labels: node.labels ?? {} });
}

/** A site behind NAT: its router, its nodes, and machines without an agent. */
function addLan(draft: Draft, site: SiteEntry, { subnet, router }: NonNullable<SiteEntry["lan"]>, nodes: readonly NodeEntry[], path: string): void {
  const taken = [...nodes, ...site.machines].flatMap((entry) => entry.address ?? []);
  const lan = subnetAddress(subnet, taken);
  const nicOf = (kind: "nodes" | "machines", { name, address }: { readonly name: string; readonly address?: string | undefined }): Nic => {
    if (address !== undefined && !contains(subnet, address)) draft.fail(`${path}.${kind}.${name}.address`, `${address} is not inside ${subnet}`);
    return { name: "eth0", segment: site.name, address: address ?? lan.next(), bits: lan.bits };
  };
  const common = { site: site.name, labels: {}, routes: [], prefixes: [], gateway: lan.first };
  const wan = draft.wanNic(router.address, `${path}.lan.router.address`);
  const inside: Nic = { name: "eth1", segment: site.name, address: lan.first, bits: lan.bits };
  draft.hosts.push({ ...common, name: router.name, role: "router", nics: [wan, inside], gateway: wan.peer!, nat: router.nat });
  for (const node of nodes) draft.hosts.push({ ...common, name: node.name, role: "node", labels: node.labels ?? {}, nics: [nicOf("nodes", node)] });
  for (const machine of site.machines) {
    const routes = machine.routes.map(({ to, via }) => {
      const next = draft.hosts.find((host) => host.name === via)?.nics.find((nic) => nic.segment === site.name);
      return { to, via: next?.address ?? draft.fail(`${path}.machines.${machine.name}.routes`, `${via} is not a node of this LAN`) };
    });
    draft.hosts.push({ ...common, name: machine.name, role: "machine", nics: [nicOf("machines", machine)], routes });
  }
}

/** A private network that public hosts share, with NAT routers on it. */
function addVpc(draft: Draft, vpc: VpcEntry, path: string): void {
  const { bits } = subnetAddress(vpc.subnet, []);
  const nicOf = (address: string, where: string): Nic => {
    if (!contains(vpc.subnet, address)) draft.fail(where, `${address} is not inside ${vpc.subnet}`);
    return { name: "eth1", segment: vpc.name, address, bits };
  };
  for (const [name, address] of Object.entries(vpc.members)) {
    const where = `${path}.members.${name}`;
    const index = draft.hosts.findIndex((host) => host.name === name);
    const host = draft.hosts[index] ?? draft.fail(where, "is not a node");
    draft.hosts[index] = { ...host, nics: [...host.nics, nicOf(address, where)] };
  }
  for (const router of vpc.routers) {
    const where = `${path}.routers.${router.name}`;
    const wan = draft.wanNic(router.public, `${where}.public`);
    const nics = [wan, nicOf(router.address, `${where}.address`)];
    draft.hosts.push({ name: router.name, role: "router", labels: {}, routes: [], prefixes: [], nics, gateway: wan.peer!, nat: "stable" });
  }
}

function siteOf(site: SiteEntry): LabSite {
  return {
    name: site.name,
    kind: site.kind,
    ...(site.region === undefined ? {} : { region: site.region }),
    ...(site.priority === undefined ? {} : { priority: site.priority }),
    ...(site.lan === undefined ? {} : { subnet: site.lan.subnet, router: site.lan.router.name }),
  };
}

/** `{name: edge, count: 3}` is edge1, edge2, edge3. */
function expand(node: NodeEntry): NodeEntry[] {
  if (node.count === undefined) return [node];
  return Array.from({ length: node.count }, (_, n) => ({ ...node, name: `${node.name}${n + 1}` as NodeEntry["name"], address: undefined }));
}

function fixedPublic(file: TopologyFile): string[] {
  const all = [
    ...file.internet.map((host) => host.address),
    file.controller.address,
    ...file.sites.flatMap((site) => (site.lan === undefined ? site.nodes.map((node) => node.address) : [site.lan.router.address])),
    ...file.vpcs.flatMap((vpc) => vpc.routers.map((router) => router.public)),
  ];
  return all.filter((address) => address !== undefined);
}

function refuseTwice(fail: Fail, what: string, values: readonly string[]): void {
  const seen = new Set<string>();
  for (const value of values) {
    if (seen.has(value)) fail(what, `${value} is given twice`);
    seen.add(value);
  }
}
