/** Traffic to some destinations leaves the overlay at a gateway node, and moves to another when that one fails. */
import { z } from "zod";
import { LinkHealth } from "./health.ts";
import { Cidr, Duration, IpAddress, Labels, ObjectName } from "./scalars.ts";

/** Exactly one of `nodeSelector` and `site`. */
export const GatewaySelector = z.strictObject({
  nodeSelector: Labels.optional().describe("Nodes whose labels hold every pair are gateways."),
  site: ObjectName.optional().describe("All nodes of this site are gateways."),
  priority: z.int().min(0).max(1000).default(100).describe("Higher is preferred; ties go by site priority, then by name."),
});

export const EgressGatewaySpec = z.strictObject({
  destinations: z.array(Cidr).min(1).max(5000).describe("Prefixes or addresses, IPv4 and IPv6; 0.0.0.0/0 and its halves too."),
  excludedDestinations: z.array(Cidr).max(1000).optional().describe("Left out of the destinations: this traffic keeps its old way."),
  sources: z
    .strictObject({ nodeSelector: Labels.optional().describe("Nodes whose labels hold every pair.") })
    .prefault({})
    .describe("Nodes whose traffic is steered; all when absent."),
  gateways: z.array(GatewaySelector).min(1).max(16).describe("Who may carry the traffic; the healthy one of the highest priority does."),
  snat: z
    .strictObject({
      type: z
        .enum(["Masquerade", "Address", "None"])
        .default("Masquerade")
        .describe("Source that the destination sees: the gateway's own address, a given one, or the sender's."),
      address: IpAddress.optional().describe("With type Address: a source address that the gateway holds."),
    })
    .prefault({})
    .describe("How the source address is translated at the gateway."),
  health: LinkHealth.prefault({}).describe("How each client finds out whether a gateway carries its traffic."),
  strategy: z
    .enum(["Failover", "Spread"])
    .default("Failover")
    .describe("Failover: one gateway at a time. Spread: all healthy ones of the best priority, by flow."),
  failback: z
    .strictObject({
      type: z
        .enum(["Immediate", "Delayed", "Manual"])
        .default("Delayed")
        .describe("When a better gateway that is healthy again is used: at once, after the delay, or only when the current one fails."),
      delay: Duration.default("60s").describe("With Delayed: how long the better gateway must have been healthy."),
    })
    .prefault({})
    .describe("Return to a better gateway after it failed. New flows move, old ones stay until they end or drainTimeout."),
  drainTimeout: Duration.default("60s").describe("How long established flows may stay on a gateway that is left by a planned move."),
  onNoGateway: z.enum(["Unreachable", "Underlay"]).default("Unreachable").describe("What happens where no gateway was ever alive."),
});
export type EgressGatewaySpec = z.infer<typeof EgressGatewaySpec>;
