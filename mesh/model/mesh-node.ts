/** A machine of the mesh. The join makes it; admins label, drain and delete it. */
import { z } from "zod";
import { Condition } from "./meta.ts";
import { Cidr, Endpoint, IpAddress, Labels, ObjectName, WgPublicKey } from "./scalars.ts";

export const MeshNodeSpec = z.strictObject({
  site: ObjectName.describe("Where it stands."),
  labels: Labels.optional().describe("Set by admins or by the token; selectors look at these and at the site's."),
  index: z.int().min(1).describe("The node's number in the network; all of its overlay and link addresses derive from it."),
  publicKey: WgPublicKey.describe("WireGuard public key."),
  tlsKey: z.string().length(64).describe("SHA-256 of the public key of the node's TLS certificate, hex."),
  cordoned: z.boolean().optional().describe("Draining: gateways and routes move away, new flows first."),
  cordonedAt: z
    .string()
    .max(32)
    .optional()
    .describe("Since when it drains, RFC 3339; set by the controller, and what tells one drain from the next."),
  drainTimeout: z.string().max(12).optional().describe("While draining: how long established flows may stay; each intent's own when absent."),
  advertise: z.array(Cidr).max(256).optional().describe("Prefixes granted to this node."),
  endpoints: z.array(Endpoint).max(8).optional().describe("Endpoints set by an admin; tried before those that the agent found."),
});
export type MeshNodeSpec = z.infer<typeof MeshNodeSpec>;

export const MeshNodeStatus = z.strictObject({
  overlay: z.array(IpAddress).max(2).optional().describe("Mesh addresses, IPv4 and IPv6."),
  endpoints: z.array(Endpoint).max(16).optional().describe("Ranked; the first that proves itself by a handshake is used."),
  connected: z.boolean().optional().describe("Its agent has a connection to a controller; forwarding does not need one."),
  lastSeen: z.string().max(32).optional().describe("When its agent was last heard, RFC 3339."),
  agentVersion: z.string().max(32).optional().describe("Version of its agent."),
  kernel: z.string().max(64).optional().describe("Release of its kernel."),
  wireguard: z.enum(["kernel", "userspace"]).optional().describe("Whether WireGuard runs in the kernel or as wireguard-go."),
  appliedRevision: z.int().optional().describe("Revision of the plan that its kernel stands at."),
  handshakes: z
    .strictObject({ peers: z.int().describe("Peers that it has."), fresh: z.int().describe("Peers with a handshake in the last minutes.") })
    .optional()
    .describe("WireGuard sessions."),
  pendingCidrs: z.array(Cidr).max(256).optional().describe("Claimed by the agent but granted by nobody: they have no effect."),
  conditions: z.array(Condition).max(32).optional().describe("What holds of the node, each with a reason."),
});
export type MeshNodeStatus = z.infer<typeof MeshNodeStatus>;
