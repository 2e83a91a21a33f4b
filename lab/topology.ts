/**
 * The lab as a file: sites, NAT, nodes, gateways. `parseTopology` checks a document and gives the list of hosts that the
 * rest of the lab builds; nothing here touches the machine.
 */
import { readFile } from "node:fs/promises";
import { parse } from "yaml";
import { z } from "zod";
import { type ErrorDetail, IsthmusError } from "../mesh/errors.ts";
import { Cidr, IpAddress, Labels, NodeName, ObjectName } from "../mesh/model/scalars.ts";
import { familyOf } from "../mesh/net/ip.ts";
import { contains, pointToPoint, publicPool, subnetAddress } from "./addresses.ts";

/** Interface names of the lab carry host names, and Linux allows 15 characters. */
const HostName = NodeName.refine((name) => name.length <= 24, "must be at most 24 characters").refine(
  (name) => name !== "wan",
  "is the WAN router's name",
);

/** The lab's underlay is IPv4. (Text that is no address at all has been refused already.) */
const Address = IpAddress.refine((text) => familyOf(text) !== 6, "must be an IPv4 address");
const Subnet = Cidr.refine((text) => familyOf(text) !== 6, "must be an IPv4 prefix");

const NodeEntry = z.strictObject({
  name: HostName,
  address: Address.optional().describe("On the site's LAN, or public where the site has none; the next free one when absent."),
  labels: Labels.optional().describe("Given to the node by its token."),
  count: z.int().min(1).max(5000).optional().describe("Makes name1, name2, …"),
});

const MachineEntry = z.strictObject({
  name: HostName,
  address: Address.optional(),
  routes: z.array(z.strictObject({ to: Subnet, via: HostName.describe("A host on the same LAN.") })).default([]),
});

const SiteEntry = z.strictObject({
  name: ObjectName,
  kind: z.enum(["onprem", "cloud"]),
  region: z.string().max(63).optional(),
  priority: z.int().min(0).max(1000).optional(),
  lan: z
    .strictObject({
      subnet: Subnet,
      router: z.strictObject({
        name: HostName,
        address: Address.optional(),
        nat: z.enum(["random", "stable"]).default("random").describe("random: endpoint-dependent ports; stable: ports are kept."),
      }),
    })
    .optional()
    .describe("The nodes are behind NAT; without it every node has a public address."),
  nodes: z.array(NodeEntry).default([]),
  machines: z.array(MachineEntry).default([]).describe("Machines without an agent."),
});

const VpcEntry = z.strictObject({
  name: ObjectName,
  subnet: Subnet,
  members: z.record(z.string(), Address).default({}),
  routers: z.array(z.strictObject({ name: HostName, address: Address, public: Address.optional() })).default([]),
});

export const TopologyFile = z.strictObject({
  internet: z
    .array(z.strictObject({ name: HostName, address: Address, prefixes: z.array(Subnet).default([]).describe("Also answered by this host.") }))
    .min(1),
  controller: z.strictObject({ name: HostName, address: Address.optional() }).prefault({ name: "ctl" }),
  sites: z.array(SiteEntry).min(1),
  vpcs: z.array(VpcEntry).default([]),
  manifests: z.array(z.string()).default([]),
});
export type TopologyFile = z.infer<typeof TopologyFile>;

/** The segment of every public address: a link of its own to the WAN router. */
export const WAN = "wan";

export interface Nic {
  readonly name: string;
  /** `WAN`, or the name of a LAN. */
  readonly segment: string;
  readonly address: string;
  readonly bits: number;
  /** On the WAN: the router's address on this link. */
  readonly peer?: string;
}

export type HostRole = "node" | "router" | "internet" | "controller" | "machine";

export interface Host {
  readonly name: string;
  readonly role: HostRole;
  readonly site?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly nics: readonly Nic[];
  readonly gateway?: string;
  readonly routes: readonly { readonly to: string; readonly via: string }[];
  /** Routers: how ports are chosen, and whether anyone may open flows from outside (a VPC router lets nobody in either). */
  readonly nat?: "random" | "stable";
  readonly prefixes: readonly string[];
}

