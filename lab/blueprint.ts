/** From topology to commands, purely: the links, addresses, routes, sysctls and rules of every host and of the world between them. */
import { netnsName, WORLD } from "./names.ts";
import { type Host, type Nic, type Topology, WAN } from "./topology.ts";

/** Interface names have at most 15 characters; the host's number keeps them unique. */
export function worldInterface(topology: Topology, host: Host, nic: Nic): string {
  const plain = `${nic.segment === WAN ? "w" : "l"}-${host.name}`;
  return plain.length <= 15 ? plain : `${plain.slice(0, 10)}.${topology.hosts.indexOf(host).toString(36)}`;
}

export function bridgeName(topology: Topology, segment: string): string {
  return `br${topology.segments.indexOf(segment)}-${segment}`.slice(0, 15);
}

/**
 * `ip -batch` lines, run outside of any namespace: one veth pair per interface of the host. Hardware addresses are fixed,
 * because a machine comes back from a reboot with its old ones, and its neighbours count on that.
 */
export function linkLines(lab: string, topology: Topology, host: Host): string[] {
  const number = topology.hosts.indexOf(host);
  return host.nics.map((nic, index) => {
    const far = `name ${worldInterface(topology, host, nic)} address ${hardwareAddress(0xa0 + index, number)} netns ${netnsName(lab, WORLD)}`;
    return `link add ${far} type veth peer name ${nic.name} address ${hardwareAddress(index, number)} netns ${netnsName(lab, host.name)}`;
  });
}

/** Locally administered, unicast (the second bit of the first octet). */
function hardwareAddress(port: number, host: number): string {
  return [0x02, 0x15, 0x7a, port, host >> 8, host & 255].map((octet) => octet.toString(16).padStart(2, "0")).join(":");
}

/** `ip -batch` lines, run in the world: the far end of the host's interfaces. */
export function worldLines(topology: Topology, host: Host): string[] {
  return host.nics.flatMap((nic) => {
    const dev = worldInterface(topology, host, nic);
    if (nic.segment !== WAN) return [`link set ${dev} master ${bridgeName(topology, nic.segment)} up`];
    return [
      `addr replace ${nic.peer}/${nic.bits} dev ${dev}`,
      `link set ${dev} up`,
      ...host.prefixes.map((prefix) => `route replace ${prefix} via ${nic.address}`),
    ];
  });
}

/** Shell script that sets up the world itself; the host links come later. */
export function worldScript(topology: Topology): string {
  return script({
    sysctls: { ...ROUTER_SYSCTLS, "net/ipv6/conf/default/disable_ipv6": "1" },
    ip: ["link set lo up", ...topology.segments.flatMap((segment) => bridgeLines(bridgeName(topology, segment)))],
    nft: [
      "table inet lab {",
      "  set pairs { type ipv4_addr . ipv4_addr; flags interval; }",
      "  chain forward { type filter hook forward priority 0; ip saddr . ip daddr @pairs drop; }",
      // Who is powered off says nothing, and neither does the internet on his behalf: only silence tells.
      "  chain output { type filter hook output priority 0; icmp type destination-unreachable icmp code != frag-needed drop; }",
      "}",
      "table bridge lab {",
      "  set pairs { type ipv4_addr . ipv4_addr; flags interval; }",
      "  chain forward { type filter hook forward priority 0; ip saddr . ip daddr @pairs drop; }",
      "}",
    ],
  });
}

function bridgeLines(bridge: string): string[] {
  return [`link add ${bridge} type bridge forward_delay 0 stp_state 0`, `link set ${bridge} up`];
}

/** Shell script for inside the host's namespace. */
export function hostScript(host: Host): string {
  const router = host.role === "router";
  return script({
    sysctls: router ? ROUTER_SYSCTLS : HOST_SYSCTLS,
    ip: [
      "link set lo up",
      ...host.nics.flatMap((nic) => [`addr add ${nic.address}/${nic.bits} dev ${nic.name}`, `link set ${nic.name} up`]),
      ...(host.gateway === undefined ? [] : [`route add default via ${host.gateway}`]),
      ...host.routes.map(({ to, via }) => `route add ${to} via ${via}`),
      // An address of such a prefix is the host's own without being listed ("AnyIP").
      ...host.prefixes.map((prefix) => `route add local ${prefix} dev lo`),
    ],
    nft: router ? natTable(host.nat ?? "random") : host.prefixes.length > 0 ? echoTable() : [],
  });
}

/** The UDP echo answers by the address that it was asked at: a socket that is bound to all of them would take the host's own. */
function echoTable(): string[] {
  return ["table inet lab {", "  chain prerouting { type nat hook prerouting priority -100; fib daddr type local udp dport 7 redirect; }", "}"];
}

/**
 * A NAT router that lets in only answers. `random` draws a new port for every flow, so the port that one peer sees is of
 * no use to another (endpoint-dependent mapping and filtering, RFC 4787 §4.1, §5).
 */
function natTable(nat: "random" | "stable"): string[] {
  return [
    "table inet lab {",
    "  set pairs { type ipv4_addr . ipv4_addr; flags interval; }",
    "  chain forward {",
    "    type filter hook forward priority 0; policy drop;",
    "    ip saddr . ip daddr @pairs drop",
    '    iifname "eth1" accept',
    "    ct state established,related accept",
    "  }",
    '  chain input { type filter hook input priority 0; iifname "eth0" ct state new meta l4proto { tcp, udp } drop; }',
    `  chain postrouting { type nat hook postrouting priority 100; oifname "eth0" masquerade${nat === "random" ? " fully-random" : ""}; }`,
    "}",
  ];
}

