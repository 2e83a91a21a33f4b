/**
 * Marks (DATAPLANE §2, §4): which flows go back the way they came, which stay on their link. nft 1.0.6 cannot merge two marks in one
 * expression, so there is one rule per value; only the bits of our mask are ever written.
 */
import type { PathId } from "../model/plan.ts";
import { familyOf } from "../net/ip.ts";
import { GATEWAY_INTERFACE, hex, linkInterface, MARK_OWN_LAN, MARK_RETURN, MARK_UNDERLAY, marksOf, MESH_INTERFACE } from "./layout.ts";
import { keptLan, openLinks, overlayAddresses, type OpenLink } from "./pairs.ts";
import { linkHalves, v6Ranges } from "./protection.ts";
import type { DesiredInput } from "./types.ts";
import { isGateway } from "./wireguard.ts";

export const NOT_OURS_IN = 'iifname != "ism*" iifname != "lo"';

export const FAMILIES = [
  ["ip", 4],
  ["ip6", 6],
] as const;

/** Prerouting. */
export function inboundMarks(input: DesiredInput): string[] {
  const write = writer(input);
  const open = openLinks(input);
  const rules = open.flatMap((link) => begunBeyond(input, link));
  if (isGateway(input)) rules.push(`iifname "${GATEWAY_INTERFACE}" ct direction original ${write.below(MARK_RETURN)} ${write.ct(MARK_RETURN)}`);
  // For flows that are translated afterwards (Docker's published ports): their replies are routed before they are translated back.
  rules.push(`${NOT_OURS_IN} ct direction original ${write.unset} fib daddr type local ${write.ct(MARK_UNDERLAY)}`);
  rules.push(...toOwnNodes(input, open), ...lanToOverlay(input, open));
  const outside = `iifname != { ${[MESH_INTERFACE, ...linkNumbers(input).map(linkInterface)].map((name) => `"${name}"`).join(", ")} }`;
  // What comes in by a link has arrived; whatever else belongs to its flow goes out by it, whichever end began.
  return [...rules, ...restoreMarks(input, open, outside)];
}

/** What this node itself says. */
export function outboundMarks(input: DesiredInput): string[] {
  // An error about a packet of the flow is none of its packets: it may go to the other end.
  return [...restoreMarks(input, openLinks(input), "ct state { new, established }"), ...ownLanToOthers(input)];
}

/** The way back of what came in, the way on of what is pinned to a link. */
function restoreMarks(input: DesiredInput, open: readonly OpenLink[], bothWays: string): string[] {
  const write = writer(input);
  const back = isGateway(input) ? [MARK_RETURN, MARK_UNDERLAY] : [MARK_UNDERLAY];
  const isOpen = new Set(open.map(({ k }) => k));
  return [
    ...back.map((value) => `ct direction reply ${write.is(value)} ${write.meta(value)}`),
    ...linkNumbers(input).map((k) => `${isOpen.has(k) ? bothWays : "ct direction original"} ${write.is(k)} ${write.meta(k)}`),
  ];
}

/**
 * A flow that begins at the other end of a link belongs to it; one that now comes by another gateway of its LAN, to that one's, and one that
 * came by `ismgw0` while the link was no pairwise one, to the link.
 * Probes and state messages do not: they judge their link.
 */
function begunBeyond(input: DesiredInput, { k }: OpenLink): string[] {
  const write = writer(input);
  const { clients, gateways } = v6Ranges(input.plan);
  const halves = linkHalves(input.plan);
  const iif = `iifname "${linkInterface(k)}"`;
  const elsewhere = { ip: `{ ${halves.clients}, ${halves.gateways} }`, ip6: `{ ${clients}, ${gateways} }` };
  return FAMILIES.flatMap(([ip, family]) => [
    `${iif} ct state new ${ip} saddr != @s${family}_${k} drop`,
    `${iif} ct direction original ${ip} daddr != ${elsewhere[ip]} ${write.below(MARK_RETURN + 1)} ${write.ct(k)}`,
  ]);
}

