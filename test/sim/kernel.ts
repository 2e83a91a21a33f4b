/** A kernel fake: applies the real operations one by one and says where a packet would go after each. */
import { applyOperations, type Operation } from "../../mesh/kernel/diff.ts";
import { FLOW_GROUP, LINK_NEXTHOP } from "../../mesh/kernel/layout.ts";
import type { KernelState, Route } from "../../mesh/kernel/types.ts";
import type { Cidr } from "../../mesh/model/scalars.ts";
import { contains, hostCidr, parseCidr, type ParsedCidr } from "../../mesh/net/ip.ts";

/** Where an unmarked packet of this node goes: devices of ours, `unreachable`, or `underlay` when nothing of ours holds it. */
export type Way = "underlay" | "unreachable" | readonly string[];

export function wayOut(kernel: KernelState, destination: string): Way {
  const target = parsed(hostCidr(destination));
  const rules = [...kernel.rules.values()].filter((rule) => rule.family === target.family && rule.fwmark === undefined && rule.from === undefined);
  for (const { table } of rules.sort((a, b) => a.priority - b.priority)) {
    const route = lookup(kernel, table, target);
    if (route === undefined || route.type === "throw") continue;
    if (route.type !== "unicast") return "unreachable";
    return devicesOf(kernel, route);
  }
  return "underlay";
}

function lookup(kernel: KernelState, table: number, target: ParsedCidr): Route | undefined {
  let best: Route | undefined;
  for (const route of kernel.routes.values()) {
    if (route.table !== table || !contains(parsed(route.dst), target)) continue;
    const better = best === undefined || parsed(route.dst).bits > parsed(best.dst).bits || (route.dst === best.dst && route.metric < best.metric);
    if (better) best = route;
  }
  return best;
}

function devicesOf(kernel: KernelState, route: Route): Way {
  if (route.nexthopId === undefined) return route.dev === undefined ? "underlay" : [route.dev];
  const members = kernel.nexthops.get(route.nexthopId)?.group ?? [];
  const devices = members.flatMap((id) => kernel.nexthops.get(id)?.dev ?? []);
  // The kernel would have removed the route together with its group.
  return devices.length === 0 ? "underlay" : devices;
}

/** Device over which flows pinned to link `k` go. */
export function pinnedTo(kernel: KernelState, k: number): boolean {
  return kernel.nexthops.get(FLOW_GROUP + k)?.group?.includes(LINK_NEXTHOP + k) ?? false;
}

/** Applies one operation after the other; `each` sees every state in between, and may stop (a crash). */
export function applyEach(kernel: KernelState, operations: readonly Operation[], each: (state: KernelState) => boolean): KernelState {
  let state = kernel;
  for (const operation of operations) {
    state = applyOperations(state, [operation]);
    if (!each(state)) break;
  }
  return state;
}

const cache = new Map<Cidr, ParsedCidr>();
function parsed(cidr: Cidr): ParsedCidr {
  let found = cache.get(cidr);
  if (found === undefined) cache.set(cidr, (found = parseCidr(cidr)));
  return found;
}
