/**
 * Pairwise links (docs/decisions/014): two site gateways that are each other's client have one link, with everything allowed on both
 * ends, because machines of a LAN that keep their addresses may come by any gateway of their site. What WireGuard's allowed IPs say
 * on `ismgw0` is said here instead: who may begin a flow over which link.
 */
import type { PathId, PeerPlan, Plan } from "../model/plan.ts";
import type { Cidr, NodeName } from "../model/scalars.ts";
import { hostCidr } from "../net/ip.ts";
import { gatewayLinkAddress, meshAddress } from "../net/overlay.ts";
import { GATEWAY_INTERFACE, hex, linkInterface, MARK_RETURN, marksOf } from "./layout.ts";
import { isPaired } from "./topology.ts";
import type { DesiredInput } from "./types.ts";
import { clientSources } from "./wireguard.ts";

type Input = Pick<DesiredInput, "plan" | "links">;

/** A link over which the other end may begin flows. */
export interface OpenLink {
  readonly node: NodeName;
  readonly k: number;
  readonly peer: PeerPlan;
  /** The other end is this node's client on this link, too. */
  readonly paired: boolean;
  /** Where flows that begin at the other end may come from. */
  readonly sources: readonly Cidr[];
}

/** Links of this node over which others may begin flows: pairwise ones, and those to gateways of a LAN that keeps its addresses. By number. */
export function openLinks({ plan, links }: Input): OpenLink[] {
  return [...links]
    .sort(([, a], [, b]) => a - b)
    .flatMap(([node, k]): OpenLink[] => {
      const peer = plan.peers.get(node);
      const paired = isPaired(plan, node);
      if (peer === undefined || !isOpen(plan, node)) return [];
      const { v4, v6 } = gatewayLinkAddress(plan.network, peer.i);
      return [{ node, k, peer, paired, sources: [...clientSources({ plan }, peer), hostCidr(v4), hostCidr(v6), ...behind(plan, node, peer)] }];
    });
}

/** Whether the other end may begin flows over the link to this node. */
export function isOpen(plan: Plan, node: NodeName): boolean {
  const peer = plan.peers.get(node);
  return peer !== undefined && (isPaired(plan, node) || behind(plan, node, peer).length > 0);
}

/** Interfaces by which clients come in. */
export function clientInterfaces(input: Input): string[] {
  return [GATEWAY_INTERFACE, ...openLinks(input).flatMap(({ k, paired }) => (paired ? [linkInterface(k)] : []))];
}

/** What flows by those interfaces carry in conntrack, each as `value/mask`. */
export function clientMarks(input: Input): string[] {
  const { mask, bits } = marksOf(input.plan.network);
  const values = [MARK_RETURN, ...openLinks(input).flatMap(({ k, paired }) => (paired ? [k] : []))];
  return values.map((value) => `${hex(bits(value))}/${hex(mask)}`);
}

/** Who may come through a gateway besides itself: a LAN that keeps its addresses, other nodes of its site, or all beyond the own site. */
export function behind(plan: Plan, node: NodeName, peer: PeerPlan): Cidr[] {
  const carries = (id: PathId): readonly Cidr[] => {
    const path = plan.paths.get(id);
    return path?.snat?.type === "None" && path.gateways.some((gateway) => gateway.node === node) ? path.destinations : [];
  };
  if (peer.s === plan.self.site) return plan.serves.has(`via/${peer.s}`) ? [] : [...carries(`via/${peer.s}`)];
  return [...carries(`subnet/${peer.s}`), ...carries(`site/${peer.s}`)];
}

/** The path of this node's own site, where it is a gateway of it and machines of its LANs keep their addresses in the overlay. */
export function keptLan({ self, serves, paths }: Plan): PathId | undefined {
  const id: PathId = `subnet/${self.site}`;
  return serves.get(id)?.snat.type === "None" && paths.has(id) ? id : undefined;
}

/** Overlay addresses of a node and the prefixes that it advertises: what its machines are called, and not its links. */
export function overlayAddresses(plan: Plan, peer: PeerPlan): Cidr[] {
  const { v4, v6 } = meshAddress(plan.network, peer.i);
  return [hostCidr(v4), hostCidr(v6), ...(peer.a ?? [])];
}
