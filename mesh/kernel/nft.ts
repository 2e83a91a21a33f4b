/** The nft table `inet isthmus`: echo responder, marks (`nft-marks.ts`), forward policy, leak guard, translation. */
import { betweenSites, type PathId } from "../model/plan.ts";
import type { Cidr, NodeName } from "../model/scalars.ts";
import { familyOf } from "../net/ip.ts";
import { gatewayLinkAddress, meshAddress } from "../net/overlay.ts";
import { serves } from "./claims.ts";
import { GATEWAY_INTERFACE, linkInterface } from "./layout.ts";
import { FAMILIES, fromClients, inboundMarks, NOT_OURS_IN, outboundMarks, pinFlows, rangeText } from "./nft-marks.ts";
import { behind, clientInterfaces, keptLan, openLinks, overlayAddresses } from "./pairs.ts";
import { disjoint, parsed } from "./prefixes.ts";
import { isPaired } from "./topology.ts";
import type { DesiredInput, NftTable } from "./types.ts";
import { clientSources, isGateway, overlayMtu } from "./wireguard.ts";

/** Containers and virtual machines of this node may use what the node uses; machines of its networks may not. */
const CONTAINER_BRIDGES = ["br-*", "cali*", "cilium*", "cni*", "docker*", "flannel*", "lxc*", "lxdbr*", "podman*", "veth*", "virbr*"];
const NOT_OURS_OUT = 'oifname != "ism*" oifname != "lo"';

/** A path that this node serves, with who may use it and whereto. */
interface Served {
  readonly id: PathId;
  readonly clients: readonly Cidr[];
  readonly destinations: readonly Cidr[];
  /** Those to which new flows go; all of them where that is undefined. */
  readonly begun: readonly Cidr[] | undefined;
}

export function desiredNft(input: DesiredInput): NftTable {
  const served = servedPaths(input);
  const sets = desiredSets(input, served);
  const chains = [
    chain("early", "filter", "prerouting", "raw", [...antiSpoof(input), ...echo(input)]),
    chain("inbound", "filter", "prerouting", "mangle", inboundMarks(input)),
    chain("outbound", "route", "output", "mangle", outboundMarks(input)),
    chain("local", "filter", "input", "filter", localPorts(input)),
    chain("transit", "filter", "forward", "filter", transit(input, served)),
    chain("pin", "filter", "postrouting", "mangle", pinFlows(input)),
    chain("translate", "nat", "postrouting", "srcnat", translate(input, served)),
    chain("guard", "filter", "postrouting", "srcnat + 10", leakGuard(input)),
  ];
  const declarations = [...sets.keys()].map((name) => `  set ${name} { type ${name.includes("6_") ? "ipv6_addr" : "ipv4_addr"}; flags interval; }`);
  return { body: [...declarations, ...chains].join("\n"), sets };
}

function chain(name: string, type: string, hook: string, priority: string, rules: readonly string[]): string {
  return [
    `  chain ${name} {`,
    `    type ${type} hook ${hook} priority ${priority}; policy accept;`,
    ...rules.map((rule) => `    ${rule}`),
    "  }",
  ].join("\n");
}

/** Served paths, those with the narrowest destinations first, so that the more specific path decides about translation. */
function servedPaths(input: DesiredInput): Served[] {
  const { plan } = input;
  const found = [...plan.paths].flatMap(([id, path]): Served[] => {
    if (!serves(plan, id) || !plan.serves.has(id)) return [];
    const clients = [...plan.clients].flatMap(([name, client]) => (client.paths.includes(id) ? sourcesOf(input, name) : []));
    const { retired = [], settled = [] } = plan.serves.get(id) ?? {};
    const begun = settled.length === 0 ? undefined : [...path.destinations, ...retired.filter((cidr) => !settled.includes(cidr))];
    return [{ id, clients, destinations: [...path.destinations, ...retired], begun }];
  });
  const widest = (one: Served): number => Math.min(129, ...one.destinations.map(parsed).map(({ family, bits }) => (family === 4 ? bits * 4 : bits)));
  return found.sort((a, b) => widest(b) - widest(a) || (a.id < b.id ? -1 : 1));
}

function sourcesOf(input: DesiredInput, name: NodeName): Cidr[] {
  const peer = input.plan.peers.get(name);
  if (peer === undefined) return [];
  return [...clientSources(input, peer), ...(isPaired(input.plan, name) ? behind(input.plan, name, peer) : [])];
}

/**
 * `c4_<path>` clients, `d4_<path>` destinations, `n4_<path>` those of them to which new flows go where that is not all, `s4_<k>` where flows that begin beyond link k may come from, `lan4_site` the own
 * site's subnets, `own4_node` what this node advertises; where the site's LAN keeps its addresses, `far4_site` what it reaches over
 * `ismgw0`, `pair4_site` what it reaches over pairwise links; the same with 6.
 */
