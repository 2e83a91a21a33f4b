/** What nodes may advertise (I11): claims of agents take effect only inside what a site or token granted. */
import type { Cidr } from "../model/scalars.ts";
import { compareCidr, contains, parseCidr, type ParsedCidr } from "../net/ip.ts";
import { hasPrefix, prefixSet, setsOverlap, touches, type PrefixSet } from "../net/prefix-set.ts";
import { SPECIAL_RANGES, type Context, type NodeContext } from "./context.ts";
import type { PendingClaim } from "./types.ts";

export interface ClaimResult {
  /** Sorted. */
  readonly granted: readonly Cidr[];
  readonly pending: readonly PendingClaim[];
}

export const NO_CLAIMS: ClaimResult = { granted: [], pending: [] };

/** A site's subnets that are in effect. */
export interface SiteSubnets {
  readonly site: string;
  readonly set: PrefixSet;
}

/** Judges one node's claims by themselves; what other nodes claim is looked at by `resolveOverlaps`. */
export function judgeClaims(node: NodeContext, context: Context, subnets: readonly SiteSubnets[]): ClaimResult {
  const claims = [...new Set(node.facts?.advertise ?? [])];
  if (claims.length === 0) return NO_CLAIMS;
  const grants = prefixSet([...(node.resource.spec.advertise ?? []), ...(node.site?.spec.grants?.advertise ?? [])]);
  const granted: Cidr[] = [];
  const pending: PendingClaim[] = [];
  for (const cidr of claims) {
    const refusal = judge(cidr, node, context, subnets, grants);
    if (refusal === undefined) granted.push(cidr);
    else pending.push({ cidr, ...refusal });
  }
  return { granted: sortCidrs(granted), pending: sortPending(pending) };
}

function judge(
  cidr: Cidr,
  node: NodeContext,
  context: Context,
  subnets: readonly SiteSubnets[],
  grants: PrefixSet,
): Omit<PendingClaim, "cidr"> | undefined {
  if (cidr.endsWith("/0")) return { reason: "DefaultRoute", message: `${cidr} is everything; use an EgressGateway for it` };
  if (touches(context.overlay, cidr)) return { reason: "CoversOverlay", message: `${cidr} overlaps the overlay's own ranges` };
  if (touches(SPECIAL_RANGES, cidr)) return { reason: "Protected", message: `${cidr} overlaps loopback, link-local or multicast addresses` };
  const set = prefixSet([cidr]);
  const other = subnets.find((entry) => entry.site !== node.resource.spec.site && setsOverlap(entry.set, set));
  if (other !== undefined) return { reason: "OtherSiteSubnet", message: `${cidr} overlaps a subnet of site ${other.site}` };
  if (!hasPrefix(grants, cidr)) {
    return {
      reason: "NotGranted",
      message: `${cidr} is not inside spec.advertise of the node or spec.grants.advertise of site ${node.resource.spec.site}`,
    };
  }
  return undefined;
}

/** Two nodes cannot own one address: the node that was made first keeps what both claim. Results by node name. */
export function resolveOverlaps(results: readonly (readonly [NodeContext, ClaimResult])[]): Map<string, ClaimResult> {
  const claims: Claim[] = results
    .flatMap(([node, { granted }]) => granted.map((text) => ({ node, text, cidr: parseCidr(text), parent: undefined, end: 0, lost: undefined })))
    .sort((a, b) => compareCidr(a.cidr, b.cidr));
  nest(claims);
  const order = claims.map((_, i) => i).sort((a, b) => byNodeAge(claims[a] as Claim, claims[b] as Claim));
  const kept = new Set<Claim>();
  for (const i of order) {
    const claim = claims[i] as Claim;
    const rival = findRival(claims, i, kept);
    if (rival === undefined) kept.add(claim);
    else claim.lost = rival.node.name;
  }
  const out = new Map<string, ClaimResult>();
  const lost = Map.groupBy(
    claims.filter((claim) => claim.lost !== undefined),
    (claim) => claim.node.name,
  );
  for (const [node, result] of results) {
    const refused = lost.get(node.name) ?? [];
    if (refused.length === 0) out.set(node.name, result);
    else out.set(node.name, withoutLost(result, refused));
  }
  return out;
}

interface Claim {
  readonly node: NodeContext;
  readonly text: Cidr;
  readonly cidr: ParsedCidr;
  /** The claim next above that holds this one. */
  parent: Claim | undefined;
  /** Claims from the next one up to here (not included) lie inside this one. */
  end: number;
  /** The node that keeps it instead. */
  lost: string | undefined;
}

function nest(claims: readonly Claim[]): void {
  const open: Claim[] = [];
  claims.forEach((claim, i) => {
    for (let top = open.at(-1); top !== undefined && !contains(top.cidr, claim.cidr); top = open.at(-1)) {
      top.end = i;
      open.pop();
    }
    claim.parent = open.at(-1);
    open.push(claim);
  });
  for (const claim of open) claim.end = claims.length;
}

/** A claim of another node, already kept, that holds this one or lies inside it. */
function findRival(claims: readonly Claim[], at: number, kept: ReadonlySet<Claim>): Claim | undefined {
  const claim = claims[at] as Claim;
  for (let above = claim.parent; above !== undefined; above = above.parent) if (above.node !== claim.node && kept.has(above)) return above;
  for (let i = at + 1; i < claim.end; i++) {
    const below = claims[i] as Claim;
    if (below.node !== claim.node && kept.has(below)) return below;
  }
  return undefined;
}

function withoutLost(result: ClaimResult, refused: readonly Claim[]): ClaimResult {
  const texts = new Set(refused.map(({ text }) => text));
  const pending = refused.map(({ text, lost }): PendingClaim => ({
    cidr: text,
    reason: "Conflict",
    message: `${text} overlaps what node ${lost} advertises already`,
  }));
  return { granted: result.granted.filter((text) => !texts.has(text)), pending: sortPending([...result.pending, ...pending]) };
}

function byNodeAge(a: Claim, b: Claim): number {
  return a.node.created - b.node.created || (a.node.name < b.node.name ? -1 : a.node.name > b.node.name ? 1 : compareCidr(a.cidr, b.cidr));
}

/** Sorted by address. */
export function sortCidrs(cidrs: readonly Cidr[]): Cidr[] {
  return cidrs
    .map((text) => ({ text, cidr: parseCidr(text) }))
    .sort((a, b) => compareCidr(a.cidr, b.cidr))
    .map(({ text }) => text);
}

function sortPending(pending: readonly PendingClaim[]): PendingClaim[] {
  return pending
    .map((claim) => ({ claim, cidr: parseCidr(claim.cidr) }))
    .sort((a, b) => compareCidr(a.cidr, b.cidr))
    .map(({ claim }) => claim);
}
