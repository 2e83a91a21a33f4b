/** Traffic to some destinations leaves the overlay at a gateway node, and moves to another when that one fails. */
import { z } from "zod";
import { LinkHealth } from "./health.ts";
import { Cidr, Duration, IpAddress, Labels, ObjectName } from "./scalars.ts";

/** Exactly one of `nodeSelector` and `site`. */
export const GatewaySelector = z.strictObject({
  nodeSelector: Labels.optional(),
  site: ObjectName.optional(),
  priority: z.int().min(0).max(1000).default(100).describe("Higher is preferred; ties go by site priority, then by name."),
});

export const EgressGatewaySpec = z.strictObject({
  destinations: z.array(Cidr).min(1).max(5000),
  excludedDestinations: z.array(Cidr).max(1000).optional(),
  sources: z.strictObject({ nodeSelector: Labels.optional() }).prefault({}).describe("Nodes whose traffic is steered; all when absent."),
  gateways: z.array(GatewaySelector).min(1).max(16),
  snat: z
    .strictObject({
      type: z.enum(["Masquerade", "Address", "None"]).default("Masquerade"),
      address: IpAddress.optional().describe("With type Address: a source address that the gateway holds."),
    })
    .prefault({}),
  health: LinkHealth.prefault({}),
  strategy: z.enum(["Failover", "Spread"]).default("Failover"),
  failback: z
    .strictObject({
      type: z.enum(["Immediate", "Delayed", "Manual"]).default("Delayed"),
      delay: Duration.default("60s"),
    })
    .prefault({}),
  drainTimeout: Duration.default("60s"),
  onNoGateway: z.enum(["Unreachable", "Underlay"]).default("Unreachable").describe("What happens where no gateway was ever alive."),
});
export type EgressGatewaySpec = z.infer<typeof EgressGatewaySpec>;
