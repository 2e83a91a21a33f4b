/** Where peers may dial a node, best first. Candidates are hints: an agent keeps one when a handshake proves it. */
import type { PeerPlan } from "../model/plan.ts";
import type { Endpoint, IpAddress } from "../model/scalars.ts";
import type { NodeFacts } from "../model/wire.ts";
import { joinEndpoint, parseIp, splitEndpoint } from "../net/ip.ts";
import { hasAddress, prefixSet, union, type PrefixSet } from "../net/prefix-set.ts";
import { SPECIAL_RANGES } from "./context.ts";
import { sameItems } from "./memo.ts";

export const MAX_ENDPOINTS = 6;

/** Places left for private addresses when there are more public ones than fit. */
const PRIVATE_PLACES = 2;

/** RFC 1918, RFC 6598 (carrier NAT), RFC 4193: reachable inside a site only. */
const PRIVATE_RANGES = prefixSet(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]);

export interface RankedEndpoints {
  readonly endpoints: readonly Endpoint[];
  /** Nobody outside its site can dial it. */
  readonly behindNat: boolean;
  /** Bit i is set where `endpoints[i]` is only the node's own word: the controller saw it elsewhere, and no admin said so. */
  readonly unproven: number;
}

export function isPrivateAddress(address: string): boolean {
  return hasAddress(PRIVATE_RANGES, parseIp(address));
}

/**
 * Ranks: set by an admin, given by the operator of the machine, own public addresses, the address that the controller saw,
 * own private addresses. `overlay` holds the ranges that can never be underlay.
 */
export function rankEndpoints(admin: readonly Endpoint[], facts: NodeFacts | undefined, meshPort: number, overlay: PrefixSet): RankedEndpoints {
  const impossible = union(SPECIAL_RANGES, overlay);
  const usable = (endpoints: readonly Endpoint[]): Candidate[] => endpoints.flatMap((text) => candidate(text, impossible));
  const manual = [...usable(admin), ...usable(facts?.manualEndpoints ?? [])];
  const own = usable(facts?.endpoints ?? []);
  const ownPublic = own.filter(({ address }) => !isPrivateAddress(address));
  const ownPrivate = own.filter(({ address }) => isPrivateAddress(address));
  const seen = seenCandidate(facts?.seen, meshPort, impossible);
  const seenIsOwn = seen !== undefined && own.some(({ address }) => address === seen.address);
  const seenOutside = seen === undefined || seenIsOwn ? [] : [seen];
  const first = distinct([...manual, ...ownPublic, ...seenOutside.filter(({ address }) => !isPrivateAddress(address))]);
  const last = distinct([...seenOutside.filter(({ address }) => isPrivateAddress(address)), ...ownPrivate]).filter((text) => !first.includes(text));
  const places = MAX_ENDPOINTS - Math.min(PRIVATE_PLACES, last.length);
  const endpoints = [...first.slice(0, places), ...last].slice(0, MAX_ENDPOINTS);
  const known = new Set(usable(admin).map(({ text }) => text));
  return {
    endpoints,
    behindNat: seenOutside.length > 0 && manual.length === 0 && ownPublic.length === 0,
    unproven: maskOf(endpoints, (text) => !known.has(text) && splitEndpoint(text).address !== seen?.address),
  };
}

/** A public endpoint that a node claims although it is another's (I11). */
export interface TakenEndpoint {
  readonly endpoint: Endpoint;
  readonly owner: string;
}

/** A node's endpoints without those that are another's. */
export interface OwnEndpoints extends RankedEndpoints {
  readonly taken: readonly TakenEndpoint[];
}

/**
 * A public address and port belong to one node: to the one that the controller saw come from there (or an admin gave it to),
 * else to the one that was made first. Private addresses mean another machine in every site. Same order as `nodes`.
 * @param nodes with the time at which each was made
 */
export function resolveEndpoints(
  nodes: readonly { readonly name: string; readonly created: number; readonly ranked: RankedEndpoints }[],
): OwnEndpoints[] {
  const owners = new Map<Endpoint, { name: string; proven: boolean; created: number }>();
  for (const { name, created, ranked } of nodes) {
    ranked.endpoints.forEach((endpoint, i) => {
      const claim = { name, proven: !isUnproven(ranked.unproven, i), created };
      const owner = owners.get(endpoint);
      if (owner === undefined || before(claim, owner)) owners.set(endpoint, claim);
    });
  }
  return nodes.map(({ name, ranked }) => {
    const lost = (text: Endpoint, i: number): boolean =>
      isUnproven(ranked.unproven, i) && owners.get(text)?.name !== name && !isPrivateAddress(splitEndpoint(text).address);
    const gone = ranked.endpoints.filter(lost);
    if (gone.length === 0) return { ...ranked, taken: [] };
    const kept = ranked.endpoints.filter((text) => !gone.includes(text));
    const unproven = new Set(ranked.endpoints.filter((_, i) => isUnproven(ranked.unproven, i)));
    return {
      endpoints: kept,
      behindNat: ranked.behindNat,
      unproven: maskOf(kept, (text) => unproven.has(text)),
      taken: gone.map((endpoint) => ({ endpoint, owner: owners.get(endpoint)?.name ?? "" })),
    };
  });
}

/** Whether both say the same. Asked for every node at every join: comparing texts of a thousand nodes took a tenth of a round. */
export function sameOwn(a: OwnEndpoints, b: OwnEndpoints): boolean {
  const sameTaken =
    a.taken.length === b.taken.length && a.taken.every(({ endpoint, owner }, i) => endpoint === b.taken[i]?.endpoint && owner === b.taken[i].owner);
  return sameTaken && a.behindNat === b.behindNat && a.unproven === b.unproven && sameItems(a.endpoints, b.endpoints);
}

function before(a: { name: string; proven: boolean; created: number }, b: { name: string; proven: boolean; created: number }): boolean {
  if (a.proven !== b.proven) return a.proven;
  return a.created < b.created || (a.created === b.created && a.name < b.name);
}

export function isUnproven(mask: number | undefined, i: number): boolean {
  return (((mask ?? 0) >> i) & 1) === 1;
}

function maskOf(endpoints: readonly Endpoint[], unproven: (text: Endpoint) => boolean): number {
  return endpoints.reduce((mask, text, i) => (unproven(text) ? mask | (1 << i) : mask), 0);
}

/** Whether two nodes have a way to each other: one of them can be dialled, or they share a site. */
export function canReach(a: Pick<PeerPlan, "s" | "n">, b: Pick<PeerPlan, "s" | "n">): boolean {
  return a.s === b.s || a.n !== 1 || b.n !== 1;
}

interface Candidate {
  readonly text: Endpoint;
  readonly address: IpAddress;
}

/** The candidate in canonical text; nothing for an address that no peer can dial. */
function candidate(text: string, impossible: PrefixSet): Candidate[] {
  try {
    const { address, port } = splitEndpoint(text);
    return hasAddress(impossible, parseIp(address)) ? [] : [{ text: joinEndpoint(address, port) as Endpoint, address }];
  } catch {
    return [];
  }
}

function seenCandidate(seen: IpAddress | undefined, port: number, impossible: PrefixSet): Candidate | undefined {
  return seen === undefined ? undefined : candidate(joinEndpoint(seen, port), impossible)[0];
}

function distinct(candidates: readonly Candidate[]): Endpoint[] {
  return [...new Set(candidates.map(({ text }) => text))];
}
