/** Static routes: destinations through an ordered list of gateways, with health and failover. */
import { z } from "zod";
import { GatewayHealth } from "./health.ts";
import { Cidr, IpAddress, Labels, NodeName } from "./scalars.ts";

/** Exactly one of `address` (a router on a LAN of the node) and `node` (a node of the mesh). */
export const RouteGateway = z.strictObject({
  address: IpAddress.optional().describe("Address of a router on a LAN of the node."),
  node: NodeName.optional().describe("A node of the mesh; reached over the overlay."),
});
export type RouteGateway = z.infer<typeof RouteGateway>;

export const MeshRouteSpec = z.strictObject({
  destinations: z.array(Cidr).min(1).max(5000).describe("Prefixes or addresses, IPv4 and IPv6; 0.0.0.0/0 and its halves too."),
  excludedDestinations: z.array(Cidr).max(1000).optional().describe("Left out of the destinations."),
  gateways: z.array(RouteGateway).min(1).max(16).describe("In order of preference."),
  nodeSelector: Labels.optional().describe("Nodes that get the routes; all when absent."),
  table: z.int().min(1).max(4_294_967_295).optional().describe("Routing table for routes through LAN gateways; main (254) when absent."),
  metric: z.int().min(1).max(4_294_967_294).optional().describe("Metric of routes through LAN gateways; lower wins in the kernel."),
  health: GatewayHealth.prefault({}).describe("How each node finds out whether a gateway is alive."),
  strategy: z
    .enum(["Failover", "Spread"])
    .default("Failover")
    .describe("Failover: the first gateway that is alive. Spread: all that are alive at once, by flow."),
});
export type MeshRouteSpec = z.infer<typeof MeshRouteSpec>;
