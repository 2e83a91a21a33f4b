/** The overlay itself: its ranges, ports and topology. One is made at first start. */
import { z } from "zod";
import { Cidr, Port } from "./scalars.ts";

export const MeshNetworkSpec = z.strictObject({
  overlay: z
    .strictObject({
      v4: Cidr.default("10.101.0.0/16" as Cidr).describe("Mesh addresses of the nodes."),
      v6: Cidr.describe("A /48 of unique local addresses (RFC 4193); made at random at first start when absent.").optional(),
    })
    .prefault({})
    .describe("Where mesh addresses come from."),
  links: z
    .strictObject({
      v4: Cidr.default("10.102.0.0/15" as Cidr).describe("Link addresses: the lower half as client, the upper half as gateway."),
    })
    .prefault({})
    .describe("Where the addresses of gateway links come from."),
  ports: z
    .strictObject({
      mesh: Port.default(51820).describe("UDP port of ism0."),
      gateway: Port.default(51821).describe("UDP port of ismgw0."),
      links: Port.default(51830).describe("First UDP port of the client links: ismg<k> listens on links + k, k from 1 to 63."),
      echo: Port.default(51819).describe("UDP port of the path probes inside a link."),
      state: Port.default(51818).describe("UDP port of the gateway state messages inside a link."),
    })
    .prefault({})
    .describe("UDP ports."),
  mtu: z.int().min(1280).max(9000).optional().describe("Overlay MTU; measured from the underlay when absent."),
  markMask: z
    .string()
    .max(10)
    .regex(/^0x[0-9a-f]{1,8}$/, "must be a hexadecimal mask of at least 7 adjacent bits")
    .default("0x7f000000")
    .describe("The bits of packet and conntrack marks that Isthmus may use; it never touches others."),
  topology: z
    .enum(["FullMesh", "SiteGateways"])
    .default("FullMesh")
    .describe(
      "FullMesh: every node is a peer of every other. SiteGateways: across sites only the sites' gateway nodes are, and other nodes reach other sites through them.",
    ),
});
export type MeshNetworkSpec = z.infer<typeof MeshNetworkSpec>;
