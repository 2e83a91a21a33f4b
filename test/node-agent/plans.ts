/** Plans and host facts for unit tests of the agent. */
import type { HostFacts } from "../../mesh/kernel/types.ts";
import type { PathId, Plan, PathPlan } from "../../mesh/model/plan.ts";
import type { Cidr, NodeName } from "../../mesh/model/scalars.ts";

export const name = (text: string): NodeName => text as NodeName;

/** Raw views of client `c` with gateways `g1` and `g2`, a path to `destinations`, and anything else. */
export function rawViews(more: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {}): Map<string, Map<string, unknown>> {
  const views: Record<string, Record<string, unknown>> = {
    mesh: {
      network: {
        name: "isthmus",
        overlay: { v4: "10.101.0.0/16", v6: "fd00:1:2::/48" },
        links: { v4: "10.102.0.0/15" },
        ports: { mesh: 51820, gateway: 51821, links: 51830, echo: 51819, state: 51818 },
        markMask: "0x7f000000",
        controllers: ["203.0.113.1:8443"],
      },
      "peer/c": { i: 1, k: key(1), s: "home", e: ["203.0.113.2:51820"] },
      "peer/g1": { i: 2, k: key(2), s: "one", e: ["203.0.113.3:51820"] },
      "peer/g2": { i: 3, k: key(3), s: "two", e: ["203.0.113.4:51820"] },
      "site/home": { kind: "onprem" },
    },
    "node/c": { self: { name: "c", index: 1, site: "home", labels: {}, advertise: [], subnets: [] } },
    "egress/web": { path: pathPlan(["g1", "g2"], { snat: { type: "Masquerade" } }), "d/34.160.111.145/32": 1, "d/198.51.100.0/24": 1 },
  };
  for (const [id, entries] of Object.entries(more)) views[id] = { ...views[id], ...entries };
  return new Map(Object.entries(views).map(([id, entries]) => [id, new Map(Object.entries(entries))]));
}

export function pathPlan(gateways: readonly string[], fields: Partial<PathPlan> = {}): PathPlan {
  return {
    created: 1,
    gateways: gateways.map((node, i) => ({ node: name(node), priority: 100 - i })),
    intervalMs: 100,
    threshold: 3,
    holdDownMs: 5_000,
    strategy: "Failover",
    failback: { type: "Immediate", delayMs: 0 },
    drainTimeoutMs: 60_000,
    onNoGateway: "Unreachable",
    ...fields,
  };
}

export function withPaths(plan: Plan, paths: Readonly<Record<string, readonly string[]>>): Plan {
  return { ...plan, paths: new Map(Object.entries(paths).map(([id, gateways]) => [id as PathId, { ...pathPlan(gateways), destinations: [] }])) };
}

export const HOST: HostFacts = {
  wireguard: "userspace",
  underlay: [{ ifname: "eth0", address: "203.0.113.2" as never, prefix: "203.0.113.0/24" as Cidr, mtu: 1500 }],
  mainRoutes: [
    { dst: "0.0.0.0/0" as Cidr, via: "203.0.113.100" as never, dev: "eth0", metric: 0 },
    { dst: "203.0.113.0/24" as Cidr, dev: "eth0", metric: 0 },
  ],
  protectedAddresses: [],
  raInterfaces: [],
  overlayMtu: 1420,
  ipv6: true,
};

export function key(n: number): string {
  return Buffer.alloc(32, n).toString("base64");
}
