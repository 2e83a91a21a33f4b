/** WireGuard interfaces (DATAPLANE §1): the mesh, the gateway's side of links, and one client link per gateway. */
import type { PeerPlan } from "../model/plan.ts";
import type { Cidr, Endpoint, NodeName } from "../model/scalars.ts";
import { hostCidr } from "../net/ip.ts";
import { clientLinkAddress, meshAddress, type AddressPair } from "../net/overlay.ts";
import { hasV6 } from "./addresses.ts";
import { serves } from "./claims.ts";
import { GATEWAY_INTERFACE, linkInterface, MARK_WIREGUARD, marksOf, MESH_INTERFACE } from "./layout.ts";
import { isMeshPeer } from "./topology.ts";
import type { DesiredInput, WgInterface, WgPeer } from "./types.ts";

const KEEPALIVE = 25;
const EVERYWHERE = ["0.0.0.0/0", "::/0"] as readonly string[] as readonly Cidr[];

export function desiredWireguard(input: DesiredInput): Map<string, WgInterface> {
  const { plan } = input;
  const interfaces = new Map<string, WgInterface>();
  const put = (name: string, listenPort: number, peers: readonly WgPeer[], mtu = overlayMtu(input)): void => {
    const sorted = [...peers].sort((a, b) => (a.publicKey < b.publicKey ? -1 : 1));
    interfaces.set(name, {
      name,
      listenPort,
      fwmark: marksOf(plan.network).bits(MARK_WIREGUARD),
      mtu,
      publicKey: input.publicKey,
      peers: new Map(sorted.map((one) => [one.publicKey, one])),
      up: true,
    });
  };

  const others = [...plan.peers].filter(([name, one]) => name !== plan.self.name && isMeshPeer(plan, one));
  put(
    MESH_INTERFACE,
    plan.network.ports.mesh,
    others.map(([name, one]) => meshPeer(input, one, input.dial.get(name)?.mesh)),
  );
  if (isGateway(input)) put(GATEWAY_INTERFACE, plan.network.ports.gateway, clientPeers(input));
  for (const [name, k] of [...input.links].sort(([, a], [, b]) => a - b)) {
    const gateway = plan.peers.get(name);
    if (gateway !== undefined)
      put(
        linkInterface(k),
        plan.network.ports.links + k,
        [peer(gateway, EVERYWHERE, KEEPALIVE, input.dial.get(name)?.gateway)],
        deviceMtu(input, name, gateway),
      );
  }
  return interfaces;
}

/** A gateway of some path, or a node that clients may use: it has `ismgw0` and forwards. */
export function isGateway({ plan }: Pick<DesiredInput, "plan">): boolean {
  return plan.clients.size > 0 || plan.serves.size > 0 || [...plan.paths.keys()].some((id) => serves(plan, id));
}

/** The network's MTU, but never more than the underlay carries. */
export function overlayMtu({ plan, host }: Pick<DesiredInput, "plan" | "host">): number {
  return Math.min(plan.network.mtu ?? host.overlayMtu, host.overlayMtu);
}

/** What gets through to a gateway. Everything that leaves by its link follows: TCP's segments, the clamp, what routers are told. */
export function linkMtu(input: Pick<DesiredInput, "plan" | "host" | "pathMtu">, gateway: NodeName): number {
  return Math.min(overlayMtu(input), input.pathMtu?.get(gateway) ?? Infinity);
}

/** A gateway that is no peer of `ism0` is measured by its link: with the MTU found before, nothing larger could be asked for. */
function deviceMtu(input: DesiredInput, gateway: NodeName, peer: PeerPlan): number {
  return input.measuring === gateway && !isMeshPeer(input.plan, peer) ? overlayMtu(input) : linkMtu(input, gateway);
}

/** Below this the kernel has no IPv6 on a device (RFC 8200 §5). */
export const LEAST_V6_MTU = 1280;

export function linkCarriesV6(input: Pick<DesiredInput, "plan" | "host" | "pathMtu">, gateway: NodeName): boolean {
  return hasV6(input.host) && linkMtu(input, gateway) >= LEAST_V6_MTU;
}

/** What only this node may send from: its mesh and client link addresses and the prefixes granted to it. */
export function clientSources(input: Pick<DesiredInput, "plan">, client: PeerPlan): Cidr[] {
  const { network } = input.plan;
  return [...pair(meshAddress(network, client.i)), ...pair(clientLinkAddress(network, client.i)), ...(client.a ?? [])];
}

function meshPeer(input: DesiredInput, one: PeerPlan, endpoint: Endpoint | undefined): WgPeer {
  return peer(one, [...pair(meshAddress(input.plan.network, one.i)), ...(one.a ?? [])], KEEPALIVE, endpoint);
}

function clientPeers(input: DesiredInput): WgPeer[] {
  const { plan } = input;
  // Keepalive makes a gateway that comes back from a reboot open the sessions itself: its clients would go on sending into the
  // old ones for seconds (DATAPLANE §5). One behind NAT holds its mappings open with it, too.
  return [...plan.clients].flatMap(([name, { pair: paired }]) => {
    const one = plan.peers.get(name);
    return one === undefined || name === plan.self.name || paired === 1
      ? []
      : [peer(one, clientSources(input, one), KEEPALIVE, input.dial.get(name)?.client)];
  });
}

function peer(one: PeerPlan, allowedIps: readonly Cidr[], keepalive: number, endpoint: Endpoint | undefined): WgPeer {
  return { publicKey: one.k, allowedIps: [...new Set(allowedIps)].sort(), keepalive, ...(endpoint === undefined ? {} : { endpoint }) };
}

function pair({ v4, v6 }: AddressPair): Cidr[] {
  return [hostCidr(v4), hostCidr(v6)];
}
