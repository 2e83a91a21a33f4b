/** The way of a packet from this node, from the same data that the kernel state is made of, and why (I7). Pure. */
import { sitesOutOfReach } from "../mesh/elect/beyond.ts";
import type { LanChoice } from "../mesh/elect/lan.ts";
import type { Choice, LinkView, Reason } from "../mesh/elect/types.ts";
import { REASONS } from "../mesh/elect/types.ts";
import { claimsOf } from "../mesh/kernel/desired.ts";
import { GATEWAY_INTERFACE, linkInterface, MESH_INTERFACE } from "../mesh/kernel/layout.ts";
import { PrefixMap } from "../mesh/kernel/prefixes.ts";
import { overlayRanges, protections, specialKind } from "../mesh/kernel/protection.ts";
import { deviceOf, isPaired } from "../mesh/kernel/topology.ts";
import { type DesiredInput, OVERLAY_TABLE, type Refusal } from "../mesh/kernel/types.ts";
import type { Candidate, Explanation, Hop } from "../mesh/model/answers.ts";
import { betweenSites, intoSite, MAIN_TABLE, type PathId, type Plan, type SnatPlan } from "../mesh/model/plan.ts";
import type { IpAddress, NodeName } from "../mesh/model/scalars.ts";
import { contains, familyOf, formatCidr, hostCidr, parseCidr, parseIp, splitEndpoint } from "../mesh/net/ip.ts";
import { clientLinkAddress, gatewayLinkAddress, meshAddress } from "../mesh/net/overlay.ts";
import { isPrivate } from "./dial.ts";

export interface ExplainInput {
  readonly input: DesiredInput;
  readonly refusals: readonly Refusal[];
  readonly linkViews: ReadonlyMap<NodeName, LinkView>;
  /** By LAN route. */
  readonly lans: ReadonlyMap<string, LanChoice>;
  readonly destination: IpAddress;
  /** What `ip route get` said; absent where it was not asked. */
  readonly kernel?: { readonly ok: boolean; readonly text: string };
  /** From the agent's monotonic clock to ms since 1970. */
  readonly wall: (monotonic: number) => number;
  /** On that clock: what quiet times that are still running are measured from. */
  readonly now: number;
}

/**
 * What the kernel should say: leaves by one of these interfaces, or not at all. `dropped`: or enters WireGuard there, which
 * drops what no peer holds (ENOKEY).
 */
type Expected = { readonly devs: readonly string[] } | { readonly none: true; readonly dropped?: readonly string[] } | undefined;

export function explain(question: ExplainInput): Explanation {
  const { input, destination } = question;
  const [explanation, expected] = decide(question);
  const whole: Explanation = { node: input.plan.self.name, destination, ...explanation };
  return question.kernel === undefined ? whole : { ...whole, kernel: compare(question.kernel, expected) };
}

type Part = Omit<Explanation, "node" | "destination">;