/** What comes from other sites for a node of this one goes over its link: on `ism0` it lets in nobody but its peers themselves. */
function toOwnNodes(input: DesiredInput, open: readonly OpenLink[]): string[] {
  const id: PathId = `site/${input.plan.self.site}`;
  const pairs = open.flatMap(({ k, paired }) => (paired ? [`"${linkInterface(k)}"`] : []));
  if (!input.plan.serves.has(id) || !input.plan.paths.has(id) || pairs.length === 0) return [];
  const write = writer(input);
  return FAMILIES.map(([ip, family]) => `iifname { ${pairs.join(", ")} } ${ip} daddr @d${family}_${id} ${write.meta(MARK_RETURN)}`);
}

/** Machines of a LAN that keep their addresses reach other nodes over their links: on `ism0` nobody lets them in. */
function lanToOverlay(input: DesiredInput, open: readonly OpenLink[]): string[] {
  const own = keptLan(input.plan);
  if (own === undefined) return [];
  const write = writer(input);
  const from = (ip: string, family: number): string => `${NOT_OURS_IN} ${ip} saddr @d${family}_${own} ${ip} daddr`;
  const rules = FAMILIES.map(([ip, family]) => `${from(ip, family)} @far${family}_site ${write.meta(MARK_RETURN)}`);
  for (const { k, peer, paired } of open) {
    const addresses = overlayAddresses(input.plan, peer);
    for (const [ip, family] of FAMILIES) {
      const reached = addresses.filter((cidr) => familyOf(cidr) === family);
      if (paired && reached.length > 0) rules.push(`${from(ip, family)} { ${reached.join(", ")} } ${write.meta(k)}`);
    }
  }
  return rules;
}

/** A gateway that is asked at its LAN address through its site's other gateway. */
function ownLanToOthers(input: DesiredInput): string[] {
  const own = keptLan(input.plan);
  if (own === undefined) return [];
  const write = writer(input);
  const free = write.oneOf([0, MARK_UNDERLAY]);
  return FAMILIES.map(([ip, family]) => `${free} ${ip} saddr @d${family}_${own} ${ip} daddr @pair${family}_site ${write.meta(MARK_OWN_LAN)}`);
}

/** A flow belongs to the link that carries it; one whose link died and that went elsewhere stays there. */
export function pinFlows(input: DesiredInput): string[] {
  const write = writer(input);
  const { v4, v6 } = rangeText(input);
  // Probes and state messages judge a link: pinned to the link that stood in for it, they would judge that one for ever.
  const own = [`ip daddr ${v4} accept`, `ip6 daddr ${v6} accept`];
  return own.concat(linkNumbers(input).map((k) => `oifname "${linkInterface(k)}" ct direction original ${write.below(MARK_RETURN)} ${write.ct(k)}`));
}

/** Flows of clients, as a match: by `ismgw0` or by a pairwise link. */
export function fromClients(input: DesiredInput): string {
  return writer(input).oneOf([MARK_RETURN, ...openLinks(input).flatMap(({ k, paired }) => (paired ? [k] : []))]);
}

export function rangeText({ plan }: DesiredInput): { v4: string; v6: string } {
  return { v4: `{ ${plan.network.overlay.v4}, ${plan.network.links.v4} }`, v6: plan.network.overlay.v6 };
}

function linkNumbers(input: DesiredInput): number[] {
  return [...input.links].flatMap(([name, k]) => (input.plan.peers.has(name) ? [k] : [])).sort((a, b) => a - b);
}

interface MarkWriter {
  readonly unset: string;
  is(value: number): string;
  oneOf(values: readonly number[]): string;
  below(value: number): string;
  ct(value: number): string;
  meta(value: number): string;
}

function writer({ plan }: DesiredInput): MarkWriter {
  const marks = marksOf(plan.network);
  const masked = `ct mark and ${hex(marks.mask)}`;
  const is = (value: number): string => `${masked} == ${hex(marks.bits(value))}`;
  return {
    unset: `${masked} == 0`,
    is,
    oneOf: (values) => (values.length === 1 ? is(values[0]!) : `${masked} { ${values.map((value) => hex(marks.bits(value))).join(", ")} }`),
    below: (value) => `${masked} < ${hex(marks.bits(value))}`,
    ct: (value) => `ct mark set ct mark and ${hex(marks.others)} or ${hex(marks.bits(value))}`,
    meta: (value) => `meta mark set meta mark and ${hex(marks.others)} or ${hex(marks.bits(value))}`,
  };
}