const ROUTER_SYSCTLS = {
  "net/ipv4/ip_forward": "1",
  "net/ipv4/conf/all/rp_filter": "0",
  "net/ipv4/conf/default/rp_filter": "0",
  "net/ipv4/conf/all/send_redirects": "0",
  "net/ipv4/conf/default/send_redirects": "0",
};

/** What a Debian machine starts with; a new namespace would inherit some of these from the machine that the lab runs on. */
const HOST_SYSCTLS = {
  "net/ipv4/ip_forward": "0",
  "net/ipv6/conf/all/forwarding": "0",
  "net/ipv4/conf/all/rp_filter": "0",
  "net/ipv4/conf/default/rp_filter": "2",
};

function script(parts: {
  readonly sysctls: Readonly<Record<string, string>>;
  readonly ip: readonly string[];
  readonly nft: readonly string[];
}): string {
  const here = (command: string, lines: readonly string[]): string[] => (lines.length === 0 ? [] : [`${command} <<'END'`, ...lines, "END"]);
  return [
    "set -eu",
    ...Object.entries(parts.sysctls).map(([key, value]) => `[ ! -e /proc/sys/${key} ] || echo '${value}' >/proc/sys/${key}`),
    ...here("ip -batch -", parts.ip),
    ...here("nft -f -", parts.nft),
    "",
  ].join("\n");
}

export type Fault =
  | { readonly kind: "node"; readonly host: string }
  /** A router's WAN link is cut; any other host loses the internet hosts only. */
  | { readonly kind: "uplink"; readonly host: string }
  | { readonly kind: "link"; readonly a: string; readonly b: string }
  /** The cable is pulled out of every interface of the host. */
  | { readonly kind: "carrier"; readonly host: string }
  | { readonly kind: "agent"; readonly host: string }
  | { readonly kind: "controller"; readonly host: string }
  | { readonly kind: "wireguard"; readonly host: string; readonly interface: string };

/** One name per fault: two times the same fault is one. */
export function faultId(fault: Fault): string {
  if (fault.kind === "link") return `link-${[fault.a, fault.b].sort().join("-")}`;
  return fault.kind === "wireguard" ? `wireguard-${fault.host}-${fault.interface}` : `${fault.kind}-${fault.host}`;
}

export interface Blocks {
  /** Address pairs dropped, by namespace of the host (`WORLD` for the WAN router and switches). */
  readonly pairs: ReadonlyMap<string, readonly string[]>;
  /** Interfaces of the world that are down. */
  readonly down: ReadonlySet<string>;
}

/** What all faults together block: the level, not the edge, so that healing one fault leaves the others. */
export function blocks(topology: Topology, faults: readonly Fault[]): Blocks {
  const pairs = new Map<string, Set<string>>(
    [WORLD, ...topology.hosts.filter((host) => host.role === "router").map((host) => host.name)].map((name) => [name, new Set()]),
  );
  const down = new Set<string>();
  const host = (name: string): Host | undefined => topology.hosts.find((candidate) => candidate.name === name);
  const block = (at: string, one: string, other: string): void => {
    pairs.get(at)?.add(`${one} . ${other}`).add(`${other} . ${one}`);
  };
  for (const fault of faults) {
    switch (fault.kind) {
      case "uplink": {
        const target = host(fault.host);
        if (target === undefined) break;
        const wan = target.nics.find((nic) => nic.segment === WAN);
        if (target.role === "router" && wan !== undefined) down.add(worldInterface(topology, target, wan));
        else for (const far of topology.hosts.filter((other) => other.role === "internet")) blockHosts(topology, target, far, block);
        break;
      }
      case "link": {
        const [a, b] = [host(fault.a), host(fault.b)];
        if (a !== undefined && b !== undefined) blockHosts(topology, a, b, block);
        break;
      }
      case "carrier":
      case "node": {
        const target = host(fault.host);
        for (const nic of target?.nics ?? []) down.add(worldInterface(topology, target!, nic));
        break;
      }
      case "agent":
      case "controller":
      case "wireguard":
        break;
      default:
        fault satisfies never;
    }
  }
  return { pairs: new Map([...pairs].map(([at, list]) => [at, [...list].sort()])), down };
}

/** Every way between two hosts: over a segment that both are on, over the WAN, and at the routers that hide one of them. */
function blockHosts(topology: Topology, a: Host, b: Host, block: (at: string, one: string, other: string) => void): void {
  const routerOf = (host: Host): Host | undefined => {
    const name = topology.sites.find((site) => site.name === host.site)?.router;
    return name === undefined || name === host.name ? undefined : topology.hosts.find((other) => other.name === name);
  };
  const on = (host: Host, segment: string): string | undefined => host.nics.find((nic) => nic.segment === segment)?.address;
  const all = (host: Host, address: string): readonly string[] => [address, ...host.prefixes];
  for (const nic of a.nics) {
    const other = on(b, nic.segment);
    if (other === undefined) continue;
    for (const one of all(a, nic.address)) for (const two of all(b, other)) block(WORLD, one, two);
  }
  // Behind NAT the WAN cannot tell the host from its neighbours; its own router can.
  for (const [hidden, far] of [[a, b] as const, [b, a] as const]) {
    const router = routerOf(hidden);
    if (router === undefined || routerOf(far)?.name === router.name) continue;
    const inside = router.nics.find((nic) => nic.segment !== WAN);
    const own = inside === undefined ? undefined : on(hidden, inside.segment);
    const seen = on(far, WAN) ?? on(routerOf(far) ?? far, WAN);
    if (own !== undefined && seen !== undefined) for (const other of all(far, seen)) block(router.name, own, other);
  }
}
