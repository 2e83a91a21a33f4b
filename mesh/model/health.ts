/** Health checks, as routes, egress gateways and virtual IPs write them. */
import { z } from "zod";
import { Duration, IpAddress, Port } from "./scalars.ts";

const TARGET = "Where to connect; the gateway itself when absent.";

const TcpCheck = z.strictObject({ address: IpAddress.optional().describe(TARGET), port: Port.describe("Must accept a connection.") });
const HttpCheck = z.strictObject({
  address: IpAddress.optional().describe(TARGET),
  port: Port.default(80).describe("TCP port of the HTTP server."),
  path: z.string().max(256).default("/").describe("Path of the GET request."),
  status: z.int().min(100).max(599).default(200).describe("Status that counts as alive."),
});

/** What is looked at besides the path itself. Enum-tagged with one optional member per variant (no unions in a CRD). */
export const UplinkCheck = z.strictObject({
  type: z.enum(["icmp", "tcp", "http"]).describe("Which check; the member of the same name says of what."),
  icmp: z
    .strictObject({ address: IpAddress.describe("Must answer an echo request.") })
    .optional()
    .describe("With type icmp."),
  tcp: TcpCheck.optional().describe("With type tcp."),
  http: HttpCheck.optional().describe("With type http."),
});
export type UplinkCheck = z.infer<typeof UplinkCheck>;

/** Health of a gateway that is reached over a link of the mesh. */
export const LinkHealth = z.strictObject({
  interval: Duration.default("100ms").describe("Time between probes of the path."),
  threshold: z.int().min(1).max(20).default(3).describe("Probes missed in a row until the path counts as down."),
  holdDown: Duration.default("5s").describe("Quiet time until a path counts as up again; doubles with every flap, to 5 minutes."),
  uplink: z.array(UplinkCheck).max(8).optional().describe("The gateway's own checks; down when all of them fail."),
  uplinkInterval: Duration.default("100ms").describe("Time between the gateway's own checks."),
});
export type LinkHealth = z.infer<typeof LinkHealth>;

/** Health of a gateway on a LAN, checked by each node that routes through it. */
export const GatewayHealth = z.strictObject({
  type: z
    .enum(["icmp", "tcp", "http", "agent", "none"])
    .default("icmp")
    .describe(
      "How a router is checked; `agent`: by the mesh, where the router is a node, `none`: believed alive always. Gateways that are named as nodes are checked by probes of the link, whatever stands here; `tcp` and `http` with an address are then checks of the node's own uplink.",
    ),
  interval: Duration.default("100ms").describe("Time between checks."),
  threshold: z.int().min(1).max(20).default(3).describe("Checks missed in a row until the gateway counts as down."),
  holdDown: Duration.default("5s").describe("Quiet time until a gateway counts as up again; doubles with every flap, to 5 minutes."),
  tcp: TcpCheck.optional().describe("With type tcp."),
  http: HttpCheck.optional().describe("With type http."),
});
export type GatewayHealth = z.infer<typeof GatewayHealth>;
