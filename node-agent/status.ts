/** What `isthmus status` shows on a node: everything from this process and its kernel, nothing from the controller. */
import type { NodeCondition } from "./conditions.ts";
import type { ControllerLink } from "./controller-link.ts";
import type { Elections, Health } from "./elections.ts";
import type { Links } from "./links.ts";
import type { PeerReach } from "./endpoints.ts";
import type { Membership } from "./membership.ts";
import type { PeerKeeper } from "./peers.ts";
import type { Reconciler } from "./reconcile.ts";
import { resultsOf } from "./results.ts";
import { VERSION } from "./version.ts";
import type { Plan } from "../mesh/model/plan.ts";
import type { AgentEvent, Position, ResourceResult } from "../mesh/model/wire.ts";
import type { WgStatus } from "./endpoints.ts";
import { linkInterface } from "../mesh/kernel/layout.ts";
import { deviceOf } from "../mesh/kernel/topology.ts";
import { meshAddress } from "../mesh/net/overlay.ts";

/** All times are milliseconds since 1970. */
export interface AgentStatus {
  readonly node: string;
  readonly network: string;
  readonly site: string | undefined;
  readonly overlay: readonly string[];
  readonly version: string;
  readonly started: number;
  readonly controller: {
    readonly connected: boolean;
    readonly address?: string;
    readonly since?: number;
    readonly error?: string;
    /** What can be done about the error. */
    readonly remedy?: string;
    readonly known: readonly string[];
  };
  readonly position: Position | undefined;
  /** Position that the kernel stands at. */
  readonly applied: Position | undefined;
  readonly wireguard: "kernel" | "userspace" | undefined;
  readonly peers: readonly {
    readonly node: string;
    readonly site: string;
    readonly overlay: readonly string[];
    readonly endpoint?: string;
    readonly handshakeAgeMs?: number;
    readonly behindNat: boolean;
    readonly rxBytes: number;
    readonly txBytes: number;
  }[];
  readonly links: readonly {
    readonly gateway: string;
    readonly interface: string;
    readonly verdict: string;
    readonly since?: number;
    readonly state: string;
    readonly rttMs?: number;
    readonly downPaths: readonly string[];
  }[];
  readonly paths: readonly { readonly id: string; readonly active: readonly string[]; readonly reason: string; readonly since: number }[];
  readonly results: Readonly<Record<string, ResourceResult>>;
  readonly conditions: readonly NodeCondition[];
  readonly drift: { readonly count: number; readonly at?: number };
  readonly lastPass: { readonly operations: number; readonly failures: number; readonly tookMs: number } | undefined;
  readonly certificate: { readonly renewAt: number; readonly expires: number };
  readonly events: readonly AgentEvent[];
}

/** What the status is made from. */
export interface StatusParts {
  readonly membership: Membership;
  readonly link: ControllerLink;
  readonly reconciler: Reconciler;
  readonly peers: PeerKeeper;
  readonly plan: Plan | undefined;
  readonly applied: Position | undefined;
  readonly health: Health;
  readonly conditions: readonly NodeCondition[];
  readonly events: readonly AgentEvent[];
  /** When this process began, ms since 1970. */
  readonly started: number;
  readonly wall: (monotonic: number) => number;
}

export function agentStatus(parts: StatusParts): AgentStatus {
  const { membership, link, reconciler, peers, wall } = parts;
  const { last, drift } = reconciler;
  const { connected, holdings } = link.session;
  const { error } = link;
  const { node, network, controllers } = membership.identity;
  const dataPlane =
    last === undefined
      ? { site: parts.plan?.self.site, overlay: [], peers: [], links: [], paths: [] }
      : dataPlaneStatus(
          last.input.plan,
          last.input.links,
          last.elections,
          parts.health,
          peers.wireguard,
          peers.reach(last.input.plan, last.input.links),
          peers.now(),
          wall,
        );
  return {
    node,
    network,
    version: VERSION,
    started: parts.started,
    controller: {
      connected: connected !== undefined,
      ...(connected === undefined ? {} : { address: connected.address, since: connected.since }),
      ...(error === undefined ? {} : { error: error.message }),
      ...(error?.remedy === undefined ? {} : { remedy: error.remedy }),
      known: controllers,
    },
    position: holdings.seen,
    applied: parts.applied,
    wireguard: last?.input.host.wireguard,
    results: last === undefined ? {} : resultsOf(last, wall),
    conditions: parts.conditions,
    drift: { count: drift.count, ...(drift.at === undefined ? {} : { at: wall(drift.at) }) },
    lastPass: last === undefined ? undefined : { operations: last.operations, failures: last.failures.length, tookMs: last.tookMs },
    certificate: membership.certificate,
    events: parts.events,
    ...dataPlane,
  };
}

/** The part of the status that comes from the plan and the kernel. */
function dataPlaneStatus(
  plan: Plan,
  links: Links,
  elections: Elections,
  health: Health,
  wg: WgStatus,
  reach: PeerReach,
  now: number,
  wall: (at: number) => number,
): Pick<AgentStatus, "site" | "overlay" | "peers" | "links" | "paths"> {
  const peers = [...plan.peers].flatMap(([node, peer]) => {
    if (node === plan.self.name) return [];
    const seen = wg.get(deviceOf(plan, links, node) ?? "")?.get(peer.k);
    const handshake = seen === undefined || seen.latestHandshake === 0 ? {} : { handshakeAgeMs: Math.max(0, now - seen.latestHandshake * 1_000) };
    const endpoint = seen?.endpoint ?? reach.observed.get(node);
    return [
      {
        node,
        site: peer.s,
        overlay: Object.values(meshAddress(plan.network, peer.i)),
        ...(endpoint === undefined ? {} : { endpoint }),
        ...handshake,
        behindNat: peer.n === 1,
        rxBytes: seen?.rxBytes ?? 0,
        txBytes: seen?.txBytes ?? 0,
      },
    ];
  });
  return {
    site: plan.self.site,
    overlay: Object.values(meshAddress(plan.network, plan.self.index)),
    peers,
    links: [...links].map(([gateway, k]) => {
      const view = health.links.get(gateway);
      return {
        gateway,
        interface: linkInterface(k),
        verdict: view?.verdict ?? "Unknown",
        ...(view === undefined ? {} : { since: wall(view.since) }),
        state: view?.gateway ?? "Unknown",
        ...(view?.srttMs === undefined ? {} : { rttMs: view.srttMs }),
        downPaths: view?.downPaths ?? [],
      };
    }),
    paths: [
      ...[...elections.paths].map(([id, { active, reason, since }]) => ({ id, active, reason, since: wall(since) })),
      ...[...elections.lans].map(([id, { gateways, reason, since }]) => ({ id, active: gateways, reason, since: wall(since) })),
    ],
  };
}
