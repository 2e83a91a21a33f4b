/** How things are called and counted in what people read. */
import type { Kind } from "./resources.ts";

/** `1 node`, `2 nodes`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

const SHORT: Readonly<Partial<Record<Kind, string>>> = {
  MeshNode: "node",
  MeshRoute: "route",
  EgressGateway: "egress",
  JoinToken: "token",
  VirtualIP: "vip",
  MeshCluster: "cluster",
  MeshNetwork: "network",
};

/** The word that people use most for a kind: `node`, `egress`, `route`. */
export function shortName(kind: Kind): string {
  return SHORT[kind] ?? kind.toLowerCase();
}