function decide(question: ExplainInput): [Part, Expected] {
  const { input, destination } = question;
  const { plan, host } = input;
  const at = plan.self.name;
  const target = parseCidr(hostCidr(destination));
  const net = plan.network;

  const own = [meshAddress, clientLinkAddress, gatewayLinkAddress].flatMap((of) => Object.values(of(net, plan.self.index)));
  if (own.includes(destination) || host.underlay.some(({ address }) => address === destination)) {
    return [{ verdict: "Local", hops: [{ at, what: "this node's own address", dev: "lo" }], candidates: [] }, { devs: ["lo"] }];
  }
  const special = specialKind(destination);
  if (special === "loopback" || parseIp(destination).value === 0n)
    return [{ verdict: "Local", hops: [{ at, what: "this node itself", dev: "lo" }], candidates: [] }, { devs: ["lo"] }];
  if (special !== undefined)
    return [{ verdict: "Protected", hops: [{ at, what: `${special}: on its own networks only, never routed` }], candidates: [] }, undefined];
  for (const [node, peer] of plan.peers) {
    const near = deviceOf(plan, input.links, node);
    if (near !== undefined && Object.values(meshAddress(net, peer.i)).includes(destination)) {
      const what = near === MESH_INTERFACE ? `into the mesh, encrypted for ${node}` : overLink(plan, node);
      const hops: Hop[] = [
        { at, what, dev: near, table: OVERLAY_TABLE },
        { at: node, what: "the node's own mesh address" },
      ];
      const self = plan.peers.get(at);
      const apart = self?.n === 1 && peer.n === 1 && self.s !== peer.s;
      const why = apart
        ? { reason: "BothBehindNat", message: `${at} and ${node} are behind NAT in different sites: neither can be dialled, so nothing gets through` }
        : {};
      return [{ verdict: "Mesh", owner: `peer/${node}`, ...why, hops, candidates: [] }, { devs: [near] }];
    }
    const k = input.links.get(node);
    if (k !== undefined && Object.values(gatewayLinkAddress(net, peer.i)).includes(destination)) {
      const dev = linkInterface(k);
      return [
        { verdict: "Mesh", owner: `peer/${node}`, hops: [{ at, what: `over the gateway link to ${node}`, dev }], candidates: [] },
        { devs: [dev] },
      ];
    }
    if (plan.clients.has(node) && Object.values(clientLinkAddress(net, peer.i)).includes(destination)) {
      const dev = k !== undefined && isPaired(plan, node) ? linkInterface(k) : GATEWAY_INTERFACE;
      const hops: Hop[] = [{ at, what: `back over the link of the client ${node}`, dev }];
      return [{ verdict: "Mesh", owner: `peer/${node}`, hops, candidates: [] }, { devs: [dev] }];
    }
  }
  const claims = claimsOf(input);
  const overlay = new PrefixMap<string>();
  for (const [cidr, id] of claims.overlay) overlay.add(parseCidr(cidr), id);
  const ours = overlay.covering(target);
  const between = ours !== undefined && betweenSites(ours.value);
  if (!between && overlayRanges(plan).some((range) => contains(parseCidr(range), target))) {
    return [
      {
        verdict: "Unreachable",
        message: "an address of the overlay that no node holds",
        hops: [{ at, what: "refused: no node holds it", table: OVERLAY_TABLE }],
        candidates: [],
      },
      { none: true, dropped: [MESH_INTERFACE, GATEWAY_INTERFACE] },
    ];
  }

  const throws = new PrefixMap<true>();
  for (const cidr of claims.throws) throws.add(parseCidr(cidr), true);
  const thrown = throws.covering(target);
  if (ours !== undefined && (thrown === undefined || thrown.cidr.bits < ours.cidr.bits)) return steered(question, ours.value, formatCidr(ours.cidr));
  return direct(question, ours?.value);
}

/** Steered into the overlay: by a path over a gateway link, or to the node that advertises the prefix. */
function steered({ input, linkViews, wall, now, destination }: ExplainInput, owner: string, prefix: string): [Part, Expected] {
  const { plan, links, choices } = input;
  const at = plan.self.name;
  if (owner.startsWith("peer/")) {
    const node = owner.slice(5) as NodeName;
    const dev = deviceOf(plan, links, node) ?? MESH_INTERFACE;
    return [
      {
        verdict: "Mesh",
        owner,
        prefix,
        message: `${node} advertises it`,
        hops: [
          { at, what: dev === MESH_INTERFACE ? `into the mesh, encrypted for ${node}` : overLink(plan, node), dev, table: OVERLAY_TABLE },
          { at: node, what: "forwarded from there" },
        ],
        candidates: [],
      },
      { devs: [dev] },
    ];
  }
  const path = plan.paths.get(owner as PathId);
  const choice = choices.get(owner as PathId);
  const candidates = candidatesOf(path?.gateways.map(({ node }) => node) ?? [], choice, linkViews, wall, now);
  const because = choice === undefined ? {} : { reason: choice.reason, message: REASONS[choice.reason satisfies Reason], since: wall(choice.since) };
  const active = choice?.active ?? [];
  const devs = active.flatMap((node) => (links.has(node) ? [linkInterface(links.get(node) ?? 0)] : []));
  if (devs.length === 0) {
    if (path?.onNoGateway === "Underlay") {
      return [
        {
          verdict: "Underlay",
          owner,
          prefix,
          ...because,
          hops: [{ at, what: "no gateway; the intent lets it leave by the underlay" }],
          candidates,
        },
        undefined,
      ];
    }
    return [
      {
        verdict: "Unreachable",
        owner,
        prefix,
        ...because,
        hops: [{ at, what: "refused: no gateway; it must not leave by the underlay", table: OVERLAY_TABLE }],
        candidates,
      },
      { none: true },
    ];
  }
  const hops: Hop[] = [
    {
      at,
      what: devs.length === 1 ? overLink(plan, active[0]) : `spread over the gateway links to ${active.join(", ")}`,
      dev: devs.join(", "),
      table: OVERLAY_TABLE,
    },
    ...active.slice(0, 1).map((node) => ({ at: node, what: exitText(owner) })),
  ];
  const snat = path?.snat;
  const translation = snat === undefined ? {} : { snat: snat.address ?? snat.type };
  const exit = betweenSites(owner) || intoSite(owner) ? undefined : exitOf(snat, active, plan, familyOf(destination));
  return [{ verdict: "Gateway", owner, prefix, ...because, hops, candidates, ...translation, ...(exit === undefined ? {} : { exit }) }, { devs }];
}

