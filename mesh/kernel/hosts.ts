/** Names of the nodes in the hosts file: `<node>.<network>` and `<node>`. */
import type { IpAddress } from "../model/scalars.ts";
import { meshAddress } from "../net/overlay.ts";
import { hasV6 } from "./addresses.ts";
import type { DesiredInput } from "./types.ts";

/** Names that mean the machine itself; no node may take them over. */
const RESERVED = new Set(["localhost", "ip6-localhost", "ip6-loopback", "broadcasthost"]);

export function desiredHosts({ plan, host }: Pick<DesiredInput, "plan" | "host">): Map<string, readonly IpAddress[]> {
  const hosts = new Map<string, readonly IpAddress[]>();
  for (const [name, peer] of [...plan.peers].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const { v4, v6 } = meshAddress(plan.network, peer.i);
    const addresses = hasV6(host) ? [v4, v6] : [v4];
    hosts.set(`${name}.${plan.network.name}`, addresses);
    if (!RESERVED.has(name)) hosts.set(name, addresses);
  }
  return hosts;
}
