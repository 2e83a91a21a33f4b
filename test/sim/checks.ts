/** What must hold after every step. Written against the truth of the simulated network, not against the code that decides. */
import type { LinkView } from "../../mesh/elect/types.ts";
import type { KernelState } from "../../mesh/kernel/types.ts";
import { linkInterface } from "../../mesh/kernel/layout.ts";
import type { PathId } from "../../mesh/model/plan.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import type { Agent, Watcher } from "./agent.ts";
import { drift } from "./agent.ts";
import { DESTINATIONS, type Controller, type Store } from "./controller.ts";
import { pinnedTo, wayOut, type Way } from "./kernel.ts";
import { hostOf, truth, truthSince, type Network } from "./network.ts";

/** Longest time that an agent may take to see what is so: first contact, round trips of 300 ms and own stalls included. */
export const NOTICE_MS = 4_000;

export class Violation extends Error {
  override readonly name = "Violation";
}

interface Left {
  readonly node: NodeName;
  /** Since when it was Down. */
  readonly at: number;
  /** The plan's quiet period at that time. */
  readonly holdDownMs: number;
}

export interface Checks extends Watcher {
  /** After every run of an agent's loop. */
  afterTick(agent: Agent): void;
  afterKernelLoss(agent: Agent): void;
  afterStoreWrite(store: Store): void;
  /** Undefined when the agent does as the plan says, else what differs. */
  disagreement(agent: Agent, controller: Controller): string | undefined;
}

export interface CheckOptions {
  readonly net: Network;
  readonly killed: (agent: Agent) => boolean;
  /** Since when the agent has run without standing still, with its present plan. */
  readonly calmSince: (agent: Agent) => number;
  /** An outage of the agent's own uplink before which all was fine for long. */
  readonly outageOf: (agent: Agent) => Outage | undefined;
}

export interface Outage {
  readonly from: number;
  readonly to: number;
}

