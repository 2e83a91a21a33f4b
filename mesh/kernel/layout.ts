/** Names and numbers of everything that is ours in the kernel (DATAPLANE §1, §2). */
import type { NetworkPlan } from "../model/plan.ts";

export const MESH_INTERFACE = "ism0";
export const GATEWAY_INTERFACE = "ismgw0";
/** Interface of client link k (1 to 63). */
export const linkInterface = (k: number): string => `ismg${k}`;

/** Device nexthop of link k is LINK_NEXTHOP + k; the group behind its flow table FLOW_GROUP + k; groups of paths follow. */
export const LINK_NEXTHOP = 157_000;
export const FLOW_GROUP = 157_100;
export const PATH_GROUP = 157_200;
export const PATH_GROUPS = 40_000;

/** IPv6 has no metric 0 (the kernel writes 1024), so both families use 1024. */
export const METRIC = 1024;
/** Metric of the `unreachable` routes that keep overlay traffic off the underlay (I4). */
export const FALLBACK_METRIC = 4_294_967_294;

/** Values inside the mark mask; 1 to 63 are the client links. */
export const MARK_RETURN = 64;
export const MARK_WIREGUARD = 65;
export const MARK_UNDERLAY = 66;
export const MARK_OWN_LAN = 67;

/** Priorities of our rules, both families. */
export const PRIORITY = {
  wireguard: 15_700,
  /** Before `underlay`: a gateway that is asked at its LAN address by a client answers over the link, not by main. */
  return: 15_705,
  /** Of a pairwise link, for the same reason: its flow table, and where that is empty the overlay table, never main. */
  pair: 15_706,
  pairElse: 15_707,
  /** What a gateway says as a machine of its LAN to another LAN: main would send it to the internet. */
  ownLan: 15_708,
  underlay: 15_710,
  inbound: 15_715,
  flows: 15_720,
  overlay: 15_790,
} as const;

export interface Marks {
  readonly mask: number;
  /** All bits that are not ours. */
  readonly others: number;
  /** The value, shifted to where the mask begins. */
  bits(value: number): number;
}

export function marksOf(network: Pick<NetworkPlan, "markMask">): Marks {
  const mask = Number.parseInt(network.markMask, 16) >>> 0;
  const shift = 31 - Math.clz32(mask & -mask);
  return { mask, others: ~mask >>> 0, bits: (value) => (value << shift) >>> 0 };
}

export const hex = (value: number): string => `0x${value.toString(16).padStart(8, "0")}`;

/** 157 (overlay), 158 to 220 (flow tables), 221 (return). */
export const OWN_TABLES: ReadonlySet<number> = new Set(Array.from({ length: 65 }, (_, i) => 157 + i));
