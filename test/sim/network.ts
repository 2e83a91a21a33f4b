/** Hosts and the ways between them, as they really are; the elections only see what comes through. */
import type { NodeName } from "../../mesh/model/scalars.ts";
import type { Random } from "./random.ts";

export interface Host {
  powered: boolean;
  /** The agent's process runs. The kernel echoes without it. */
  agent: boolean;
  /** Virtual time until which the agent's process stands still. */
  stoppedUntil: number;
  uplink: boolean;
}

export interface Way {
  cut: boolean;
  loss: number;
  delayMs: number;
}

export interface Network {
  now: number;
  readonly hosts: Map<NodeName, Host>;
  readonly ways: Map<string, Way>;
  /** Last time at which anything between the two, or at the second, changed. */
  readonly changedAt: Map<string, number>;
}

export function createNetwork(): Network {
  return { now: 0, hosts: new Map(), ways: new Map(), changedAt: new Map() };
}

export function hostOf(net: Network, name: NodeName): Host {
  let host = net.hosts.get(name);
  if (host === undefined) net.hosts.set(name, (host = { powered: true, agent: true, stoppedUntil: 0, uplink: true }));
  return host;
}

export function wayOf(net: Network, from: NodeName, to: NodeName): Way {
  const key = `${from}>${to}`;
  let way = net.ways.get(key);
  if (way === undefined) net.ways.set(key, (way = { cut: false, loss: 0, delayMs: 5 }));
  return way;
}

/** When a datagram that leaves now arrives; undefined when it is lost. */
export function arrival(net: Network, random: Random, from: NodeName, to: NodeName, at: number): number | undefined {
  const way = wayOf(net, from, to);
  if (way.cut || (way.loss > 0 && random.chance(way.loss)) || !hostOf(net, to).powered) return undefined;
  return at + way.delayMs;
}

/** Truth between a client and a gateway: whether probes come back, and whether some may be lost. */
export function truth(net: Network, client: NodeName, gateway: NodeName): "fine" | "lossy" | "dead" {
  const there = wayOf(net, client, gateway);
  const back = wayOf(net, gateway, client);
  if (!hostOf(net, gateway).powered || there.cut || back.cut) return "dead";
  return there.loss + back.loss > 0 ? "lossy" : "fine";
}

/** Notes that something between the two changed; `truthSince` counts from there. */
export function touch(net: Network, client: NodeName, gateway: NodeName): void {
  net.changedAt.set(`${client}>${gateway}`, net.now);
}

export function truthSince(net: Network, client: NodeName, gateway: NodeName): number {
  return net.changedAt.get(`${client}>${gateway}`) ?? 0;
}
