/** Small plans for the kernel tests: do1 and do2 are gateways, dc1 is a client behind NAT. */
import type { Choice } from "../../../mesh/elect/types.ts";
import type { DesiredInput, HostFacts } from "../../../mesh/kernel/types.ts";
import type { PathId, PathPlan, PeerPlan, Plan } from "../../../mesh/model/plan.ts";
import type { Cidr, Endpoint, IpAddress, NodeName, WgPublicKey } from "../../../mesh/model/scalars.ts";

export const node = (name: string): NodeName => name as NodeName;
export const cidr = (text: string): Cidr => text as Cidr;
export const ip = (text: string): IpAddress => text as IpAddress;
export const keyOf = (n: number): WgPublicKey => `${String.fromCharCode(64 + n).repeat(42)}A=` as WgPublicKey;

export const NETWORK: Plan["network"] = {
  name: "isthmus" as Plan["network"]["name"],
  overlay: { v4: cidr("10.101.0.0/16"), v6: cidr("fd5e:1::/48") },
  links: { v4: cidr("10.102.0.0/15") },
  ports: { mesh: 51820, gateway: 51821, links: 51830, echo: 51819, state: 51818 },
  markMask: "0x7f000000",
  controllers: ["203.0.113.9:8443"],
};

export function peer(i: number, site: string, endpoints: readonly string[], extra: Partial<PeerPlan> = {}): PeerPlan {
  return { i, k: keyOf(i), s: site as PeerPlan["s"], e: [...endpoints] as Endpoint[], ...extra };
}

export const PEERS: ReadonlyMap<NodeName, PeerPlan> = new Map([
  [node("dc1"), peer(1, "dc", ["192.168.88.11:51820"], { n: 1 })],
  [node("do1"), peer(2, "region1", ["203.0.113.1:51820"])],
  [node("do2"), peer(3, "region2", ["203.0.113.2:51820"])],
]);

export function path(
  destinations: readonly string[],
  gateways: readonly string[],
  extra: Partial<PathPlan> = {},
): PathPlan & { destinations: readonly Cidr[] } {
  return {
    created: 1_000,
    gateways: gateways.map((name, i) => ({ node: node(name), priority: 100 - i })),
    intervalMs: 100,
    threshold: 3,
    holdDownMs: 5_000,
    strategy: "Failover",
    failback: { type: "Delayed", delayMs: 60_000 },
    drainTimeoutMs: 60_000,
    onNoGateway: "Unreachable",
    ...extra,
    destinations: destinations.map(cidr),
  };
}

export function plan(self: "dc1" | "do1" | "do2", parts: Partial<Plan> = {}): Plan {
  const own = PEERS.get(node(self))!;
  return {
    network: NETWORK,
    self: { name: node(self), index: own.i, site: own.s, labels: {}, advertise: [], subnets: [] },
    peers: PEERS,
    sites: new Map(),
    paths: new Map(),
    lanRoutes: new Map(),
    serves: new Map(),
    clients: new Map(),
    ...parts,
  };
}

export function host(extra: Partial<HostFacts> = {}): HostFacts {
  return {
    wireguard: "userspace",
    underlay: [{ ifname: "eth0", address: ip("192.168.88.11"), prefix: cidr("192.168.88.0/24"), mtu: 1500 }],
    mainRoutes: [
      { dst: cidr("0.0.0.0/0"), via: ip("192.168.88.1"), dev: "eth0", metric: 0 },
      { dst: cidr("192.168.88.0/24"), dev: "eth0", metric: 0 },
    ],
    protectedAddresses: [],
    raInterfaces: [],
    overlayMtu: 1420,
    ...extra,
  };
}

export function choice(active: readonly string[], extra: Partial<Choice> = {}): Choice {
  return { active: active.map(node), reason: "Preferred", since: 0, rejected: [], draining: [], wakeAt: undefined, ...extra };
}

export function input(parts: Partial<DesiredInput> & { readonly plan: Plan }): DesiredInput {
  return {
    host: host(),
    publicKey: PEERS.get(parts.plan.self.name)!.k,
    links: new Map(),
    choices: new Map(),
    deadLinks: new Set(),
    dial: new Map(),
    lanChoices: new Map(),
    ...parts,
  };
}

export const EGRESS: PathId = "egress/web";

/** dc1 sends 34.160.111.145 and a v6 prefix through do1, with do2 behind it. */
export function clientInput(parts: Partial<DesiredInput> = {}): DesiredInput {
  return input({
    plan: plan("dc1", { paths: new Map([[EGRESS, path(["34.160.111.145/32", "2001:db8::/32"], ["do1", "do2"])]]) }),
    links: new Map([
      [node("do1"), 1],
      [node("do2"), 2],
    ]),
    choices: new Map([[EGRESS, choice(["do1"])]]),
    ...parts,
  });
}

/** do1 serves that path to dc1. */
export function gatewayInput(parts: Partial<DesiredInput> = {}): DesiredInput {
  return input({
    plan: plan("do1", {
      paths: new Map([[EGRESS, path(["34.160.111.145/32", "2001:db8::/32"], ["do1", "do2"])]]),
      serves: new Map([[EGRESS, { snat: { type: "Masquerade" }, uplink: [], uplinkIntervalMs: 100, threshold: 3, holdDownMs: 5_000 }]]),
      clients: new Map([[node("dc1"), { paths: [EGRESS] }]]),
    }),
    host: host({
      underlay: [{ ifname: "eth0", address: ip("203.0.113.1"), prefix: cidr("203.0.113.0/24"), mtu: 1500 }],
      mainRoutes: [
        { dst: cidr("0.0.0.0/0"), via: ip("203.0.113.254"), dev: "eth0", metric: 0 },
        { dst: cidr("203.0.113.0/24"), dev: "eth0", metric: 0 },
      ],
    }),
    ...parts,
  });
}
