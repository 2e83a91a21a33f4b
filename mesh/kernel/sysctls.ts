/** Sysctls, in the order in which they must be written; the driver records the values before. */
import { hasV6 } from "./addresses.ts";
import { serves } from "./claims.ts";
import { clientInterfaces } from "./pairs.ts";
import type { DesiredInput, WgInterface } from "./types.ts";
import { isGateway } from "./wireguard.ts";

/** Dots inside interface names are written as slashes (sysctl.d(5)). */
const part = (ifname: string): string => ifname.replaceAll(".", "/");

export function desiredSysctls(input: DesiredInput, interfaces: ReadonlyMap<string, WgInterface>): Map<string, string> {
  const sysctls = new Map<string, string>();
  // Loose: a reply may come in by another link than the route back uses. The kernel takes the larger of `all` and the interface's.
  for (const name of interfaces.keys()) sysctls.set(`net.ipv4.conf.${name}.rp_filter`, "2");
  sysctls.set("net.ipv4.conf.all.src_valid_mark", "1");
  for (const name of clientInterfaces(input)) {
    if (!interfaces.has(name)) continue;
    // The echo responder sends a probe back with the gateway's own address as source, through the forwarding path.
    sysctls.set(`net.ipv4.conf.${name}.accept_local`, "1");
    sysctls.set(`net.ipv4.conf.${name}.send_redirects`, "0");
  }
  if (forwards(input)) {
    if (hasV6(input.host)) {
      // Before forwarding: without it the kernel drops the host's default route from router advertisements at once.
      for (const ifname of [...input.host.raInterfaces].sort()) sysctls.set(`net.ipv6.conf.${part(ifname)}.accept_ra`, "2");
      sysctls.set("net.ipv6.conf.all.forwarding", "1");
    }
    sysctls.set("net.ipv4.ip_forward", "1");
  }
  if (spreads(input)) {
    sysctls.set("net.ipv4.fib_multipath_hash_policy", "1");
    if (hasV6(input.host)) sysctls.set("net.ipv6.fib_multipath_hash_policy", "1");
  }
  return sysctls;
}

function forwards(input: DesiredInput): boolean {
  return isGateway(input) || input.plan.self.advertise.length > 0;
}

function spreads({ plan }: DesiredInput): boolean {
  const paths = [...plan.paths].some(([id, path]) => path.strategy === "Spread" && !serves(plan, id));
  return paths || [...plan.lanRoutes.values()].some((route) => route.strategy === "Spread");
}
