/** How things are called and counted in what people read. */
import type { Kind } from "./resources.ts";

/** `1 node`, `2 nodes`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

// eslint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f-\u009f]+/g;

/** Words of somebody else, on one line and without control characters: to a terminal these are commands. */
export function oneLine(text: string): string {
  return text.replace(CONTROL, " ");
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
