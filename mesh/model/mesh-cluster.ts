/** A Kubernetes cluster whose nodes belong to the mesh. */
import { z } from "zod";
import { Cidr, Labels, NodeName, ObjectName } from "./scalars.ts";

export const MeshClusterSpec = z.strictObject({
  kubeconfig: z
    .strictObject({
      secretName: z.string().max(253).optional().describe("Name of the Secret, where the controller runs inside a cluster."),
      path: z.string().max(1024).optional().describe("File on the controller's machine."),
      context: z.string().max(253).optional().describe("Context in it; the current one when absent."),
    })
    .describe("How the controller reaches the API server. Exactly one of secretName and path."),
  servers: z.array(z.string().max(512)).max(16).optional().describe("API server addresses, each tried in turn."),
  sites: z
    .array(
      z.strictObject({
        site: ObjectName.describe("The site."),
        nodes: z.array(NodeName).max(5000).optional().describe("Its nodes by name."),
        nodeSelector: Labels.optional().describe("Its nodes by their Kubernetes labels."),
      }),
    )
    .max(256)
    .optional()
    .describe("Which of the cluster's nodes belong to which site."),
  grants: z
    .strictObject({ advertise: z.array(Cidr).max(256).optional().describe("Nodes of the cluster may advertise prefixes inside these.") })
    .optional()
    .describe("What its nodes may claim beyond their own addresses."),
  sync: z
    .strictObject({
      nodeLabels: z.boolean().default(true).describe("Write location and site as labels of its Node objects."),
      topologyLabels: z.boolean().default(false).describe("Write region and zone as the well-known topology labels."),
      podCIDRs: z.boolean().default(false).describe("Route pod ranges over the mesh."),
      resources: z.boolean().default(true).describe("Read routes, egress gateways and virtual IPs from the cluster."),
    })
    .prefault({})
    .describe("What is kept in step with the cluster."),
});
