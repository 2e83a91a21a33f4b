/** Our addresses, all of them on `lo`: an address that dies with its interface takes the routes of other links with it. */
import type { Cidr } from "../model/scalars.ts";
import { hostCidr } from "../net/ip.ts";
import { clientLinkAddress, gatewayLinkAddress, meshAddress } from "../net/overlay.ts";
import type { DesiredInput } from "./types.ts";

export function desiredAddresses({ plan, host }: Pick<DesiredInput, "plan" | "host">): Set<Cidr> {
  const { network, self } = plan;
  const pairs = [meshAddress(network, self.index), clientLinkAddress(network, self.index), gatewayLinkAddress(network, self.index)];
  return new Set([...pairs.map(({ v4 }) => hostCidr(v4)), ...(hasV6(host) ? pairs.map(({ v6 }) => hostCidr(v6)) : [])]);
}

/** Some hosts boot with IPv6 off: then nothing of ours is written for it. */
export function hasV6(host: Pick<DesiredInput["host"], "ipv6">): boolean {
  return host.ipv6 !== false;
}
