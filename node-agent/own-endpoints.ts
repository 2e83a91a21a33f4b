/** This node's own endpoint candidates: addresses at which others may dial it, without those that only look like it. */
import { networkInterfaces } from "node:os";
import { canonicalIp, contains, type Family, familyOf, joinEndpoint, parseCidr, parseIp, width } from "../mesh/net/ip.ts";
import type { Endpoint } from "../mesh/model/scalars.ts";
import { isPrivate } from "./dial.ts";

/** Interfaces of container runtimes, overlays and virtual machines: their addresses mean nothing to other machines. */
const NOT_UNDERLAY =
  /^(lo$|docker|br-|veth|cni|flannel|cilium|cali|tun|tap|ism|virbr|lxc|lxd|kube|weave|podman|vxlan|geneve|wg|tailscale|zt|wt\d|nodelocaldns|dummy|antrea|ovn|ovs)/;

export interface InterfaceAddress {
  readonly ifname: string;
  readonly address: string;
}

/** Ranked: public before private, v4 before v6, then by name and address. At most 16. */
export function ownCandidates(found: readonly InterfaceAddress[], port: number, overlay: readonly string[]): Endpoint[] {
  const ranges = overlay.map((cidr) => parseCidr(cidr));
  const usable = found.flatMap(({ ifname, address }) => {
    const canonical = canonicalIp(address);
    if (NOT_UNDERLAY.test(ifname) || !canonical.ok || isSpecial(canonical.text)) return [];
    const ip = parseIp(canonical.text);
    if (ranges.some((range) => contains(range, { ...ip, bits: width(ip.family) }))) return [];
    return [{ ifname, address: canonical.text, rank: (isPrivate(canonical.text) ? 2 : 0) + (ip.family === 6 ? 1 : 0) }];
  });
  usable.sort((a, b) => a.rank - b.rank || (a.ifname < b.ifname ? -1 : a.ifname > b.ifname ? 1 : 0) || (a.address < b.address ? -1 : 1));
  return [...new Set(usable.map(({ address }) => joinEndpoint(address, port) as Endpoint))].slice(0, 16);
}

/** Addresses of all interfaces, from the system. */
export function interfaceAddresses(): InterfaceAddress[] {
  return Object.entries(networkInterfaces()).flatMap(([ifname, list]) =>
    (list ?? []).filter((one) => !one.internal).map((one) => ({ ifname, address: one.address.split("%")[0] ?? one.address })),
  );
}

/** Whether an interface that is up has the address; `::ffff:` in front of an IPv4 address counts for nothing. */
export function hasAddress(address: string): boolean {
  const plain = address.replace(/^::ffff:(?=\d+\.)/, "").split("%")[0];
  return Object.values(networkInterfaces()).some((list) => list?.some((one) => one.address.split("%")[0] === plain) === true);
}

/** Loopback, link-local, multicast, unspecified, and v4 addresses of this-network. */
function isSpecial(address: string): boolean {
  return /^(0\.|127\.|169\.254\.|2(2[4-9]|[3-5]\d)\.|::1?$|fe[89ab][0-9a-f]:|ff)/.test(address);
}

/** Families of which this machine has an address that others could reach. */
export function underlayFamilies(found: readonly InterfaceAddress[]): ReadonlySet<Family> {
  return new Set(found.filter(({ ifname, address }) => !NOT_UNDERLAY.test(ifname) && !isSpecial(address)).map(({ address }) => familyOf(address)));
}
