/** What someone else changed where the kernel tells nobody: only a look finds out (I10). */
import type { KernelState, WgDevice, WgPeer } from "./types.ts";

/** WireGuard has no events, and of sysctls netlink tells a few only. */
export interface SilentState {
  readonly wireguard: ReadonlyMap<string, WgDevice>;
  readonly sysctls: ReadonlyMap<string, string>;
}

/**
 * Names what is not as desired, empty when all is. Everything is compared that stays as it was written: endpoints, handshakes
 * and counters move by themselves, MTU and state of an interface are told by netlink.
 */
export function silentDrift(desired: Pick<KernelState, keyof SilentState>, seen: SilentState): string {
  const differs: string[] = [];
  for (const [name, value] of desired.sysctls) if (seen.sysctls.get(name) !== value) differs.push(name);
  for (const [name, link] of desired.wireguard) {
    const now = seen.wireguard.get(name);
    if (now === undefined) {
      differs.push(name);
      continue;
    }
    if (now.mute) continue;
    for (const what of ["publicKey", "listenPort", "fwmark"] as const) if (now[what] !== link[what]) differs.push(`${name} ${what}`);
    for (const peer of link.peers.values()) if (!samePeer(peer, now.peers.get(peer.publicKey))) differs.push(`${name} ${peer.publicKey}`);
    for (const key of now.peers.keys()) if (!link.peers.has(key)) differs.push(`${name} ${key}`);
  }
  return differs.join(", ");
}

function samePeer(desired: WgPeer, seen: WgPeer | undefined): boolean {
  return (
    seen !== undefined &&
    seen.keepalive === desired.keepalive &&
    seen.presharedKey === undefined &&
    seen.allowedIps.length === desired.allowedIps.length &&
    // Both are sorted.
    seen.allowedIps.every((cidr, i) => cidr === desired.allowedIps[i])
  );
}
