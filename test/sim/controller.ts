/** Controllers over one store: joins by compare-and-set, plans by the real compiler. */
import { createCompiler } from "../../mesh/compile/plan.ts";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import type { CompileInput, CompileOutput } from "../../mesh/compile/types.ts";
import { KINDS, type Kind, type Resource } from "../../mesh/model/resources.ts";
import type { Plan } from "../../mesh/model/plan.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import { allocate, free, NO_ALLOCATIONS, type AllocationState } from "../../mesh/net/allocate.ts";

/** Few indexes and a short rest, so that freed ones are given again within a run. */
export const MAX_INDEX = 12;
export const QUARANTINE_MS = 10_000;

export interface Store {
  revision: number;
  allocation: AllocationState;
  readonly nodes: Map<NodeName, Resource<"MeshNode">>;
  readonly egress: Map<string, Resource<"EgressGateway">>;
}

export interface Controller {
  up: boolean;
  readonly store: Store;
  /** Plan of a node at the store's revision. */
  plan(node: NodeName): Plan | undefined;
}

export const DESTINATIONS = { "egress/e1": "34.160.111.145", "egress/e2": "198.18.7.7", "egress/e3": "203.0.113.200" } as const;

export function resource<K extends Kind>(kind: K, name: string, spec: object): Resource<K> {
  const metadata = { name, generation: 1, creationTimestamp: "2026-01-01T00:00:00Z" };
  return { apiVersion: KINDS[kind].apiVersion, kind, metadata, spec: KINDS[kind].spec.parse(spec) } as unknown as Resource<K>;
}

const network = resource("MeshNetwork", "isthmus", { overlay: { v4: "10.101.0.0/16", v6: "fd00:1:2::/48" }, links: { v4: "10.102.0.0/15" } });
const sites = [resource("Site", "dc", { kind: "onprem" }), resource("Site", "r1", { kind: "cloud" }), resource("Site", "r2", { kind: "cloud" })];

export function createController(): Controller {
  const store: Store = { revision: 1, allocation: NO_ALLOCATIONS, nodes: new Map(), egress: new Map() };
  const compile = createCompiler();
  let compiled: { revision: number; output: CompileOutput; plans: Map<NodeName, Plan | undefined> } | undefined;
  return {
    up: true,
    store,
    plan(node) {
      if (compiled?.revision !== store.revision) {
        const input: CompileInput = {
          network,
          sites,
          nodes: [...store.nodes.values()],
          facts: new Map(),
          routes: [],
          staticRoutes: [],
          egress: [...store.egress.values()],
          controllers: ["203.0.113.1:8443"],
        };
        compiled = { revision: store.revision, output: compile(input), plans: new Map() };
      }
      const { output, plans } = compiled;
      if (!plans.has(node)) plans.set(node, parsePlan(new Map((output.audience.get(node) ?? []).map((id) => [id, output.views.get(id)!]))).plan);
      return plans.get(node);
    },
  };
}

/** What a controller read before it answers a join. */
export interface JoinTry {
  readonly revision: number;
  readonly allocation: AllocationState;
}

/** Writes a join on what was read; false when someone else wrote in between, or no index is free. */
export function join(
  store: Store,
  name: NodeName,
  site: string,
  labels: Record<string, string>,
  seen: JoinTry,
  now: number,
  compare = true,
): boolean {
  if (compare && seen.revision !== store.revision) return false;
  const given = allocate(seen.allocation, now, MAX_INDEX, QUARANTINE_MS);
  if (!given.ok) return false;
  store.allocation = given.state;
  const publicKey = `${name.padEnd(42, "x").slice(0, 42)}A=`.replaceAll("-", "y");
  store.nodes.set(name, resource("MeshNode", name, { site, index: given.index, publicKey, tlsKey: "0".repeat(64), labels }));
  store.revision++;
  return true;
}

export function remove(store: Store, name: NodeName, now: number): void {
  const node = store.nodes.get(name);
  if (node === undefined) return;
  store.nodes.delete(name);
  store.allocation = free(store.allocation, node.spec.index, now);
  store.revision++;
}

export function cordon(store: Store, name: NodeName, cordoned: boolean): void {
  const node = store.nodes.get(name);
  if (node === undefined) return;
  store.nodes.set(name, { ...node, spec: { ...node.spec, cordoned } });
  store.revision++;
}

export function putEgress(store: Store, name: string, spec: object): void {
  store.egress.set(name, resource("EgressGateway", name, spec));
  store.revision++;
}
