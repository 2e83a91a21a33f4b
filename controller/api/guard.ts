/** I9 at the door: destinations that would steer traffic of the overlay itself, of controllers or of WireGuard. */
import type { FieldFault } from "../../mesh/errors.ts";
import type { MeshNetworkSpec } from "../../mesh/model/mesh-network.ts";
import type { Resource } from "../../mesh/model/resources.ts";
import { RESERVED_RANGES } from "../../mesh/model/validate/rules.ts";
import { contains, overlaps, familyOf, hostCidr, parseCidr, splitEndpoint, type ParsedCidr } from "../../mesh/net/ip.ts";

export interface Protected {
  readonly cidr: string;
  readonly what: string;
}

/** What no intent may steer, by the state that the intent would meet. */
export function protectedRanges(
  network: { readonly spec: MeshNetworkSpec },
  controllers: readonly string[],
  nodes: readonly Resource<"MeshNode">[],
  endpoints: (node: string) => readonly string[],
): Protected[] {
  const { overlay, links } = network.spec;
  return [
    { cidr: overlay.v4, what: "the overlay's own range" },
    ...(overlay.v6 === undefined ? [] : [{ cidr: overlay.v6, what: "the overlay's own range" }]),
    { cidr: links.v4, what: "the link addresses" },
    ...RESERVED_RANGES.map(({ cidr, why }) => ({ cidr, what: why })),
    ...controllers.flatMap((address) => hostOf(address).map((cidr) => ({ cidr, what: `the controller ${address}` }))),
    ...nodes.flatMap((node) =>
      endpoints(node.metadata.name).flatMap((endpoint) =>
        hostOf(endpoint).map((cidr) => ({ cidr, what: `the WireGuard endpoint ${endpoint} of node ${node.metadata.name}` })),
      ),
    ),
  ];
}

export interface GuardVerdict {
  /** Destinations that lie inside something protected. */
  readonly faults: readonly FieldFault[];
  /** Destinations that cover something protected; nodes carve it out. */
  readonly warnings: readonly string[];
}

const MAX_WARNINGS = 5;

export function guardIntent(intent: Resource, ranges: readonly Protected[]): GuardVerdict {
  const { path, destinations } = destinationsOf(intent);
  const parsed = ranges.map((range) => ({ ...range, parsed: parseCidr(range.cidr) }));
  const faults: FieldFault[] = [];
  const warnings: string[] = [];
  for (const [i, text] of destinations.entries()) {
    const cidr = parseCidr(text);
    const inside = parsed.find((range) => contains(range.parsed, cidr));
    if (inside !== undefined)
      faults.push({ path: `${path}[${i}]`, message: `lies inside ${inside.what} (${inside.cidr}), which is never steered`, value: text });
    else warnings.push(...covered(text, cidr, parsed));
  }
  return {
    faults,
    warnings: warnings.length > MAX_WARNINGS ? [...warnings.slice(0, MAX_WARNINGS), `and ${warnings.length - MAX_WARNINGS} more`] : warnings,
  };
}

function covered(text: string, cidr: ParsedCidr, ranges: readonly (Protected & { readonly parsed: ParsedCidr })[]): string[] {
  const held = ranges.filter((range) => contains(cidr, range.parsed)).map(({ what }) => what);
  if (held.length === 0) return [];
  const named = [...new Set(held)];
  return [`${text} covers ${named.slice(0, 3).join(", ")}${named.length > 3 ? ` and ${named.length - 3} more` : ""}: nodes keep these out of it`];
}

/** Two sites with one LAN: allowed, because one may be on its way out, but the younger one's has no effect. */
export function sharedSubnets(site: Resource<"Site">, sites: readonly Resource<"Site">[]): string[] {
  const others = new Map(sites.filter((other) => other.metadata.name !== site.metadata.name).map((other) => [other.metadata.name, other]));
  return (site.spec.subnets ?? []).flatMap((own) =>
    [...others.values()].flatMap((other) =>
      (other.spec.subnets ?? [])
        .filter((theirs) => overlaps(parseCidr(own), parseCidr(theirs)))
        .map((theirs) => `${own} overlaps ${theirs} of site ${other.metadata.name}: only the older site's is in effect; change one of the two`),
    ),
  );
}

/** Ranges of the mesh itself that are somebody's on the internet: allowed, because one may own them. */
export function publicRanges({ overlay, links }: MeshNetworkSpec): string[] {
  const ranges = { "spec.overlay.v4": overlay.v4, "spec.links.v4": links.v4 };
  return Object.entries(ranges)
    .filter(([, cidr]) => !UNOWNED.some((range) => contains(range, parseCidr(cidr))))
    .map(([path, cidr]) => `${path} ${cidr} is a public range: nodes reach nothing of what has these addresses on the internet; use one of RFC 1918`);
}

function destinationsOf(intent: Resource): { path: string; destinations: readonly string[] } {
  switch (intent.kind) {
    case "MeshRoute":
    case "StaticRoute":
    case "EgressGateway":
      return { path: "spec.destinations", destinations: (intent as Resource<"MeshRoute">).spec.destinations };
    case "Site":
      return { path: "spec.subnets", destinations: (intent as Resource<"Site">).spec.subnets ?? [] };
    case "MeshNetwork":
    case "MeshNode":
    case "JoinToken":
    case "VirtualIP":
    case "MeshCluster":
      return { path: "spec", destinations: [] };
  }
}

/** The address of `ADDR:PORT` as a prefix; nothing for a name. A LAN's own private endpoints protect themselves on the nodes. */
function hostOf(endpoint: string): string[] {
  try {
    const { address } = splitEndpoint(endpoint);
    return isPrivate(address) ? [] : [hostCidr(address)];
  } catch {
    return [];
  }
}

const PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"].map(parseCidr);

/** Nobody's on the internet: private, carrier-grade NAT, benchmarks. */
const UNOWNED = [...PRIVATE, parseCidr("198.18.0.0/15")];

function isPrivate(address: string): boolean {
  const host = parseCidr(hostCidr(address));
  return PRIVATE.some((range) => range.family === familyOf(address) && contains(range, host));
}
