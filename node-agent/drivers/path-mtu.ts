/** Probes of a path's MTU: pings that must not be divided, and what the kernel has learned by itself. */
import { splitEndpoint } from "../../mesh/net/ip.ts";
import { hex } from "../../mesh/kernel/layout.ts";
import type { Endpoint, IpAddress } from "../../mesh/model/scalars.ts";
import { standBy } from "./exec.ts";
import { ipJson } from "./ip.ts";

/** IPv4 and ICMP header. */
const HEADERS = 28;

type PingUndivided = (address: IpAddress, bytes: number, tries: number, signal: AbortSignal) => Promise<boolean>;

/** With a shell of its own: a ping waits for more than a second, and nobody else shall. */
export function createPingUndivided(): PingUndivided {
  const ask = standBy();
  return async (address, bytes, tries, signal) => {
    const size = ["-M", "do", "-s", String(bytes - HEADERS)];
    const { ok } = await ask("ping", ["-n", "-q", "-c", String(tries), "-i", "0.2", "-W", "1", ...size, address], signal);
    return ok;
  };
}

/** The way of WireGuard's own packets, which carry its mark. */
export async function learnedMtu(endpoint: Endpoint, mark: number): Promise<number | undefined> {
  const { address } = splitEndpoint(endpoint);
  const [row] = await ipJson<{ metrics?: readonly { readonly mtu?: number }[] }>(["route", "get", address, "mark", hex(mark)]);
  return row?.metrics?.find(({ mtu }) => mtu !== undefined)?.mtu;
}
