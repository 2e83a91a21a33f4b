/** Static routes: destinations through an ordered list of gateways, with health and failover. */
import { z } from "zod";
import { GatewayHealth } from "./health.ts";
import { Cidr, IpAddress, Labels, NodeName } from "./scalars.ts";

/** Exactly one of `address` (a router on a LAN of the node) and `node` (a node of the mesh). */
export const RouteGateway = z.strictObject({
  address: IpAddress.optional(),
  node: NodeName.optional(),
});
export type RouteGateway = z.infer<typeof RouteGateway>;

export const MeshRouteSpec = z.strictObject({
  destinations: z.array(Cidr).min(1).max(5000),
  excludedDestinations: z.array(Cidr).max(1000).optional(),
  gateways: z.array(RouteGateway).min(1).max(16).describe("In order of preference."),
  nodeSelector: Labels.optional().describe("Nodes that get the routes; all when absent."),
  table: z.int().min(1).max(4_294_967_295).optional().describe("Routing table for routes through LAN gateways; main (254) when absent."),
  metric: z.int().min(1).max(4_294_967_294).optional(),
  health: GatewayHealth.prefault({}),
  strategy: z.enum(["Failover", "Spread"]).default("Failover"),
});
export type MeshRouteSpec = z.infer<typeof MeshRouteSpec>;
