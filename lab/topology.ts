/** The hosts of a lab and how they are wired; made from a topology file by `topology-file.ts`, or by hand in a test. */
import { IsthmusError } from "../mesh/errors.ts";

/** The segment of every public address: a link of its own to the WAN router. */
export const WAN = "wan";

export interface Nic {
  readonly name: string;
  /** `WAN`, or the name of a LAN. */
  readonly segment: string;
  readonly address: string;
  readonly bits: number;
  /** On the WAN: the router's address on this link. */
  readonly peer?: string;
}

export type HostRole = "node" | "router" | "internet" | "controller" | "machine";

export interface Host {
  readonly name: string;
  readonly role: HostRole;
  readonly site?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly nics: readonly Nic[];
  readonly gateway?: string;
  readonly routes: readonly { readonly to: string; readonly via: string }[];
  /** Routers: how ports are chosen, and whether anyone may open flows from outside (a VPC router lets nobody in either). */
  readonly nat?: "random" | "stable";
  readonly prefixes: readonly string[];
}

export interface LabSite {
  readonly name: string;
  readonly kind: "onprem" | "cloud";
  readonly region?: string;
  readonly priority?: number;
  readonly subnet?: string;
  /** The NAT router that the site is behind. */
  readonly router?: string;
}

export interface Topology {
  readonly hosts: readonly Host[];
  readonly sites: readonly LabSite[];
  /** Names of the LANs and VPCs: one bridge each. */
  readonly segments: readonly string[];
  readonly manifests: readonly string[];
}

/** The host of that name. @throws IsthmusError `NotFound` that lists the hosts. */
export function hostNamed(topology: Topology, name: string): Host {
  const host = topology.hosts.find((candidate) => candidate.name === name);
  if (host !== undefined) return host;
  throw new IsthmusError("NotFound", `no host "${name}" in this lab`, { remedy: `Hosts: ${topology.hosts.map((h) => h.name).join(", ")}.` });
}

/** The address that the rest of the internet sees the host by: its own on the WAN, or its site router's. */
export function publicAddress(topology: Topology, host: Host): string | undefined {
  const own = host.nics.find((nic) => nic.segment === WAN)?.address;
  if (own !== undefined) return own;
  const router = topology.sites.find((site) => site.name === host.site)?.router;
  return router === undefined ? undefined : publicAddress(topology, hostNamed(topology, router));
}
