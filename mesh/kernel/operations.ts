/** Operations on the kernel, as data. Each is idempotent; removing what is absent succeeds. */
import type { Cidr, Endpoint, IpAddress, WgPublicKey } from "../model/scalars.ts";
import type { KernelState, LoAddress, Nexthop, NftTable, Route, Rule, WgInterface, WgPeer } from "./types.ts";

export type Operation =
  /** Makes the interface with key, port, mark and MTU, and sets it up; peers come as operations of their own. */
  | { readonly op: "link.add"; readonly link: WgInterface }
  | { readonly op: "link.set"; readonly link: WgInterface; readonly before: WgInterface }
  | { readonly op: "link.remove"; readonly name: string }
  | { readonly op: "peer.add"; readonly link: string; readonly peer: WgPeer }
  /** `endpoint` only when it must change; `remove` non-empty means that the whole list is written again. */
  | {
      readonly op: "peer.set";
      readonly link: string;
      readonly peer: WgPeer;
      readonly before: WgPeer;
      readonly endpoint?: Endpoint;
      readonly add: readonly Cidr[];
      readonly remove: readonly Cidr[];
    }
  | { readonly op: "peer.remove"; readonly link: string; readonly publicKey: WgPublicKey }
  /** Removes the peer and adds it again, so that a stale session gives way to a new handshake at once. Never made by `diffKernel`. */
  | { readonly op: "peer.reset"; readonly link: string; readonly peer: WgPeer }
  | { readonly op: "address.add"; readonly address: LoAddress }
  | { readonly op: "address.remove"; readonly address: LoAddress }
  | { readonly op: "nexthop.replace"; readonly nexthop: Nexthop; readonly before?: Nexthop }
  | { readonly op: "nexthop.remove"; readonly nexthop: Nexthop }
  /** Fails where someone else's route has the same destination and metric (I3). */
  | { readonly op: "route.add"; readonly route: Route }
  | { readonly op: "route.replace"; readonly route: Route; readonly before?: Route }
  | { readonly op: "route.remove"; readonly route: Route }
  | { readonly op: "rule.add"; readonly rule: Rule }
  | { readonly op: "rule.remove"; readonly rule: Rule }
  /** Replaces the whole table in one transaction. */
  | { readonly op: "nft.replace"; readonly table: NftTable; readonly before?: NftTable }
  | { readonly op: "nft.elements"; readonly set: string; readonly add: readonly string[]; readonly remove: readonly string[] }
  | { readonly op: "nft.remove" }
  /** The value before the first write is recorded, and put back by `sysctl.restore` and cleanup. */
  | { readonly op: "sysctl.set"; readonly name: string; readonly value: string; readonly before?: string }
  | { readonly op: "sysctl.restore"; readonly name: string }
  | {
      readonly op: "hosts.set";
      readonly hosts: ReadonlyMap<string, readonly IpAddress[]>;
      readonly before: ReadonlyMap<string, readonly IpAddress[]>;
    };

/** A row of `isthmus diff` and `isthmus explain`. */
export interface ChangeRow {
  readonly area: "peer" | "route" | "rule" | "nat" | "nexthop" | "address" | "link";
  readonly action: "add" | "remove" | "change";
  readonly what: string;
  readonly from?: string;
  readonly to?: string;
}

export const EMPTY_KERNEL: KernelState = {
  wireguard: new Map(),
  addresses: new Set(),
  nexthops: new Map(),
  routes: new Map(),
  rules: new Map(),
  nft: undefined,
  sysctls: new Map(),
  hosts: new Map(),
};
