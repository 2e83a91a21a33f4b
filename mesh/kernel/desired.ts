/** The kernel state that a plan asks of this node. Pure; the same input in any order gives the same bytes. */
import { desiredAddresses, hasV6 } from "./addresses.ts";
import { claimsOf } from "./claims.ts";
import { desiredHosts } from "./hosts.ts";
import { desiredNexthops } from "./nexthops.ts";
import { desiredNft } from "./nft.ts";
import { desiredRoutes } from "./routes.ts";
import { desiredRules } from "./rules.ts";
import { desiredSysctls } from "./sysctls.ts";
import type { Desired, DesiredInput } from "./types.ts";
import { desiredWireguard } from "./wireguard.ts";

export { claimsOf } from "./claims.ts";
export { pathSlots } from "./nexthops.ts";

/** What is refused, and why, stands in `refusals`; everything else of the plan is in `state`. */
export function desiredKernel(input: DesiredInput): Desired {
  const claims = claimsOf(input);
  const groups = desiredNexthops(input);
  const wireguard = desiredWireguard(input);
  return {
    state: {
      wireguard,
      addresses: desiredAddresses(input),
      nexthops: groups.nexthops,
      routes: desiredRoutes(input, claims, groups),
      rules: desiredRules(input),
      nft: desiredNft(input),
      sysctls: desiredSysctls(input, wireguard),
      hosts: desiredHosts(input),
    },
    refusals: hasV6(input.host) ? claims.refusals : claims.refusals.filter(({ destination }) => !destination.includes(":")),
  };
}