function desiredSets(input: DesiredInput, served: readonly Served[]): Map<string, readonly string[]> {
  const sets = new Map<string, readonly string[]>();
  const put = (letter: string, name: string, cidrs: readonly Cidr[]): void => {
    const all = disjoint(cidrs);
    for (const family of [4, 6] as const)
      sets.set(
        `${letter}${family}_${name}`,
        all.filter((cidr) => familyOf(cidr) === family),
      );
  };
  put("lan", "site", carriesLan(input) ? input.plan.self.subnets : []);
  put("own", "node", input.plan.self.advertise);
  for (const { k, sources } of openLinks(input)) put("s", String(k), sources);
  if (keptLan(input.plan) !== undefined) {
    put("far", "site", farFromLan(input));
    put("pair", "site", pairedWithLan(input));
  }
  for (const { id, clients, destinations, begun } of served) {
    put("c", id, clients);
    put("d", id, destinations);
    if (begun !== undefined) put("n", id, begun);
  }
  return new Map([...sets].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Overlay addresses of clients that a LAN reaches over `ismgw0`: all of other sites but pairs. */
function farFromLan({ plan }: DesiredInput): Cidr[] {
  return [...plan.clients].flatMap(([name, client]) => {
    const peer = plan.peers.get(name);
    const reached = peer !== undefined && client.pair === undefined && client.paths.includes(`subnet/${plan.self.site}`);
    return reached ? overlayAddresses(plan, peer) : [];
  });
}

/** What a LAN reaches over pairwise links: the other end's overlay addresses, and the subnets and nodes behind it. */
function pairedWithLan(input: DesiredInput): Cidr[] {
  const { plan } = input;
  const to = (id: PathId): readonly Cidr[] => plan.paths.get(id)?.destinations ?? [];
  return openLinks(input).flatMap(({ paired, peer }) =>
    paired ? [...overlayAddresses(plan, peer), ...to(`subnet/${peer.s}`), ...to(`site/${peer.s}`)] : [],
  );
}

/** Whether machines of the own site's LANs may use this node as their way into the overlay. */
function carriesLan({ plan }: DesiredInput): boolean {
  return serves(plan, `subnet/${plan.self.site}`);
}

/** Overlay addresses speak to overlay addresses over our interfaces only. */
function antiSpoof(input: DesiredInput): string[] {
  const { v4, v6 } = rangeText(input);
  return [`${NOT_OURS_IN} ip saddr ${v4} ip daddr ${v4} drop`, `${NOT_OURS_IN} ip6 saddr ${v6} ip6 daddr ${v6} drop`];
}

/**
 * A probe (link address to link address, one port on both ends) is turned round here and goes back through the forward
 * hook, so that its answer says that this node forwards, not that a process lives (DATAPLANE §3).
 */
function echo(input: DesiredInput): string[] {
  if (!isGateway(input)) return [];
  const { v4, v6 } = gatewayLinkAddress(input.plan.network, input.plan.self.index);
  const port = input.plan.network.ports.echo;
  return [
    `${fromClient(input)} ip daddr ${v4} udp dport ${port} ip daddr set ip saddr ip saddr set ${v4} notrack accept`,
    `${fromClient(input)} ip6 daddr ${v6} udp dport ${port} ip6 daddr set ip6 saddr ip6 saddr set ${v6} notrack accept`,
  ];
}

function fromClient(input: DesiredInput): string {
  const names = clientInterfaces(input).map((name) => `"${name}"`);
  return names.length === 1 ? `iifname ${names[0]}` : `iifname { ${names.join(", ")} }`;
}

/** Probes and state messages are believed from links only. */
function localPorts(input: DesiredInput): string[] {
  const { echo: echoPort, state } = input.plan.network.ports;
  const guarded = [echoPort, state].sort((a, b) => a - b);
  return [
    `iifname "ism*" udp dport { ${guarded.join(", ")} } accept`,
    ...addressGuards(input).map((match) => `${NOT_OURS_IN} ${match} udp dport { ${guarded.join(", ")} } drop`),
  ];
}

function addressGuards(input: DesiredInput): string[] {
  const { v4, v6 } = rangeText(input);
  return [`ip daddr ${v4}`, `ip6 daddr ${v6}`];
}

/** What this node forwards between the overlay and the rest: what its plan says, and replies. */
function transit(input: DesiredInput, served: readonly Served[]): string[] {
  const mtu = overlayMtu(input);
  const syn = "tcp flags & (syn | rst) == syn";
  const rules = [
    `oifname "ism*" ${syn} tcp option maxseg size set rt mtu`,
    `iifname "ism*" meta nfproto ipv4 ${syn} tcp option maxseg size set ${mtu - 40}`,
    `iifname "ism*" meta nfproto ipv6 ${syn} tcp option maxseg size set ${mtu - 60}`,
  ];
  if (isGateway(input)) {
    const { echo: port } = input.plan.network.ports;
    for (const name of clientInterfaces(input)) rules.push(`iifname "${name}" oifname "${name}" ct state untracked udp dport ${port} accept`);
  }
  for (const side of ["iifname", "oifname"]) {
    rules.push(`${side} "ism*" ct direction reply ct state { established, related } accept`, `${side} "ism*" ct state related accept`);
  }
  for (const one of served) {
    const way = wayOf(input, one.id);
    if (way === undefined) continue;
    for (const [ip, family] of FAMILIES) {
      const from = `${way} ${ip} saddr @c${family}_${one.id} ${ip} daddr`;
      rules.push(`${from} @${begunSet(one, family)} accept`);
      // Confirmed: an earlier packet of the flow was let through. A flow that nobody answers is never "established".
      if (one.begun !== undefined) rules.push(`${from} @d${family}_${one.id} ct status confirmed accept`);
    }
  }
  for (const [ip, family] of FAMILIES) {
    rules.push(`iifname "ism*" oifname != "ism*" ${ip} daddr @own${family}_node accept`);
    rules.push(`iifname != "ism*" oifname "ism*" ${ip} saddr @own${family}_node accept`);
    rules.push(`iifname != "ism*" oifname "ism*" ${ip} saddr @lan${family}_site accept`);
  }
  for (const name of CONTAINER_BRIDGES) rules.push(`iifname "${name}" oifname "ism*" accept`);
  return [...rules, 'iifname "ism*" drop', 'oifname "ism*" drop'];
}

/** Where a path's new flows may go to. */
function begunSet({ id, begun }: Served, family: 4 | 6): string {
  return `${begun === undefined ? "d" : "n"}${family}_${id}`;
}

/** Where a served path's packets come in and go out; nowhere while there is no link for it. */
function wayOf(input: DesiredInput, id: PathId): string | undefined {
  const pairs = openLinks(input).flatMap(({ k, paired }) => (paired ? [`"${linkInterface(k)}"`] : []));
  if (id.startsWith("via/")) return pairs.length === 0 ? undefined : `iifname "${GATEWAY_INTERFACE}" oifname { ${pairs.join(", ")} }`;
  if (id.startsWith("site/")) return pairs.length === 0 ? undefined : `iifname { ${pairs.join(", ")} } oifname "${GATEWAY_INTERFACE}"`;
  return `${fromClient(input)} oifname != "ism*"`;
}

function translate(input: DesiredInput, served: readonly Served[]): string[] {
  const { v4, v6 } = meshAddress(input.plan.network, input.plan.self.index);
  const rules = [
    ...untranslatedLan(input),
    `oifname "ism*" ip saddr @lan4_site snat ip to ${v4}`,
    `oifname "ism*" ip6 saddr @lan6_site snat ip6 to ${v6}`,
  ];
  for (const one of served.filter(({ id }) => !betweenSites(id))) {
    const { id } = one;
    const snat = input.plan.serves.get(id)?.snat;
    for (const [ip, family] of FAMILIES) {
      const fixed = snat?.type === "Address" && snat.address !== undefined && familyOf(snat.address) === family ? snat.address : undefined;
      const verdict = snat?.type === "None" ? "accept" : fixed === undefined ? "masquerade" : `snat ${ip} to ${fixed}`;
      rules.push(`oifname != "ism*" ${fromClients(input)} ${ip} saddr @c${family}_${id} ${ip} daddr @${begunSet(one, family)} ${verdict}`);
    }
  }
  return rules;
}

/** Where a site's LAN keeps its addresses, and the other end of the link lets them in. */
function untranslatedLan(input: DesiredInput): string[] {
  const own = keptLan(input.plan);
  if (own === undefined) return [];
  return FAMILIES.flatMap(([ip, family]) => [
    `oifname "${GATEWAY_INTERFACE}" ${ip} saddr @d${family}_${own} accept`,
    ...openLinks(input).flatMap(({ k, paired }) =>
      paired ? [`oifname "${linkInterface(k)}" ${ip} saddr @d${family}_${own} ${ip} daddr @pair${family}_site accept`] : [],
    ),
  ]);
}

/** I4: nothing for an overlay address, and nothing that this node says as an overlay address, leaves by the underlay. */
function leakGuard(input: DesiredInput): string[] {
  const { v4, v6 } = rangeText(input);
  return [
    `${NOT_OURS_OUT} ip daddr ${v4} drop`,
    `${NOT_OURS_OUT} ip6 daddr ${v6} drop`,
    `${NOT_OURS_OUT} ct direction original fib saddr type local ip saddr ${v4} drop`,
    `${NOT_OURS_OUT} ct direction original fib saddr type local ip6 saddr ${v6} drop`,
  ];
}