export interface LabSite {
  readonly name: string;
  readonly kind: "onprem" | "cloud";
  readonly region?: string;
  readonly priority?: number;
  readonly subnet?: string;
  /** The NAT router that the site is behind. */
  readonly router?: string;
}

export interface Topology {
  readonly hosts: readonly Host[];
  readonly sites: readonly LabSite[];
  /** Names of the LANs and VPCs: one bridge each. */
  readonly segments: readonly string[];
  readonly manifests: readonly string[];
}

/** Reads and checks a topology file. @throws IsthmusError `Invalid` with every fault's path. */
export async function loadTopology(file: string): Promise<Topology> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    throw new IsthmusError("NotFound", `cannot read the topology file ${file}`, { cause, remedy: "Name a readable file with -f." });
  }
  return parseTopology(text, file);
}

export function parseTopology(text: string, from = "topology"): Topology {
  let document: unknown;
  try {
    document = parse(text);
  } catch (cause) {
    throw invalid(from, { cause, faults: [{ path: "", message: cause instanceof Error ? cause.message : "is not YAML" }] });
  }
  const result = TopologyFile.safeParse(document);
  if (!result.success) {
    throw invalid(from, { faults: result.error.issues.map((issue) => ({ path: issue.path.join("."), message: issue.message })) });
  }
  return resolve(result.data, from);
}

function invalid(from: string, detail: ErrorDetail): IsthmusError {
  const first = detail.faults?.[0];
  return new IsthmusError("Invalid", `${from}: ${first === undefined ? "not a topology" : `${first.path || "document"}: ${first.message}`}`, {
    remedy: "lab/topology/default.yaml shows every field.",
    ...detail,
  });
}

function resolve(file: TopologyFile, from: string): Topology {
  const fail = (path: string, message: string): never => {
    throw invalid(from, { faults: [{ path, message }] });
  };
  const wanAddresses = [...file.internet.map((host) => host.address), ...fixedPublic(file)];
  const pool = publicPool(wanAddresses);
  const wanNic = (address: string | undefined, path: string): Nic => {
    const link = pointToPoint(address ?? pool.next());
    if (link === undefined) return fail(path, `${address} cannot be a host of its /30 (the last two bits must be 01 or 10)`);
    return { name: "eth0", segment: WAN, address: link.address, bits: 30, peer: link.peer };
  };
  const hosts: Host[] = [];
  const add = (host: Omit<Host, "labels" | "routes" | "prefixes"> & Partial<Host>): void => {
    hosts.push({ labels: {}, routes: [], prefixes: [], ...host });
  };
  const onWan = (name: string, role: HostRole, address: string | undefined, path: string, more: Partial<Host> = {}): void => {
    const nic = wanNic(address, path);
    add({ name, role, nics: [nic], gateway: nic.peer!, ...more });
  };

  for (const [i, host] of file.internet.entries()) onWan(host.name, "internet", host.address, `internet.${i}.address`, { prefixes: host.prefixes });
  onWan(file.controller.name, "controller", file.controller.address, "controller.address");

  for (const [i, site] of file.sites.entries()) {
    const nodes = site.nodes.flatMap(expand);
    if (site.lan === undefined) {
      if (site.machines.length > 0) fail(`sites.${i}.machines`, "need the site to have a lan");
      for (const node of nodes) onWan(node.name, "node", node.address, `sites.${i}.nodes`, { site: site.name, labels: node.labels ?? {} });
      continue;
    }
    const { subnet, router } = site.lan;
    const lan = subnetAddress(
      subnet,
      [...nodes, ...site.machines].flatMap((entry) => entry.address ?? []),
    );
    const segment = site.name;
    const lanNic = (address: string | undefined): Nic => {
      if (address !== undefined && !contains(subnet, address)) fail(`sites.${i}`, `${address} is not inside ${subnet}`);
      return { name: "eth0", segment, address: address ?? lan.next(), bits: lan.bits };
    };
    const wan = wanNic(router.address, `sites.${i}.lan.router.address`);
    add({
      name: router.name,
      role: "router",
      site: site.name,
      nics: [wan, { name: "eth1", segment, address: lan.first, bits: lan.bits }],
      gateway: wan.peer!,
      nat: router.nat,
    });
    for (const node of nodes)
      add({ name: node.name, role: "node", site: site.name, labels: node.labels ?? {}, nics: [lanNic(node.address)], gateway: lan.first });
    for (const machine of site.machines) {
      const nic = lanNic(machine.address);
      const routes = machine.routes.map(({ to, via }) => {
        const next = hosts.find((host) => host.name === via)?.nics.find((other) => other.segment === segment);
        return { to, via: next?.address ?? fail(`sites.${i}.machines`, `${via} is not a node of this LAN`) };
      });
      add({ name: machine.name, role: "machine", site: site.name, nics: [nic], gateway: lan.first, routes });
    }
  }

  for (const [i, vpc] of file.vpcs.entries()) {
    const bits = subnetAddress(vpc.subnet, []).bits;
    const nic = (address: string): Nic => {
      if (!contains(vpc.subnet, address)) fail(`vpcs.${i}`, `${address} is not inside ${vpc.subnet}`);
      return { name: "eth1", segment: vpc.name, address, bits };
    };
    for (const [name, address] of Object.entries(vpc.members)) {
      const index = hosts.findIndex((host) => host.name === name);
      const host = hosts[index] ?? fail(`vpcs.${i}.members.${name}`, "is not a node");
      hosts[index] = { ...host, nics: [...host.nics, nic(address)] };
    }
    for (const router of vpc.routers) {
      const wan = wanNic(router.public, `vpcs.${i}.routers`);
      add({ name: router.name, role: "router", nics: [wan, nic(router.address)], gateway: wan.peer!, nat: "stable" });
    }
  }

  const twice = (what: string, values: readonly string[]): void => {
    const double = values.find((value, index) => values.indexOf(value) !== index);
    if (double !== undefined) fail(what, `${double} is given twice`);
  };
  twice(
    "name",
    hosts.map((host) => host.name),
  );
  twice(
    "address",
    hosts.flatMap((host) => host.nics.map((nic) => `${nic.segment === WAN ? "" : `${nic.segment} `}${nic.address}`)),
  );
  const segments = [...file.sites.filter((site) => site.lan !== undefined).map((site) => site.name), ...file.vpcs.map((vpc) => vpc.name)];
  twice("segment", segments);
  return {
    hosts,
    segments,
    sites: file.sites.map((site) => ({
      name: site.name,
      kind: site.kind,
      ...(site.region === undefined ? {} : { region: site.region }),
      ...(site.priority === undefined ? {} : { priority: site.priority }),
      ...(site.lan === undefined ? {} : { subnet: site.lan.subnet, router: site.lan.router.name }),
    })),
    manifests: file.manifests,
  };
}

