/** Small inputs of compile: objects as the API would have parsed them, with little to write. */
import { createHash } from "node:crypto";
import type { CompileInput, CompileOutput } from "../../../mesh/compile/types.ts";
import { KINDS, type Kind, type Resource } from "../../../mesh/model/resources.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { NodeFacts } from "../../../mesh/model/wire.ts";

const START = Date.parse("2026-01-01T00:00:00Z");

/** An object as stored: its spec is parsed by the schema. `age`: seconds after the start at which it was made. */
export function resource<K extends Kind>(kind: K, name: string, spec: object, age = 0): Resource<K> {
  const row = KINDS[kind];
  const creationTimestamp = new Date(START + 1000 * age).toISOString();
  return {
    apiVersion: row.apiVersion,
    kind,
    metadata: { name, generation: 1, creationTimestamp },
    spec: row.spec.parse(spec),
  } as unknown as Resource<K>;
}

export const network = resource("MeshNetwork", "isthmus", { overlay: { v4: "10.101.0.0/16", v6: "fd00:1:2::/48" }, links: { v4: "10.102.0.0/15" } });

export const site = (name: string, spec: object = {}, age = 0): Resource<"Site"> => resource("Site", name, { kind: "onprem", ...spec }, age);

/** A public key that belongs to the name. */
export function keyOf(name: string): string {
  return createHash("sha256").update(name).digest("base64");
}

export function node(name: string, siteName: string, index: number, spec: object = {}): Resource<"MeshNode"> {
  return resource("MeshNode", name, { site: siteName, index, publicKey: keyOf(name), tlsKey: "0".repeat(64), ...spec }, index);
}

export const facts = (given: object = {}): NodeFacts => NodeFacts.parse({ endpoints: [], manualEndpoints: [], advertise: [], links: {}, ...given });

export function input(parts: Partial<Omit<CompileInput, "facts">> & { facts?: Record<string, NodeFacts> } = {}): CompileInput {
  return {
    network,
    sites: [],
    nodes: [],
    routes: [],
    staticRoutes: [],
    egress: [],
    controllers: ["203.0.113.1:8443"],
    ...parts,
    facts: new Map(Object.entries(parts.facts ?? {}) as [NodeName, NodeFacts][]),
  };
}

/** The four machines of the guides: two in a datacenter behind NAT, two in clouds. */
export function fourNodes(parts: Parameters<typeof input>[0] = {}): CompileInput {
  return input({
    sites: [
      site("dc1", { subnets: ["192.168.88.0/24"], priority: 100 }),
      site("fra", { kind: "cloud", region: "fra1", priority: 90 }, 1),
      site("ams", { kind: "cloud", region: "ams3", zone: "a", priority: 80 }, 2),
    ],
    nodes: [node("datacenter1", "dc1", 1), node("datacenter2", "dc1", 2), node("do1", "fra", 3), node("do2", "ams", 4)],
    facts: {
      datacenter1: facts({ endpoints: ["192.168.88.11:51820"], seen: "198.51.100.7" }),
      datacenter2: facts({ endpoints: ["192.168.88.12:51820"], seen: "198.51.100.7" }),
      do1: facts({ endpoints: ["203.0.113.11:51820", "10.116.0.2:51820"], seen: "203.0.113.11" }),
      do2: facts({ endpoints: ["203.0.113.12:51820", "10.116.0.3:51820"], seen: "203.0.113.12" }),
    },
    ...parts,
  });
}

/** One entry of a view, which is expected to be there. */
export function entry(out: CompileOutput, view: string, key: string): unknown {
  const value = out.views.get(view)?.get(key);
  if (value === undefined) throw new Error(`view ${view} has no ${key}`);
  return value;
}

/** Keys of a view. */
export const keysOf = (view: ReadonlyMap<string, unknown> | undefined): string[] => [...(view?.keys() ?? [])];

/** Conditions of a status as `type=status/reason`. */
export function conditionsOf(status: { readonly conditions: readonly { type: string; status: string; reason: string }[] } | undefined): string[] {
  return (status?.conditions ?? []).map(({ type, status, reason }) => `${type}=${status}/${reason}`);
}
