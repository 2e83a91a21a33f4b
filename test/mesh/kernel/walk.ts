/** A packet on its way through desired states: which nodes it passes, and who refuses it. Only what lies between nodes of the overlay. */
import type { KernelState, WgPeer } from "../../../mesh/kernel/types.ts";
import { contains, parseCidr } from "../../../mesh/net/ip.ts";

export interface Walked {
  /** Nodes that it passed, the sender first. */
  readonly path: readonly string[];
  /** Why it ended there without having arrived. */
  readonly refused?: string;
}

interface Here {
  readonly node: string;
  /** Interface by which it came; nothing at the sender. */
  readonly by?: string;
}

/** @param states desired kernel state by node @param names node by public key */
export function walk(states: ReadonlyMap<string, KernelState>, names: ReadonlyMap<string, string>, from: string, src: string, dst: string): Walked {
  let here: Here = { node: from };
  const path = [from];
  while (path.length <= 8) {
    const state = states.get(here.node)!;
    if (state.addresses.has(`${dst}/32` as never)) return { path };
    const out = deviceFor(state, dst, here.by);
    const refusal = out === undefined ? "no route" : here.by === undefined ? undefined : forwardFault(state, here.by, out, src, dst);
    if (out === undefined || refusal !== undefined) return { path, refused: `${here.node}: ${refusal}` };
    const peer = [...state.wireguard.get(out)!.peers.values()].find((one) => covers(one, dst));
    if (peer === undefined) return { path, refused: `${here.node}: no peer on ${out}` };
    const next = names.get(peer.publicKey)!;
    const key = state.wireguard.get(out)!.publicKey;
    const by = entry(states.get(next)!, key, state.wireguard.get(out)!.listenPort, peer, out);
    path.push(next);
    if (by === undefined) return { path, refused: `${next}: ${here.node} is no peer` };
    const fault = entryFault(states.get(next)!, by, key, src);
    if (fault !== undefined) return { path, refused: `${next}: ${fault}` };
    here = { node: next, by };
  }
  return { path, refused: "a loop" };
}

const covers = (peer: WgPeer, address: string): boolean => peer.allowedIps.some((cidr) => holds([cidr], address));
const holds = (cidrs: Iterable<string>, address: string): boolean =>
  [...cidrs].some((cidr) => {
    const [range, host] = [parseCidr(cidr), parseCidr(`${address}/32`)];
    return range.family === host.family && contains(range, host);
  });
const inSet = (state: KernelState, set: string, address: string): boolean => holds(state.nft!.sets.get(set) ?? [], address);

/** Packets by a pairwise link for nodes of the own site take the table of the return mark; all others the overlay table. */
function deviceFor(state: KernelState, dst: string, by: string | undefined): string | undefined {
  const marked = state.nft!.body.split("\n").some((line) => {
    const rule = /^ *iifname \{([^}]*)\} ip daddr @(\S+) meta mark set meta mark and 0x80ffffff or 0x40000000$/.exec(line);
    return rule !== null && rule[1]!.includes(`"${by}"`) && inSet(state, rule[2]!, dst);
  });
  if (marked) return "ismgw0";
  const routes = [...state.routes.values()].filter((route) => route.table === 157 && route.type === "unicast" && holds([route.dst], dst));
  const best = routes.toSorted((a, b) => parseCidr(b.dst).bits - parseCidr(a.dst).bits)[0];
  const [member = 0] = state.nexthops.get(best?.nexthopId ?? 0)?.group ?? [];
  return best?.dev ?? state.nexthops.get(member)?.dev;
}

/** The rules of the forward chain that name both interfaces. */
function forwardFault(state: KernelState, by: string, out: string, src: string, dst: string): string | undefined {
  const names = (text: string): string[] => [...text.matchAll(/"([^"]+)"/g)].map(([, name]) => name!);
  const allowed = state.nft!.body.split("\n").some((line) => {
    const rule = /^ *iifname (\S+|\{[^}]*\}) oifname (\S+|\{[^}]*\}) ip saddr @(\S+) ip daddr @(\S+) accept$/.exec(line);
    return (
      rule !== null && names(rule[1]!).includes(by) && names(rule[2]!).includes(out) && inSet(state, rule[3]!, src) && inSet(state, rule[4]!, dst)
    );
  });
  return allowed ? undefined : `does not forward from ${by} to ${out}`;
}

/** The interface at the other end: its own of the same kind, or the one whose port is dialed. */
function entry(state: KernelState, key: string, port: number, peer: WgPeer, out: string): string | undefined {
  const dialed = Number(peer.endpoint?.split(":").at(-1) ?? 0);
  const all = [...state.wireguard.values()].filter(({ peers }) => peers.has(key as never));
  if (out === "ismgw0") return all.find(({ peers }) => peers.get(key as never)?.endpoint?.endsWith(`:${port}`))?.name;
  return all.find(({ listenPort }) => listenPort === dialed)?.name;
}

function entryFault(state: KernelState, by: string, key: string, src: string): string | undefined {
  const peer = state.wireguard.get(by)!.peers.get(key as never)!;
  if (!covers(peer, src)) return `${by} does not allow ${src}`;
  const k = /^ismg(\d+)$/.exec(by)?.[1];
  const guarded = state.nft!.body.includes(`iifname "${by}" ct state new ip saddr != @s4_${k} drop`);
  return guarded && !inSet(state, `s4_${k}`, src) ? `${src} may not begin anything over ${by}` : undefined;
}
