/** A virtual IP: an address that survives its node, on a LAN by VRRP or across sites over the overlay. */
import { z } from "zod";
import { IntentStatus } from "./meta.ts";
import { Duration, IpAddress, Labels, Port } from "./scalars.ts";

const Check = z.strictObject({
  type: z.enum(["tcp", "http", "exec"]),
  tcp: z.strictObject({ port: Port, connectTimeout: Duration.optional() }).optional(),
  http: z.strictObject({ port: Port, path: z.string().max(256).default("/"), status: z.int().default(200), body: z.string().max(256).optional() }).optional(),
  exec: z.strictObject({ script: z.string().max(63) }).optional(),
  interval: Duration.default("1s"),
  fall: z.int().min(1).max(20).default(2),
  rise: z.int().min(1).max(20).default(2),
});

const Backend = z.strictObject({ address: IpAddress, port: Port.optional(), weight: z.int().min(0).max(65535).default(1) });

const VirtualServer = z.strictObject({
  port: Port,
  protocol: z.enum(["TCP", "UDP"]).default("TCP"),
  scheduler: z.enum(["rr", "wrr", "lc", "wlc", "sh", "dh", "mh"]).default("rr"),
  persistence: Duration.optional(),
  backends: z.array(Backend).max(1000).optional(),
  backendSelector: z.strictObject({ nodeSelector: Labels, port: Port }).optional(),
  check: Check.optional(),
});

export const VirtualIPSpec = z.strictObject({
  address: IpAddress,
  addresses: z.array(IpAddress).max(16).optional(),
  scope: z.enum(["Overlay", "Lan"]),
  mode: z.enum(["Shared", "Exclusive"]).default("Shared"),
  candidates: z.array(z.strictObject({ nodeSelector: Labels, priority: z.int().min(1).max(254).default(100) })).min(1).max(16),
  preempt: z.strictObject({ enabled: z.boolean().default(true), delay: Duration.default("0s") }).prefault({}),
  checks: z.array(Check).max(8).optional(),
  syncGroup: z.string().max(63).optional(),
  vrrp: z
    .strictObject({
      version: z.int().min(2).max(3).default(3),
      advertInterval: Duration.default("100ms"),
      unicast: z.boolean().default(true),
      routerId: z.int().min(1).max(255).optional(),
      authPass: z.string().max(8).optional(),
      useVmac: z.boolean().optional(),
    })
    .optional(),
  ports: z.array(VirtualServer).max(64).optional(),
});

export const VirtualIPStatus = IntentStatus.extend({
  owner: z.string().max(63).optional(),
  since: z.string().max(32).optional(),
});