/** `{name: edge, count: 3}` is edge1, edge2, edge3. */
function expand(node: z.infer<typeof NodeEntry>): z.infer<typeof NodeEntry>[] {
  if (node.count === undefined) return [node];
  return Array.from({ length: node.count }, (_, n) => ({ ...node, name: HostName.parse(`${node.name}${n + 1}`), address: undefined }));
}

function fixedPublic(file: TopologyFile): string[] {
  const all = [
    file.controller.address,
    ...file.sites.flatMap((site) => (site.lan === undefined ? site.nodes.map((node) => node.address) : [site.lan.router.address])),
    ...file.vpcs.flatMap((vpc) => vpc.routers.map((router) => router.public)),
  ];
  return all.filter((address) => address !== undefined);
}

/** The host of that name. @throws IsthmusError `NotFound` that lists the hosts. */
export function hostNamed(topology: Topology, name: string): Host {
  const host = topology.hosts.find((candidate) => candidate.name === name);
  if (host !== undefined) return host;
  throw new IsthmusError("NotFound", `no host "${name}" in this lab`, { remedy: `Hosts: ${topology.hosts.map((h) => h.name).join(", ")}.` });
}

/** The address that the rest of the internet sees the host by: its own on the WAN, or its site router's. */
export function publicAddress(topology: Topology, host: Host): string | undefined {
  const own = host.nics.find((nic) => nic.segment === WAN)?.address;
  if (own !== undefined) return own;
  const router = topology.sites.find((site) => site.name === host.site)?.router;
  return router === undefined ? undefined : publicAddress(topology, hostNamed(topology, router));
}
