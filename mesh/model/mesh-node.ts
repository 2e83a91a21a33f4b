/** A machine of the mesh. The join makes it; admins label, drain and delete it. */
import { z } from "zod";
import { Condition } from "./meta.ts";
import { Cidr, Endpoint, IpAddress, Labels, ObjectName, WgPublicKey } from "./scalars.ts";

export const MeshNodeSpec = z.strictObject({
  site: ObjectName,
  labels: Labels.optional().describe("Set by admins or by the token; selectors look at these and at the site's."),
  index: z.int().min(1).describe("The node's number in the network; all of its overlay and link addresses derive from it."),
  publicKey: WgPublicKey,
  /** SHA-256 of the public key of the node's TLS certificate, hex. */
  tlsKey: z.string().length(64),
  cordoned: z.boolean().optional().describe("Draining: gateways and routes move away, new flows first."),
  drainTimeout: z.string().max(12).optional(),
  advertise: z.array(Cidr).max(256).optional().describe("Prefixes granted to this node."),
  endpoints: z.array(Endpoint).max(8).optional().describe("Endpoints set by an admin; tried before those that the agent found."),
});
export type MeshNodeSpec = z.infer<typeof MeshNodeSpec>;

export const MeshNodeStatus = z.strictObject({
  overlay: z.array(IpAddress).max(2).optional(),
  endpoints: z.array(Endpoint).max(16).optional().describe("Ranked; the first that proves itself by a handshake is used."),
  connected: z.boolean().optional(),
  lastSeen: z.string().max(32).optional(),
  agentVersion: z.string().max(32).optional(),
  kernel: z.string().max(64).optional(),
  wireguard: z.enum(["kernel", "userspace"]).optional(),
  appliedRevision: z.int().optional(),
  handshakes: z.strictObject({ peers: z.int(), fresh: z.int() }).optional(),
  pendingCidrs: z.array(Cidr).max(256).optional().describe("Claimed by the agent but granted by nobody: they have no effect."),
  conditions: z.array(Condition).max(32).optional(),
});
export type MeshNodeStatus = z.infer<typeof MeshNodeStatus>;