export function createChecks({ net, killed, calmSince, outageOf }: CheckOptions): Checks {
  const left = new Map<string, Left[]>();
  const appliedPaths = new Map<NodeName, ReadonlySet<PathId>>();
  const broken = new Map<string, Way>();

  const fail = (rule: string, text: string): never => {
    throw new Violation(`${rule} at ${net.now} ms: ${text}`);
  };
  const steered = (agent: Agent): PathId[] =>
    [...(agent.plan?.paths ?? [])].filter(([, path]) => !path.gateways.some(({ node }) => node === agent.name)).map(([id]) => id);
  const wayOf = (kernel: KernelState, id: PathId): Way => wayOut(kernel, DESTINATIONS[id as keyof typeof DESTINATIONS]);
  const noLeak = (agent: Agent, kernel: KernelState): void => {
    for (const id of steered(agent)) {
      if (appliedPaths.get(agent.name)?.has(id) === true && wayOf(kernel, id) === "underlay")
        fail("I4", `${agent.name} sends traffic of ${id} by the underlay`);
    }
  };

  return {
    killed,

    chosen(agent, id, before, after, views, now) {
      const known = agent.plan?.paths.get(id)?.gateways.map(({ node }) => node) ?? [];
      for (const node of after.active) {
        const better = known.find((one) => isUp(views.get(one)));
        const moved = before?.active.includes(node) !== true;
        if (after.reason !== "OwnStall" && isDead(views.get(node)) && better !== undefined)
          fail("I4", `${agent.name} steers ${id} to ${node}, believed dead, while ${better} is believed alive`);
        if (moved && isDead(views.get(node)) && known.includes(node)) fail("I4", `${agent.name} moves ${id} to ${node}, believed dead`);
      }
      if (before === undefined) {
        // A process that knows of no choice finds one in the kernel: a restart changes nothing.
        const way = steered(agent).includes(id) ? wayOf(agent.kernel, id) : "unreachable";
        const used = typeof way === "string" ? [] : [...agent.links].filter(([, k]) => way.includes(linkInterface(k))).map(([node]) => node);
        if (used.length > 0 && used.every((node) => known.includes(node) && !isDead(views.get(node))) && after.active.join() !== used.join()) {
          fail("I2", `${agent.name} uses [${after.active.join()}] for ${id}; the kernel still had ${used.join()}, which nobody found dead`);
        }
        return;
      }
      const key = `${agent.name} ${id}`;
      const gone = before.active.filter((node) => !after.active.includes(node));
      for (const node of gone) {
        if (
          after.reason === "GatewayDown" &&
          truth(net, agent.name, node) === "fine" &&
          now - truthSince(net, agent.name, node) > NOTICE_MS &&
          agent.startedAt < now - NOTICE_MS
        ) {
          fail("liveness", `${agent.name} left ${node} for ${id} as dead, which was fine for ${now - truthSince(net, agent.name, node)} ms`);
        }
        if (isUp(views.get(node)) && known.includes(node) && after.active.length > 0 && !after.draining.some((one) => one.node === node))
          fail("I5", `${agent.name} left ${node} for ${id} by a planned move and keeps no flow on it`);
      }
      // What another process of the agent knew of a link is forgotten, and a link that this one never had cannot flap.
      const outage = outageOf(agent);
      if (
        outage !== undefined &&
        now >= outage.from &&
        now <= outage.to + NOTICE_MS / 4 &&
        agent.startedAt < outage.from - NOTICE_MS &&
        after.reason === "GatewayDown"
      ) {
        const others = [...agent.health.keys()].every(
          (node) =>
            truthSince(net, agent.name, node) === (now < outage.to ? outage.from : outage.to) &&
            (now < outage.to || truth(net, agent.name, node) === "fine"),
        );
        if (others && gone.length > 0)
          fail("own fault", `${agent.name} left ${gone.join()} for ${id}: its own outage from ${outage.from} to ${outage.to} ms`);
      }
      const history = (left.get(key) ?? []).filter(
        ({ at, holdDownMs }) => now - at < Math.min(holdDownMs, agent.plan?.paths.get(id)?.holdDownMs ?? 0) && at >= agent.startedAt,
      );
      for (const { node, at } of history) {
        if (
          after.active.includes(node) &&
          !before.active.includes(node) &&
          before.active.some((one) => known.includes(one) && isUp(views.get(one)))
        ) {
          fail("hysteresis", `${agent.name} took ${node} for ${id} again ${now - at} ms after it had been found dead`);
        }
      }
      if (after.reason === "GatewayDown")
        history.push(
          ...gone
            .filter((node) => agent.health.get(node)?.everUp === true)
            .map((node) => ({ node, at: views.get(node)?.since ?? now, holdDownMs: agent.plan?.paths.get(id)?.holdDownMs ?? 0 })),
        );
      left.set(key, history);
    },

    kernelStep(agent, before, state) {
      noLeak(agent, state);
      for (const id of steered(agent)) {
        if (typeof wayOf(before, id) !== "string" && typeof wayOf(state, id) === "string") broken.set(`${agent.name} ${id}`, wayOf(state, id));
      }
    },

    applied(agent, before) {
      appliedPaths.set(agent.name, new Set(agent.plan?.paths.keys()));
      noLeak(agent, agent.kernel);
      for (const id of steered(agent)) {
        const key = `${agent.name} ${id}`;
        const gap = broken.get(key);
        if (gap !== undefined && typeof wayOf(agent.kernel, id) !== "string")
          fail("I5", `${agent.name}: between ${text(wayOf(before, id))} and ${text(wayOf(agent.kernel, id))} the route of ${id} was ${text(gap)}`);
        broken.delete(key);
        for (const { node } of agent.choices.get(id)?.draining ?? []) {
          const k = agent.links.get(node);
          if (k !== undefined && agent.health.get(node)?.verdict === "Up" && !pinnedTo(agent.kernel, k))
            fail("I5", `${agent.name}: flows of ${id} on ${node} are moved before their drain time`);
        }
      }
    },

    afterTick(agent) {
      const since = net.now - NOTICE_MS;
      if (calmSince(agent) > since) return;
      for (const id of steered(agent)) {
        const choice = agent.choices.get(id);
        const gateways = agent.plan?.paths.get(id)?.gateways.map(({ node }) => node) ?? [];
        const serves = (node: NodeName): boolean => {
          const host = hostOf(net, node);
          return truth(net, agent.name, node) === "fine" && truthSince(net, agent.name, node) < since && host.agent && host.uplink;
        };
        const isTrulyDead = (node: NodeName): boolean => truth(net, agent.name, node) === "dead" && truthSince(net, agent.name, node) < since;
        const alive = gateways.find(serves);
        const dead = choice?.active.find(isTrulyDead);
        if (alive !== undefined && dead !== undefined)
          fail("I4", `${agent.name} still steers ${id} to ${dead}, dead for ${net.now - truthSince(net, agent.name, dead)} ms, while ${alive} works`);
        if (alive !== undefined && (choice === undefined || choice.active.length === 0))
          fail("liveness", `${agent.name} steers ${id} to nobody although ${alive} works`);
      }
    },

    afterKernelLoss(agent) {
      noLeak(agent, agent.kernel);
    },

    afterStoreWrite(store) {
      const owners = new Map<number, NodeName>();
      for (const [name, node] of store.nodes) {
        const other = owners.get(node.spec.index);
        if (other !== undefined) fail("I6", `${name} and ${other} both own index ${node.spec.index}`);
        owners.set(node.spec.index, name);
      }
    },

    disagreement(agent, { store }) {
      if (agent.revision !== store.revision) return `${agent.name} holds revision ${agent.revision} of ${store.revision}`;
      for (const id of steered(agent)) {
        const path = agent.plan!.paths.get(id)!;
        const choice = agent.choices.get(id);
        const active = choice?.active ?? [];
        const best = path.gateways
          .filter(({ node, priority }) => (path.strategy === "Spread" ? priority === path.gateways[0]?.priority : node === path.gateways[0]?.node))
          .map(({ node }) => node);
        const manual = path.failback.type === "Manual" && active.length > 0 && active.every((node) => path.gateways.some((one) => one.node === node));
        if (!manual && active.join() !== best.join())
          return `${agent.name} uses [${active.join()}] for ${id} (${choice?.reason}), the plan says [${best.join()}]`;
        const way = wayOf(agent.kernel, id);
        const devices = active.map((node) => linkInterface(agent.links.get(node) ?? 0)).sort();
        if (text(way) !== text(devices)) return `${agent.name} routes ${id} by ${text(way)}, not ${text(devices)}`;
        if (choice !== undefined && choice.draining.length > 0) return `${agent.name} still drains ${choice.draining.map(({ node }) => node).join()}`;
      }
      return drift(agent) === 0 ? undefined : `${agent.name} has ${drift(agent)} kernel changes to make`;
    },
  };
}

function isUp(view: LinkView | undefined): boolean {
  return view?.verdict === "Up" && view.gateway !== "UplinkDown";
}

function isDead(view: LinkView | undefined): boolean {
  return view?.verdict === "Down" && view.holdDownUntil === undefined;
}

function text(way: Way): string {
  return typeof way === "string" ? way : [...way].sort().join("+");
}