/** What the destination sees: the address that the intent names, or with masquerading the one at which the only gateway in use is reached. */
function exitOf(snat: SnatPlan | undefined, active: readonly NodeName[], plan: Plan, family: 4 | 6): IpAddress | undefined {
  if (snat?.type === "Address") return snat.address !== undefined && familyOf(snat.address) === family ? snat.address : undefined;
  const [only, more] = active;
  if (snat?.type !== "Masquerade" || only === undefined || more !== undefined) return undefined;
  const addresses = plan.peers.get(only)?.e.map((endpoint) => splitEndpoint(endpoint).address) ?? [];
  return addresses.find((address) => familyOf(address) === family && !isPrivate(address));
}

function overLink(plan: Plan, node: NodeName | undefined): string {
  const paired = node !== undefined && isPaired(plan, node);
  return paired ? `over the pairwise link to ${node}, which is this node's client too` : `over the gateway link to ${node}`;
}

function exitText(owner: string): string {
  if (owner.startsWith("site/")) return "sent on to the node by its link";
  if (owner.startsWith("via/")) return "forwarded to the gateways of the other site";
  if (owner.startsWith("subnet/")) return `forwarded into the LAN of site ${owner.slice("subnet/".length)}`;
  return owner.startsWith("route/") ? "forwarded by its own routes" : "forwarded and sent on by its own uplink";
}

/** Not steered into the overlay: a LAN route of ours, a protected destination, or nothing of ours at all. */
function direct({ input, refusals, lans, destination, wall }: ExplainInput, overruled: string | undefined): [Part, Expected] {
  const { plan, host } = input;
  const at = plan.self.name;
  const target = parseCidr(hostCidr(destination));
  const claims = claimsOf(input);
  const lan = new PrefixMap<string>();
  for (const [id, { destinations }] of claims.lan)
    if (plan.lanRoutes.get(id)?.table === MAIN_TABLE) for (const cidr of destinations) lan.add(parseCidr(cidr), id);
  const main = new PrefixMap<DesiredInput["host"]["mainRoutes"][number]>();
  for (const route of [...host.mainRoutes].toSorted((a, b) => a.metric - b.metric)) main.add(parseCidr(route.dst), route);
  const byLan = lan.covering(target);
  const byMain = main.covering(target);
  if (byLan !== undefined && (byMain === undefined || byMain.cidr.bits <= byLan.cidr.bits)) {
    const route = claims.lan.get(byLan.value);
    const via = route?.gateways ?? [];
    const prefix = formatCidr(byLan.cidr);
    const choice = lans.get(byLan.value);
    return [
      {
        verdict: "Lan",
        owner: byLan.value,
        prefix,
        ...(choice === undefined ? {} : { reason: choice.reason, message: REASONS[choice.reason], since: wall(choice.since) }),
        hops: [{ at, what: `through the router ${via.join(", ")}`, ...(via[0] === undefined ? {} : { via: via[0] }), table: MAIN_TABLE }],
        candidates: lanCandidates(plan.lanRoutes.get(byLan.value)?.gateways ?? [], via, choice, wall),
      },
      undefined,
    ];
  }
  const refusal = refusals.find((one) => contains(parseCidr(one.destination), target));
  const hop: Hop = {
    at,
    what: byMain === undefined ? "no route" : "by this node's own routes",
    ...(byMain?.value.dev === undefined ? {} : { dev: byMain.value.dev }),
    ...(byMain?.value.via === undefined ? {} : { via: byMain.value.via }),
    table: MAIN_TABLE,
  };
  const expected: Expected = byMain?.value.dev === undefined ? undefined : { devs: [byMain.value.dev] };
  if (overruled !== undefined) {
    const shield = protections(plan, host).over(target);
    const because = shield === undefined ? "a more specific route of this node's own" : `${shield.why}, which no intent may steer`;
    return [
      {
        verdict: "Protected",
        owner: overruled,
        message: `${because}: it keeps the way that it has without Isthmus`,
        hops: [hop],
        candidates: [],
      },
      expected,
    ];
  }
  if (refusal !== undefined) {
    const verdict = refusal.why === "Protected" ? "Protected" : "Underlay";
    return [
      {
        verdict,
        owner: refusal.id,
        prefix: refusal.destination,
        reason: refusal.why,
        message: `${refusal.id} names it, but it is not routed: ${refusal.why}: ${refusal.detail}`,
        hops: [hop],
        candidates: [],
      },
      expected,
    ];
  }
  return [{ verdict: byMain === undefined ? "Unreachable" : "Underlay", hops: [hop], candidates: [] }, expected];
}

