/** Two sites with a LAN and two gateways each, and a node elsewhere: compiled, and what every node's kernel is to be. */
import { compile } from "../../../mesh/compile/plan.ts";
import { parsePlan } from "../../../mesh/compile/parse-plan.ts";
import type { CompileInput } from "../../../mesh/compile/types.ts";
import type { DesiredInput } from "../../../mesh/kernel/types.ts";
import type { PathId, Plan } from "../../../mesh/model/plan.ts";
import type { Endpoint, NodeName, WgPublicKey } from "../../../mesh/model/scalars.ts";
import { gatewaysInUse, numberLinks } from "../../../node-agent/links.ts";
import { facts, input as compileInput, node as meshNode, site } from "../compile/fixtures.ts";
import { choice, host, node } from "./fixtures.ts";

export const LAN = { s: "172.20.1.0/24", t: "172.20.2.0/24" } as const;
export const NODES = ["a1", "a2", "b1", "b2", "c"] as const;
export type Name = (typeof NODES)[number];
const SITES: Record<Name, string> = { a1: "s", a2: "s", b1: "t", b2: "t", c: "u" };
const LINKS = 51_830;

export type Snat = "None" | "Masquerade";

export interface World {
  readonly snat?: { readonly s: Snat; readonly t: Snat };
  readonly keys?: ReadonlyMap<string, WgPublicKey>;
  readonly addresses?: Readonly<Record<Name, string>>;
  /** Nodes that nobody can dial. */
  readonly nat?: readonly Name[];
}

const ADDRESSES: Record<Name, string> = { a1: "192.0.2.1", a2: "192.0.2.2", b1: "192.0.2.3", b2: "192.0.2.4", c: "192.0.2.5" };

/** The compiler's input: every node has numbered its links already and said so. */
export function intents(world: World = {}): CompileInput {
  const { s, t } = world.snat ?? { s: "None", t: "None" };
  return withLinks(NODES, (links) =>
    compileInput({
      controllers: [],
      sites: [site("s", { subnets: [LAN.s], snat: s }), site("t", { subnets: [LAN.t], snat: t }), site("u")],
      nodes: NODES.map((name, i) => {
        const publicKey = world.keys?.get(name);
        return meshNode(name, SITES[name], i + 1, publicKey === undefined ? {} : { publicKey });
      }),
      facts: Object.fromEntries(
        NODES.map((name) => {
          const address = (world.addresses ?? ADDRESSES)[name];
          const behindNat = world.nat?.includes(name) === true;
          return [
            name,
            facts({ endpoints: [`${behindNat ? "10.0.0.1" : address}:51820`], seen: behindNat ? "198.51.100.9" : address, links: links(name) }),
          ];
        }),
      ),
    }),
  );
}

/** What the compiler is told once every node has numbered its links. */
export function withLinks(names: readonly string[], make: (links: (name: string) => Record<string, number>) => CompileInput): CompileInput {
  const first = make(() => ({}));
  const known = new Map(names.map((name) => [name, linksOf(planOf(first, name))]));
  return make((name) => Object.fromEntries([...(known.get(name) ?? [])].map(([gateway, k]) => [gateway, LINKS + k])));
}

export function planOf(from: CompileInput, name: string): Plan {
  const out = compile(from);
  const ids = out.audience.get(node(name)) ?? [];
  const { plan, faults } = parsePlan(new Map(ids.map((id) => [id, new Map(out.views.get(id))])));
  if (plan === undefined || faults.length > 0) throw new Error(`no plan for ${name}: ${JSON.stringify(faults)}`);
  return plan;
}

export function linksOf(plan: Plan): ReadonlyMap<NodeName, number> {
  return numberLinks(gatewaysInUse(plan), new Map(), new Map()).links;
}

/** All that decides a node's kernel, with every path on its first gateway and endpoints that are dialed as the agent dials them. */
export function inputOf(from: CompileInput, name: string, parts: Partial<DesiredInput> = {}): DesiredInput {
  const plan = planOf(from, name);
  const links = linksOf(plan);
  const paths = [...plan.paths].filter(([id]) => !plan.serves.has(id));
  const dial = [...plan.peers].flatMap(([other, { e }]) => {
    const client = plan.clients.get(other);
    const at = (port: number): Endpoint => (e[0] ?? "").replace(/:\d+$/, `:${port}`) as Endpoint;
    return other === plan.self.name ? [] : [[other, { mesh: at(51_820), gateway: at(client?.pair === 1 ? client.port! : 51_821) }] as const];
  });
  return {
    plan,
    links,
    host: host(),
    publicKey: plan.peers.get(plan.self.name)!.k,
    deadLinks: new Set(),
    lanChoices: new Map(),
    choices: new Map(paths.map(([id, path]): [PathId, ReturnType<typeof choice>] => [id, choice([path.gateways[0]!.node])])),
    dial: new Map(dial),
    ...parts,
  };
}
