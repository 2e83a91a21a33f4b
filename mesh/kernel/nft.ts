/**
 * The nft table `inet isthmus`: echo responder, marks, forward policy, leak guard, translation. nft 1.0.6 cannot merge
 * two marks in one expression, so there is one rule per value; only the bits of our mask are ever written.
 */
import type { PathId } from "../model/plan.ts";
import type { Cidr, NodeName } from "../model/scalars.ts";
import { familyOf } from "../net/ip.ts";
import { gatewayLinkAddress, meshAddress } from "../net/overlay.ts";
import { serves } from "./claims.ts";
import { GATEWAY_INTERFACE, hex, linkInterface, MARK_RETURN, MARK_UNDERLAY, marksOf } from "./layout.ts";
import { disjoint, parsed } from "./prefixes.ts";
import type { DesiredInput, NftTable } from "./types.ts";
import { clientSources, isGateway, overlayMtu } from "./wireguard.ts";

const NOT_OURS_IN = 'iifname != "ism*" iifname != "lo"';
/** Containers and virtual machines of this node may use what the node uses; machines of its networks may not. */
const CONTAINER_BRIDGES = ["br-*", "cali*", "cilium*", "cni*", "docker*", "flannel*", "lxc*", "lxdbr*", "podman*", "veth*", "virbr*"];
const NOT_OURS_OUT = 'oifname != "ism*" oifname != "lo"';

/** A path that this node serves, with who may use it and whereto. */
interface Served {
  readonly id: PathId;
  readonly clients: readonly Cidr[];
  readonly destinations: readonly Cidr[];
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
    return [{ id, clients, destinations: [...path.destinations, ...(plan.serves.get(id)?.retired ?? [])] }];
  });
  const widest = (one: Served): number => Math.min(129, ...one.destinations.map(parsed).map(({ family, bits }) => (family === 4 ? bits * 4 : bits)));
  return found.sort((a, b) => widest(b) - widest(a) || (a.id < b.id ? -1 : 1));
}

function sourcesOf(input: DesiredInput, name: NodeName): Cidr[] {
  const peer = input.plan.peers.get(name);
  return peer === undefined ? [] : clientSources(input, peer);
}

/** `c4_<path>` clients, `d4_<path>` destinations, `lan4_site` the own site's subnets, `own4_node` what this node advertises; the same with 6. */
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
  for (const { id, clients, destinations } of served) {
    put("c", id, clients);
    put("d", id, destinations);
  }
  return new Map([...sets].sort(([a], [b]) => (a < b ? -1 : 1)));
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
    `iifname "${GATEWAY_INTERFACE}" ip daddr ${v4} udp dport ${port} ip daddr set ip saddr ip saddr set ${v4} notrack accept`,
    `iifname "${GATEWAY_INTERFACE}" ip6 daddr ${v6} udp dport ${port} ip6 daddr set ip6 saddr ip6 saddr set ${v6} notrack accept`,
  ];
}

function inboundMarks(input: DesiredInput): string[] {
  const write = writer(input);
  const rules: string[] = [];
  if (isGateway(input)) rules.push(`iifname "${GATEWAY_INTERFACE}" ct direction original ${write.unset} ${write.ct(MARK_RETURN)}`);
  // For flows that are translated afterwards (Docker's published ports): their replies are routed before they are translated back.
  rules.push(`${NOT_OURS_IN} ct direction original ${write.unset} fib daddr type local ${write.ct(MARK_UNDERLAY)}`);
  return [...rules, ...restoreMarks(input)];
}

function outboundMarks(input: DesiredInput): string[] {
  return restoreMarks(input);
}

/** The way back of what came in, the way on of what is pinned to a link. */
function restoreMarks(input: DesiredInput): string[] {
  const write = writer(input);
  const back = isGateway(input) ? [MARK_RETURN, MARK_UNDERLAY] : [MARK_UNDERLAY];
  return [
    ...back.map((value) => `ct direction reply ${write.is(value)} ${write.meta(value)}`),
    ...linkNumbers(input).map((k) => `ct direction original ${write.is(k)} ${write.meta(k)}`),
  ];
}