function candidatesOf(
  gateways: readonly NodeName[],
  choice: Choice | undefined,
  views: ReadonlyMap<NodeName, LinkView>,
  wall: (at: number) => number,
  now: number,
): Candidate[] {
  return gateways.map((node) => {
    const view = views.get(node);
    const active = choice?.active.includes(node) ?? false;
    const rejected = choice?.rejected.find((one) => one.node === node);
    const rtt = view?.srttMs === undefined ? "" : `, ${view.srttMs.toFixed(1)} ms`;
    const quiet =
      view?.holdDownUntil === undefined ? "" : `, answers again and counts as up in ${(Math.max(0, view.holdDownUntil - now) / 1000).toFixed(1)} s`;
    const lost = view === undefined ? [] : sitesOutOfReach(view);
    const beyond = lost.length === 0 ? "" : `, does not reach site ${lost.join(", ")}`;
    const message = view === undefined ? undefined : `link ${view.verdict}${rtt}, gateway ${view.gateway}${quiet}${beyond}`;
    const since = active ? choice?.since : (rejected?.since ?? view?.since);
    return {
      node,
      active,
      why: active ? (choice?.reason ?? "Preferred") : (rejected?.why ?? "Unknown"),
      ...(message === undefined ? {} : { message }),
      ...(since === undefined ? {} : { since: wall(since) }),
    };
  });
}

function lanCandidates(
  gateways: readonly IpAddress[],
  via: readonly IpAddress[],
  choice: LanChoice | undefined,
  wall: (at: number) => number,
): Candidate[] {
  return gateways.map((gateway) => {
    const active = via.includes(gateway);
    const rejected = choice?.rejected.find((one) => one.gateway === gateway);
    const since = active ? choice?.since : rejected?.since;
    return {
      node: gateway,
      active,
      why: active ? (choice?.reason ?? "Preferred") : (rejected?.why ?? "LowerPreference"),
      ...(since === undefined ? {} : { since: wall(since) }),
    };
  });
}

function compare(kernel: { readonly ok: boolean; readonly text: string }, expected: Expected): NonNullable<Explanation["kernel"]> {
  const text = kernel.text.trim().split("\n")[0] ?? "";
  if (expected === undefined) return { text, agrees: true };
  const dev = /\bdev (\S+)/.exec(text)?.[1];
  if ("none" in expected) {
    const agrees = !kernel.ok || text.startsWith("unreachable") || (dev !== undefined && expected.dropped?.includes(dev) === true);
    return agrees ? { text, agrees } : { text, agrees, note: "the kernel has a way where the plan wants none" };
  }
  const local = text.startsWith("local");
  const agrees = kernel.ok && ((dev !== undefined && expected.devs.includes(dev)) || (local && expected.devs.includes("lo")));
  return agrees
    ? { text, agrees }
    : { text, agrees, note: `the plan wants ${expected.devs.join(" or ")}, the kernel uses ${kernel.ok ? (dev ?? "something else") : "nothing"}` };
}
