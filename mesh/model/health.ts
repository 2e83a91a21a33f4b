/** Health checks, as routes, egress gateways and virtual IPs write them. */
import { z } from "zod";
import { Duration, IpAddress, Port } from "./scalars.ts";

const TcpCheck = z.strictObject({ address: IpAddress.optional(), port: Port });
const HttpCheck = z.strictObject({
  address: IpAddress.optional(),
  port: Port.default(80),
  path: z.string().max(256).default("/"),
  status: z.int().min(100).max(599).default(200),
});

/** What is looked at besides the path itself. Enum-tagged with one optional member per variant (no unions in a CRD). */
export const UplinkCheck = z.strictObject({
  type: z.enum(["icmp", "tcp", "http"]),
  icmp: z.strictObject({ address: IpAddress }).optional(),
  tcp: TcpCheck.optional(),
  http: HttpCheck.optional(),
});
export type UplinkCheck = z.infer<typeof UplinkCheck>;

/** Health of a gateway that is reached over a link of the mesh. */
export const LinkHealth = z.strictObject({
  interval: Duration.default("100ms").describe("Time between probes of the path."),
  threshold: z.int().min(1).max(20).default(3).describe("Probes missed in a row until the path counts as down."),
  holdDown: Duration.default("5s").describe("Quiet time until a path counts as up again; doubles with every flap, to 5 minutes."),
  uplink: z.array(UplinkCheck).max(8).optional().describe("The gateway's own checks; down when all of them fail."),
  uplinkInterval: Duration.default("100ms"),
});
export type LinkHealth = z.infer<typeof LinkHealth>;

/** Health of a gateway on a LAN, checked by each node that routes through it. */
export const GatewayHealth = z.strictObject({
  type: z.enum(["icmp", "tcp", "http", "agent", "none"]).default("icmp"),
  interval: Duration.default("100ms"),
  threshold: z.int().min(1).max(20).default(3),
  holdDown: Duration.default("5s"),
  tcp: TcpCheck.optional(),
  http: HttpCheck.optional(),
});
export type GatewayHealth = z.infer<typeof GatewayHealth>;
