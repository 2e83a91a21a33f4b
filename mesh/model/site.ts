/** A place: a datacenter or a cloud region. Nodes take location, region and zone from it. */
import { z } from "zod";
import { Condition } from "./meta.ts";
import { Cidr, Labels } from "./scalars.ts";

export const SiteSpec = z.strictObject({
  kind: z.enum(["onprem", "cloud"]).describe("Becomes the label location=onprem|cloud of the site's nodes."),
  region: z.string().max(63).optional().describe("Becomes the label topology.kubernetes.io/region of the site's nodes."),
  zone: z.string().max(63).optional().describe("Becomes the label topology.kubernetes.io/zone of the site's nodes."),
  labels: Labels.optional().describe("Given to every node of the site."),
  subnets: z.array(Cidr).max(256).optional().describe("LANs that other sites reach through this site's gateway nodes."),
  gateways: Labels.optional().describe(
    "Selects the nodes that carry the subnets, and with topology SiteGateways, which needs it, all that crosses sites. When absent: the four nodes of the site that joined first.",
  ),
  snat: z
    .enum(["Masquerade", "None"])
    .default("Masquerade")
    .describe("How traffic between the overlay and the subnets is translated. None: both ends see each other's own addresses."),
  priority: z.int().min(0).max(1000).default(100).describe("Order for disaster recovery: higher first."),
  grants: z
    .strictObject({
      advertise: z.array(Cidr).max(256).optional().describe("Nodes of this site may advertise prefixes inside these."),
    })
    .optional()
    .describe("What nodes of this site may claim beyond their own addresses."),
});
export type SiteSpec = z.infer<typeof SiteSpec>;

export const SiteStatus = z.strictObject({
  nodes: z
    .strictObject({ total: z.int().describe("Nodes of the site."), ready: z.int().describe("Nodes that are ready.") })
    .optional()
    .describe("Counts."),
  conditions: z.array(Condition).max(16).optional().describe("What holds of the site, each with a reason."),
});
