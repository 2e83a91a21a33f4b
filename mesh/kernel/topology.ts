/** Who is a peer of whom on `ism0`, and by which device a node is reached that is one hop away (docs/decisions/018). */
import type { PeerPlan, Plan } from "../model/plan.ts";
import type { NodeName } from "../model/scalars.ts";
import { linkInterface, MESH_INTERFACE } from "./layout.ts";

/** Every node; with topology SiteGateways those of the own site. */
export function isMeshPeer({ network, self }: Plan, peer: Pick<PeerPlan, "s">): boolean {
  return network.topology !== "SiteGateways" || peer.s === self.site;
}

/** Whether both ends of the link to this node use their link interfaces, and none `ismgw0`. */
export function isPaired(plan: Plan, node: NodeName): boolean {
  return plan.clients.get(node)?.pair === 1;
}

/** The device behind which the node itself stands; none where it is reached through others. */
export function deviceOf(plan: Plan, links: ReadonlyMap<NodeName, number>, node: NodeName): string | undefined {
  const peer = plan.peers.get(node);
  if (peer === undefined) return undefined;
  if (isMeshPeer(plan, peer)) return MESH_INTERFACE;
  const k = links.get(node);
  return k !== undefined && isPaired(plan, node) ? linkInterface(k) : undefined;
}
