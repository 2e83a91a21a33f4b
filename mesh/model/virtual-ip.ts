/** A virtual IP: an address that survives its node, on a LAN by VRRP or across sites over the overlay. */
import { z } from "zod";
import { IntentStatus } from "./meta.ts";
import { Duration, IpAddress, Labels, Port } from "./scalars.ts";

const Check = z.strictObject({
  type: z.enum(["tcp", "http", "exec"]).describe("Which check; the member of the same name says of what."),
  tcp: z
    .strictObject({ port: Port.describe("Must accept a connection."), connectTimeout: Duration.optional().describe("How long that may take.") })
    .optional()
    .describe("With type tcp."),
  http: z
    .strictObject({
      port: Port.describe("TCP port of the HTTP server."),
      path: z.string().max(256).default("/").describe("Path of the GET request."),
      status: z.int().default(200).describe("Status that counts as alive."),
      body: z.string().max(256).optional().describe("Text that the answer must hold."),
    })
    .optional()
    .describe("With type http."),
  exec: z
    .strictObject({ script: z.string().max(63).describe("Name of a script in the agent's own folder of checks; nothing else is run.") })
    .optional()
    .describe("With type exec."),
  interval: Duration.default("1s").describe("Time between checks."),
  fall: z.int().min(1).max(20).default(2).describe("Failures in a row until it counts as down."),
  rise: z.int().min(1).max(20).default(2).describe("Successes in a row until it counts as up."),
});

const Backend = z.strictObject({
  address: IpAddress.describe("Address of the real server."),
  port: Port.optional().describe("Its port; the same one when absent."),
  weight: z.int().min(0).max(65535).default(1).describe("Share of the flows; 0 takes no new ones."),
});

const VirtualServer = z.strictObject({
  port: Port.describe("Port of the virtual IP."),
  protocol: z.enum(["TCP", "UDP"]).default("TCP").describe("Protocol of the port."),
  scheduler: z.enum(["rr", "wrr", "lc", "wlc", "sh", "dh", "mh"]).default("rr").describe("IPVS scheduler that chooses the backend."),
  persistence: Duration.optional().describe("How long a client keeps its backend."),
  backends: z.array(Backend).max(1000).optional().describe("Real servers by address."),
  backendSelector: z
    .strictObject({ nodeSelector: Labels.describe("Nodes whose labels hold every pair."), port: Port.describe("Port on them.") })
    .optional()
    .describe("Real servers by label, instead of backends."),
  check: Check.optional().describe("How each backend is checked."),
});

export const VirtualIPSpec = z.strictObject({
  address: IpAddress.describe("The address that clients use."),
  addresses: z.array(IpAddress).max(16).optional().describe("Further addresses that move together with it."),
  scope: z.enum(["Overlay", "Lan"]).describe("Overlay: reached by nodes of the mesh, across sites. Lan: on one LAN, by VRRP."),
  mode: z
    .enum(["Shared", "Exclusive"])
    .default("Shared")
    .describe("Shared: each sender chooses a candidate and stays with it. Exclusive: one owner by a majority's lease."),
  candidates: z
    .array(
      z.strictObject({
        nodeSelector: Labels.describe("Nodes whose labels hold every pair."),
        priority: z.int().min(1).max(254).default(100).describe("Higher is preferred."),
      }),
    )
    .min(1)
    .max(16)
    .describe("Nodes that may hold the address."),
  preempt: z
    .strictObject({
      enabled: z.boolean().default(true).describe("A better candidate takes the address back."),
      delay: Duration.default("0s").describe("How long it waits before it does."),
    })
    .prefault({})
    .describe("Return to a better candidate after it failed."),
  checks: z.array(Check).max(8).optional().describe("A candidate that fails one of them gives the address up."),
  syncGroup: z.string().max(63).optional().describe("Virtual IPs of the same group move together."),
  vrrp: z
    .strictObject({
      version: z.int().min(2).max(3).default(3).describe("VRRP version."),
      advertInterval: Duration.default("100ms").describe("Time between advertisements."),
      unicast: z.boolean().default(true).describe("To each candidate by address, instead of multicast."),
      routerId: z.int().min(1).max(255).optional().describe("Virtual router id; chosen to be unique on the LAN when absent."),
      authPass: z.string().max(8).optional().describe("Password of VRRP version 2; it protects from mistakes, not from attackers."),
      useVmac: z.boolean().optional().describe("Use the virtual MAC address of VRRP."),
    })
    .optional()
    .describe("With scope Lan."),
  ports: z.array(VirtualServer).max(64).optional().describe("Ports that are balanced to backends; absent when the owner itself serves."),
});

export const VirtualIPStatus = IntentStatus.extend({
  owner: z.string().max(63).optional().describe("Node that holds the address."),
  since: z.string().max(32).optional().describe("Since when, RFC 3339."),
});
