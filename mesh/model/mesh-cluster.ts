/** A Kubernetes cluster whose nodes belong to the mesh. */
import { z } from "zod";
import { Cidr, Labels, NodeName, ObjectName } from "./scalars.ts";

export const MeshClusterSpec = z.strictObject({
  kubeconfig: z.strictObject({
    secretName: z.string().max(253).optional(),
    path: z.string().max(1024).optional(),
    context: z.string().max(253).optional(),
  }),
  servers: z.array(z.string().max(512)).max(16).optional().describe("API server addresses, each tried in turn."),
  sites: z
    .array(z.strictObject({ site: ObjectName, nodes: z.array(NodeName).max(5000).optional(), nodeSelector: Labels.optional() }))
    .max(256)
    .optional(),
  grants: z.strictObject({ advertise: z.array(Cidr).max(256).optional() }).optional(),
  sync: z
    .strictObject({
      nodeLabels: z.boolean().default(true),
      topologyLabels: z.boolean().default(false),
      podCIDRs: z.boolean().default(false),
      resources: z.boolean().default(true),
    })
    .prefault({}),
});
