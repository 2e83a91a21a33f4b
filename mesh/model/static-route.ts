/** The StaticRoute of the DigitalOcean static route operator (`networking.digitalocean.com/v1`), accepted as it is. */
import { z } from "zod";
import { Cidr, IpAddress } from "./scalars.ts";

export const STATIC_ROUTE_API_VERSION = "networking.digitalocean.com/v1";

export const StaticRouteSpec = z.strictObject({
  destinations: z.array(Cidr).min(1).max(5000).describe("Prefixes or addresses."),
  gateway: IpAddress.describe("Address of the router; may be changed in place."),
});
export type StaticRouteSpec = z.infer<typeof StaticRouteSpec>;
