/** The lab as a file: sites, NAT, nodes, gateways. Checks a document and gives the hosts that the rest of the lab builds. */
import { readFile } from "node:fs/promises";
import { parse } from "yaml";
import { z } from "zod";
import { type ErrorDetail, IsthmusError } from "../mesh/errors.ts";
import { Cidr, IpAddress, Labels, NodeName, ObjectName } from "../mesh/model/scalars.ts";
import { familyOf } from "../mesh/net/ip.ts";
import { resolveTopology } from "./resolve.ts";
import type { Topology } from "./topology.ts";

/** Interface names of the lab carry host names, and Linux allows 15 characters. */
const HostName = NodeName.refine((name) => name.length <= 24, "must be at most 24 characters").refine(
  (name) => name !== "wan",
  "is the WAN router's name",
);

/** The lab's underlay is IPv4. (Text that is no address at all has been refused already.) */
const Address = IpAddress.refine((text) => familyOf(text) !== 6, "must be an IPv4 address");
const Subnet = Cidr.refine((text) => familyOf(text) !== 6, "must be an IPv4 prefix");

export const NodeEntry = z.strictObject({
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

export const SiteEntry = z.strictObject({
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

export const VpcEntry = z.strictObject({
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

/** @param from what to call the document in errors */
export function parseTopology(text: string, from = "topology"): Topology {
  let document: unknown;
  try {
    document = parse(text);
  } catch (cause) {
    throw invalid(from, { cause, faults: [{ path: "", message: cause instanceof Error ? cause.message : "is not YAML" }] });
  }
  if (document === null || document === undefined) throw invalid(from, { faults: [{ path: "", message: "there is nothing in it" }] });
  const result = TopologyFile.safeParse(document);
  if (!result.success) {
    throw invalid(from, { faults: result.error.issues.map((issue) => ({ path: placeOf(document, issue.path), message: issue.message })) });
  }
  return resolveTopology(result.data, (path, message) => {
    throw invalid(from, { faults: [{ path, message }] });
  });
}

/** `sites.dc1.nodes.edge.address`: an entry of a list by its name, and by its number only where it has none. */
function placeOf(document: unknown, path: readonly PropertyKey[]): string {
  let at = document;
  return path
    .map((part) => {
      at = isObject(at) ? at[part] : undefined;
      return typeof part === "number" && isObject(at) && typeof at["name"] === "string" ? at["name"] : String(part);
    })
    .join(".");
}

function isObject(value: unknown): value is Record<PropertyKey, unknown> {
  return typeof value === "object" && value !== null;
}

function invalid(from: string, detail: ErrorDetail): IsthmusError {
  return new IsthmusError("Invalid", `${from} is not a topology that can be built`, {
    remedy: "lab/topology/default.yaml shows every field.",
    ...detail,
  });
}