/** A flow belongs to the link that carries it; one whose link died and that went elsewhere stays there. */
function pinFlows(input: DesiredInput): string[] {
  const write = writer(input);
  const { v4, v6 } = rangeText(input);
  // Probes and state messages judge a link: pinned to the link that stood in for it, they would judge that one for ever.
  const own = [`ip daddr ${v4} accept`, `ip6 daddr ${v6} accept`];
  return own.concat(linkNumbers(input).map((k) => `oifname "${linkInterface(k)}" ct direction original ${write.below(MARK_RETURN)} ${write.ct(k)}`));
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
    rules.push(`iifname "${GATEWAY_INTERFACE}" oifname "${GATEWAY_INTERFACE}" ct state untracked udp dport ${port} accept`);
  }
  for (const side of ["iifname", "oifname"]) {
    rules.push(`${side} "ism*" ct direction reply ct state { established, related } accept`, `${side} "ism*" ct state related accept`);
  }
  for (const { id } of served) {
    for (const [ip, family] of FAMILIES)
      rules.push(`iifname "${GATEWAY_INTERFACE}" oifname != "ism*" ${ip} saddr @c${family}_${id} ${ip} daddr @d${family}_${id} accept`);
  }
  for (const [ip, family] of FAMILIES) {
    rules.push(`iifname "ism*" oifname != "ism*" ${ip} daddr @own${family}_node accept`);
    rules.push(`iifname != "ism*" oifname "ism*" ${ip} saddr @own${family}_node accept`);
    rules.push(`iifname != "ism*" oifname "ism*" ${ip} saddr @lan${family}_site accept`);
  }
  for (const name of CONTAINER_BRIDGES) rules.push(`iifname "${name}" oifname "ism*" accept`);
  return [...rules, 'iifname "ism*" drop', 'oifname "ism*" drop'];
}

function translate(input: DesiredInput, served: readonly Served[]): string[] {
  const write = writer(input);
  const { v4, v6 } = meshAddress(input.plan.network, input.plan.self.index);
  const rules = [`oifname "ism*" ip saddr @lan4_site snat ip to ${v4}`, `oifname "ism*" ip6 saddr @lan6_site snat ip6 to ${v6}`];
  for (const { id } of served) {
    const snat = input.plan.serves.get(id)?.snat;
    for (const [ip, family] of FAMILIES) {
      const fixed = snat?.type === "Address" && snat.address !== undefined && familyOf(snat.address) === family ? snat.address : undefined;
      const verdict = snat?.type === "None" ? "accept" : fixed === undefined ? "masquerade" : `snat ${ip} to ${fixed}`;
      rules.push(`oifname != "ism*" ${write.is(MARK_RETURN)} ${ip} saddr @c${family}_${id} ${ip} daddr @d${family}_${id} ${verdict}`);
    }
  }
  return rules;
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

const FAMILIES = [
  ["ip", 4],
  ["ip6", 6],
] as const;

function rangeText({ plan }: DesiredInput): { v4: string; v6: string } {
  return { v4: `{ ${plan.network.overlay.v4}, ${plan.network.links.v4} }`, v6: plan.network.overlay.v6 };
}

function linkNumbers(input: DesiredInput): number[] {
  return [...input.links].flatMap(([name, k]) => (input.plan.peers.has(name) ? [k] : [])).sort((a, b) => a - b);
}

interface MarkWriter {
  readonly unset: string;
  is(value: number): string;
  below(value: number): string;
  ct(value: number): string;
  meta(value: number): string;
}

function writer({ plan }: DesiredInput): MarkWriter {
  const marks = marksOf(plan.network);
  const masked = `ct mark and ${hex(marks.mask)}`;
  return {
    unset: `${masked} == 0`,
    is: (value) => `${masked} == ${hex(marks.bits(value))}`,
    below: (value) => `${masked} < ${hex(marks.bits(value))}`,
    ct: (value) => `ct mark set ct mark and ${hex(marks.others)} or ${hex(marks.bits(value))}`,
    meta: (value) => `meta mark set meta mark and ${hex(marks.others)} or ${hex(marks.bits(value))}`,
  };
}
