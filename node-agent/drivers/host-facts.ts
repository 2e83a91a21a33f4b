/** What the host is like: its own addresses, routes, and those it must never lose sight of (I9). */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { HostFacts } from "../../mesh/kernel/types.ts";
import { PROTOCOL } from "../../mesh/kernel/types.ts";
import type { IpAddress } from "../../mesh/model/scalars.ts";
import { formatCidr, maskTo, parseIp } from "../../mesh/net/ip.ts";
import { type Service, withServices } from "../protected-names.ts";
import { ipJson } from "./ip.ts";
import { prefixOf, type RouteRow } from "./routes.ts";

/** WireGuard's overhead over IPv6: 40 IP, 8 UDP, 32 its own. */
const WIREGUARD_OVERHEAD = 80;

interface InterfaceRow {
  readonly ifname: string;
  readonly mtu: number;
  readonly addr_info?: readonly { readonly family: string; readonly local: string; readonly prefixlen: number; readonly scope: string }[];
}

export async function observeHost(): Promise<Omit<HostFacts, "wireguard">> {
  const ipv6 = hasIpv6();
  const [interfaces, v4, v6] = await Promise.all([
    ipJson<InterfaceRow>(["address", "show"]),
    ipJson<RouteRow>(["-4", "route", "show", "table", "main"]),
    ipv6 ? ipJson<RouteRow>(["-6", "route", "show", "table", "main"]) : [],
  ]);
  const foreign = interfaces.filter(({ ifname }) => ifname !== "lo" && !ifname.startsWith("ism"));
  const mainRoutes = [...v4.flatMap((row) => mainRoute(row, 4)), ...v6.flatMap((row) => mainRoute(row, 6))];
  const sorted = mainRoutes.sort((a, b) => compareText(a.dst, b.dst) || a.metric - b.metric);
  return {
    underlay: foreign.flatMap(underlayOf),
    mainRoutes: sorted,
    protectedAddresses: protectedAddresses(),
    raInterfaces: raInterfaces(v6, foreign),
    overlayMtu: overlayMtu(foreign, sorted),
    ipv6,
  };
}

function underlayOf({ ifname, mtu, addr_info }: InterfaceRow): HostFacts["underlay"][number][] {
  return (addr_info ?? []).flatMap(({ family, local, prefixlen, scope }) => {
    if ((family !== "inet" && family !== "inet6") || (scope !== "global" && scope !== "0")) return [];
    const ip = parseIp(local);
    const prefix = formatCidr({ family: ip.family, value: maskTo(ip, prefixlen), bits: prefixlen });
    return [{ ifname, address: local as IpAddress, prefix, mtu }];
  });
}

/** Routes of others; link-local and multicast prefixes are known without them. */
function mainRoute(row: RouteRow, family: 4 | 6): HostFacts["mainRoutes"][number][] {
  if (row.protocol === String(PROTOCOL) || row.dst.startsWith("fe80:") || row.dst.startsWith("ff00:")) return [];
  const hop = row.nexthops?.[0];
  const via = row.gateway ?? hop?.gateway;
  const dev = row.dev ?? hop?.dev;
  return [
    {
      dst: prefixOf(row.dst, family),
      metric: row.metric ?? 0,
      ...(via === undefined ? {} : { via: via as IpAddress }),
      ...(dev === undefined ? {} : { dev }),
    },
  ];
}

/**
 * Interfaces that take router advertisements: those that have a route by one, and those that would take the next one. After a
 * boot the agent may be here before the first router was heard, and forwarding would make the kernel deaf to it.
 */
function raInterfaces(v6: readonly RouteRow[], interfaces: readonly InterfaceRow[]): string[] {
  const heard = v6.flatMap(({ protocol, dst, dev }) => (protocol === "9" && dst === "default" && dev !== undefined ? [dev] : []));
  const conf = (name: string, key: string): string => readText(`/proc/sys/net/ipv6/conf/${name}/${key}`).trim();
  const listening = [...new Set(interfaces.flatMap(underlayOf).map(({ ifname }) => ifname))].filter((ifname) => {
    const accept = conf(ifname, "accept_ra");
    return accept === "2" || (accept === "1" && conf(ifname, "forwarding") === "0");
  });
  return [...new Set([...heard, ...listening])].sort();
}

