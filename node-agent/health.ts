/** All probing of one node, steered by the plan: links to gateways, their word, LAN gateways, and this node's own uplinks. */
import { cutOff, lostSites } from "../mesh/elect/beyond.ts";
import type { LinkView } from "../mesh/elect/types.ts";
import { isGateway } from "../mesh/kernel/wireguard.ts";
import type { PathId, Plan } from "../mesh/model/plan.ts";
import type { IpAddress, NodeName } from "../mesh/model/scalars.ts";
import { splitEndpoint } from "../mesh/net/ip.ts";
import { clientLinkAddress, gatewayLinkAddress } from "../mesh/net/overlay.ts";
import type { Health } from "./elections.ts";
import type { Links } from "./links.ts";
import { type Clock } from "./probe/clock.ts";
import type { CheckPorts } from "./probe/check.ts";
import { createLanMonitor, type LanMonitor } from "./probe/lan-health.ts";
import { createStateClient, createStateServer, type GatewayWord, type StateClient, type StateServer } from "./probe/link-state.ts";
import { createProber, type Prober, type ProbeTarget } from "./probe/prober.ts";
import { createUplinkMonitor, type UplinkMonitor } from "./probe/uplink.ts";

export interface HealthMonitor {
  /** What to watch from now on. */
  setPlan(plan: Plan, links: Links): void;
  view(): Health;
  /** Paths that this node serves and cannot carry: their uplink is down, or no other site is reached. */
  downPaths(): readonly PathId[];
  close(): void;
}

export interface HealthOptions {
  readonly clock: Clock;
  readonly spawn: CheckPorts["spawn"];
  readonly onChange: () => void;
}

export function createHealthMonitor({ clock, spawn, onChange }: HealthOptions): HealthMonitor {
  let plan: Plan | undefined;
  let prober: Prober | undefined;
  let asker: StateClient | undefined;
  let server: StateServer | undefined;
  let answering: ReadonlySet<NodeName> = new Set();
  let bound = "";
  let served = "";
  let said = "";
  const viewLinks = (): ReadonlyMap<NodeName, LinkView> => prober?.links() ?? new Map();
  const lan: LanMonitor = createLanMonitor({ clock, spawn, agentOf: (gateway) => agentOf(plan, viewLinks(), gateway) });
  const uplink: UplinkMonitor = createUplinkMonitor({ clock, spawn });
  lan.onChange(onChange);

  const downPaths = (): PathId[] => [...uplink.downPaths(), ...(plan === undefined ? [] : cutOff(plan, viewLinks()))].toSorted();
  /** Nothing before the first uplink checks are judged: a gateway that starts with a dead uplink must not say `Serving`. */
  const word = (): GatewayWord | undefined => {
    if (!uplink.settled() && plan?.self.drain === undefined) return undefined;
    const down = downPaths();
    const state = plan?.self.drain !== undefined ? "Draining" : down.length > 0 ? "UplinkDown" : "Serving";
    return { state, down: [...down, ...(plan === undefined ? [] : lostSites(plan, viewLinks()))] };
  };
  const sayChange = (): void => {
    const now = JSON.stringify(word());
    if (now === said) return;
    said = now;
    server?.push();
  };
  uplink.onChange(() => {
    sayChange();
    onChange();
  });

  /** A gateway that answers again has its word asked at once: after a boot it does not know whom to tell that its uplink is down. */
  const askReturned = (): void => {
    const now = new Set([...viewLinks().values()].flatMap((view) => (isAnswering(view) ? [view.node] : [])));
    for (const node of now) if (!answering.has(node)) asker?.ask(node);
    answering = now;
  };

  const closeClient = (): void => {
    prober?.close();
    asker?.close();
    prober = undefined;
    asker = undefined;
  };

  return {
    setPlan(next, links) {
      plan = next;
      const { ports } = next.network;
      const mine = clientLinkAddress(next.network, next.self.index).v4;
      const want = links.size === 0 ? "" : `${mine} ${ports.echo} ${ports.state}`;
      if (want !== bound) {
        closeClient();
        bound = want;
        if (want !== "") {
          const made = createProber({ bind: mine, echoPort: ports.echo, clock });
          made.onChange(() => {
            askReturned();
            sayChange();
            onChange();
          });
          prober = made;
          asker = createStateClient({ bind: mine, port: ports.state, onWord: (node, { state, down }) => made.gatewayState(node, state, down) });
        }
      }
      const targets = probeTargets(next, links);
      prober?.setTargets(targets);
      asker?.setGateways(targets.map(({ node, address }) => ({ node, address })));

      const gateway = gatewayLinkAddress(next.network, next.self.index).v4;
      const serve = isGateway({ plan: next }) ? `${gateway} ${ports.state}` : "";
      if (serve !== served) {
        server?.close();
        served = serve;
        server = serve === "" ? undefined : createStateServer({ bind: gateway, port: ports.state, clock, state: word });
      }
      uplink.setServes(next.serves);
      lan.setRoutes(next.lanRoutes);
      sayChange();
    },
    view: () => ({
      links: viewLinks(),
      stalled: prober?.stalled() ?? false,
      lan: new Map([...(plan?.lanRoutes.keys() ?? [])].map((id) => [id, lan.health(id)])),
    }),
    downPaths,
    close() {
      closeClient();
      server?.close();
      lan.close();
      uplink.close();
    },
  };
}

/** How a link is probed that the plan no longer names but that still carries flows. */
const USUAL = { intervalMs: 100, threshold: 3, leastHoldDownMs: 0 } as const;

/** One target per link; a gateway of several paths is probed as the most impatient of them asks. */
export function probeTargets(plan: Plan, links: Links): ProbeTarget[] {
  return [...links.keys()].flatMap((node) => {
    const peer = plan.peers.get(node);
    const paths = [...plan.paths.values()].filter(({ gateways }) => gateways.some((gateway) => gateway.node === node));
    const quickest = paths.toSorted((a, b) => a.intervalMs * a.threshold - b.intervalMs * b.threshold)[0];
    if (peer === undefined) return [];
    const { intervalMs, threshold } = quickest ?? USUAL;
    const holdDownMs = Math.max(USUAL.leastHoldDownMs, ...paths.map((path) => path.holdDownMs));
    return [{ node, address: gatewayLinkAddress(plan.network, peer.i).v4, intervalMs, threshold, holdDownMs }];
  });
}

function isAnswering({ verdict, holdDownUntil }: LinkView): boolean {
  return verdict === "Up" || holdDownUntil !== undefined;
}

/** Gateways whose probes fail and whose session may be stale: since when. */
export function silentLinks(views: ReadonlyMap<NodeName, LinkView>): ReadonlyMap<NodeName, number> {
  return new Map(
    [...views.values()].filter((view) => view.verdict === "Down" && view.holdDownUntil === undefined).map((view) => [view.node, view.since]),
  );
}

/** Health of a LAN gateway that is a node of the mesh: what the link probes say of it. */
function agentOf(plan: Plan | undefined, views: ReadonlyMap<NodeName, LinkView>, gateway: IpAddress): LinkView | undefined {
  for (const [node, peer] of plan?.peers ?? []) {
    if (peer.e.some((endpoint) => splitEndpoint(endpoint).address === gateway)) return views.get(node);
  }
  return undefined;
}