/** The smallest underlay that a default route uses, or of all interfaces where there is no default route. */
function overlayMtu(interfaces: readonly InterfaceRow[], routes: HostFacts["mainRoutes"]): number {
  const uplinks = new Set(routes.filter(({ dst }) => dst.endsWith("/0")).map(({ dev }) => dev));
  const chosen = uplinks.size === 0 ? interfaces : interfaces.filter(({ ifname }) => uplinks.has(ifname));
  return Math.min(...chosen.map(({ mtu }) => mtu), 9_000) - WIREGUARD_OVERHEAD;
}

function hasIpv6(): boolean {
  return existsSync("/proc/sys/net/ipv6") && ["all", "lo"].every((name) => readText(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`).trim() !== "1");
}

/** Services of clouds that stand outside the link-local range. */
const METADATA = ["168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"];

function protectedAddresses(): HostFacts["protectedAddresses"] {
  return withServices([], hostServices(), new Map());
}

/** Pools of time servers answer differently each time, while the daemon stays with what it got. */
const TIME_REST_MS = 3_600_000;

/** What this host depends on, by address or by name: resolvers, time servers, DHCP, the Kubernetes API, the cloud's metadata. */
export function hostServices(): Service[] {
  const found: Service[] = [];
  const put = (host: string | undefined, why: string): void => void (host !== undefined && found.push({ host, why }));
  const putTime = (host: string): void => void found.push({ host, why: "a time server of this node", restMs: TIME_REST_MS });
  for (const file of ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"]) {
    for (const [, address] of readText(file).matchAll(/^\s*nameserver\s+(\S+)/gm)) put(address, "a DNS resolver of this node");
  }
  const timeFiles = ["/etc/chrony/chrony.conf", "/etc/chrony.conf", "/etc/ntp.conf", "/etc/ntpsec/ntp.conf"].map(readText);
  for (const text of [...timeFiles, ...filesIn("/etc/chrony/sources.d"), ...filesIn("/etc/chrony/conf.d")]) {
    for (const host of timeServers(text)) putTime(host);
  }
  for (const text of [readText("/etc/systemd/timesyncd.conf"), ...filesIn("/etc/systemd/timesyncd.conf.d")]) {
    for (const host of timesyncServers(text)) putTime(host);
  }
  for (const text of filesIn("/run/systemd/netif/leases")) put(/^SERVER_ADDRESS=(\S+)/m.exec(text)?.[1], "the DHCP server of this node");
  for (const text of filesIn("/var/lib/dhcp"))
    for (const [, address] of text.matchAll(/dhcp-server-identifier\s+([^;\s]+)/g)) put(address, "the DHCP server of this node");
  for (const file of ["/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/kubeconfig"])
    put(kubernetesServer(readText(file)), "the Kubernetes API of this node");
  put(process.env["KUBERNETES_SERVICE_HOST"], "the Kubernetes API of this node");
  for (const address of METADATA) put(address, "the cloud's metadata service");
  return found;
}

/** Of chrony or ntpd. */
export function timeServers(text: string): string[] {
  return [...text.matchAll(/^[ \t]*(?:server|pool|peer)[ \t]+(\S+)/gm)].map(([, host]) => host ?? "");
}

/** Of systemd-timesyncd. */
export function timesyncServers(text: string): string[] {
  return [...text.matchAll(/^[ \t]*(?:Fallback)?NTP=(.*)$/gm)].flatMap(([, list]) => (list ?? "").split(/\s+/).filter((host) => host !== ""));
}

/** Of a kubeconfig: without its port. */
export function kubernetesServer(text: string): string | undefined {
  const found = /^\s*server:\s*["']?https?:\/\/(?:\[([^\]\s]+)\]|([^\s:"'/[\]]+))(?::\d+)?\/?["']?\s*$/m.exec(text);
  return found?.[1] ?? found?.[2];
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder).map((name) => readText(join(folder, name)));
  } catch {
    return [];
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
