/**
 * Endpoints of all peers: keeps the dial state of each, remembers on disk what handshakes proved, and says which peers
 * nobody can reach. Decisions are those of `dial.ts`; here are only memory and bookkeeping.
 */
import { z } from "zod";
import type { Kernel } from "./drivers/index.ts";
import { GATEWAY_INTERFACE, linkInterface, MESH_INTERFACE } from "../mesh/kernel/layout.ts";
import type { PeerDial } from "../mesh/kernel/types.ts";
import type { PeerPlan, Plan } from "../mesh/model/plan.ts";
import { Endpoint, type NodeName } from "../mesh/model/scalars.ts";
import type { Family } from "../mesh/net/ip.ts";
import { chooseDial, clientCandidates, type DialHistory, FRESH_MS, gatewayCandidates, meshCandidates, rememberedDial } from "./dial.ts";
import { readHint, writeAtomic } from "./files.ts";
import type { Links } from "./links.ts";

export type WgStatus = Awaited<ReturnType<Kernel["wireguardStatus"]>>;
type Kind = keyof PeerDial;
const KINDS: readonly Kind[] = ["mesh", "gateway", "client"];

/** One peer on one interface. */
interface Slot {
  readonly kind: Kind;
  readonly ifname: string;
  readonly node: NodeName;
  readonly publicKey: PeerPlan["k"];
}

export interface Reset {
  readonly ifname: string;
  readonly publicKey: PeerPlan["k"];
  readonly node: NodeName;
}

export interface DialRound {
  readonly dial: ReadonlyMap<NodeName, PeerDial>;
  /** Whether `dial` differs from the round before. */
  readonly changed: boolean;
  readonly resets: readonly Reset[];
  /** Something has no handshake yet: look again soon. */
  readonly unproven: boolean;
}

export interface PeerReach {
  /** Endpoints at which handshakes prove each peer's mesh interface. */
  readonly observed: ReadonlyMap<NodeName, Endpoint>;
  readonly fresh: readonly NodeName[];
  readonly lost: readonly NodeName[];
  /** Both ends behind NAT in different sites, and no handshake: nobody can dial. */
  readonly noPath: readonly NodeName[];
}

const Stored = z.record(z.string(), z.object({ mesh: Endpoint.optional(), gateway: Endpoint.optional(), client: Endpoint.optional() }));
const WRITE_AFTER_MS = 1_000;

export interface Dialer {
  /** @param now ms since 1970 */
  round(plan: Plan, links: Links, families: ReadonlySet<Family>, status: WgStatus, now: number): DialRound;
  /** The dial map of the last round. */
  readonly dial: ReadonlyMap<NodeName, PeerDial>;
  reach(plan: Plan, status: WgStatus, now: number): PeerReach;
  /** Writes what is not on disk yet. */
  flush(): void;
}

export function createDialer(file: string, log: (line: string) => void): Dialer {
  const stored = readHint(file, (value) => Stored.parse(value), {});
  const histories = new Map<string, DialHistory>();
  let dial: ReadonlyMap<NodeName, PeerDial> = new Map();
  let written = JSON.stringify(stored);
  let timer: NodeJS.Timeout | undefined;

  const remembered = (): string => {
    const proven: Record<string, Record<string, string>> = {};
    for (const [key, history] of [...histories].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
      const [kind = "", node = ""] = key.split("/");
      if (history.proven !== undefined) (proven[node] ??= {})[kind] = history.proven;
    }
    return JSON.stringify(proven);
  };
  const flush = (): void => {
    clearTimeout(timer);
    timer = undefined;
    const text = remembered();
    if (text === written || histories.size === 0) return;
    try {
      writeAtomic(file, text);
      written = text;
    } catch (error) {
      log(`endpoints are not stored: ${error instanceof Error ? error.message : String(error)}`);
    }
  };

  return {
    get dial() {
      return dial;
    },
    round(plan, links, families, status, now) {
      const next = new Map<NodeName, PeerDial>();
      const resets: Reset[] = [];
      let unproven = false;
      const live = new Set<string>();
      for (const slot of slotsOf(plan, links)) {
        const key = `${slot.kind}/${slot.node}`;
        live.add(key);
        const peer = status.get(slot.ifname)?.get(slot.publicKey);
        const seen = { endpoint: peer?.endpoint, latestHandshake: (peer?.latestHandshake ?? 0) * 1_000 };
        const candidates = candidatesOf(slot, plan, families, histories.get(`mesh/${slot.node}`)?.proven);
        const known = stored[slot.node]?.[slot.kind];
        const before = histories.get(key) ?? (known === undefined || seen.latestHandshake > 0 ? undefined : rememberedDial(known, now));
        const result = chooseDial(candidates, before, seen, now);
        histories.set(key, result.history);
        if (result.endpoint !== undefined) next.set(slot.node, { ...next.get(slot.node), [slot.kind]: result.endpoint });
        if (result.reset && peer !== undefined) resets.push({ ifname: slot.ifname, publicKey: slot.publicKey, node: slot.node });
        unproven ||= result.endpoint !== undefined && now - seen.latestHandshake >= FRESH_MS;
      }
      for (const key of histories.keys()) if (!live.has(key)) histories.delete(key);
      const changed = !sameDial(dial, next);
      if (changed) dial = next;
      if (timer === undefined && remembered() !== written) {
        timer = setTimeout(flush, WRITE_AFTER_MS);
        timer.unref();
      }
      return { dial, changed, resets, unproven };
    },
    reach(plan, status, now) {
      const observed = new Map<NodeName, Endpoint>();
      const fresh: NodeName[] = [];
      const lost: NodeName[] = [];
      const noPath: NodeName[] = [];
      const self = plan.peers.get(plan.self.name);
      for (const [node, peer] of plan.peers) {
        if (node === plan.self.name) continue;
        const one = status.get(MESH_INTERFACE)?.get(peer.k);
        if (one !== undefined && one.latestHandshake > 0 && now - one.latestHandshake * 1_000 < FRESH_MS) {
          fresh.push(node);
          if (one.endpoint !== undefined) observed.set(node, one.endpoint);
          continue;
        }
        lost.push(node);
        if (self?.n === 1 && peer.n === 1 && peer.s !== self.s) noPath.push(node);
      }
      return { observed, fresh, lost, noPath };
    },
    flush,
  };
}

/** Every peer of every interface of ours that the plan wants. */
function slotsOf(plan: Plan, links: Links): Slot[] {
  const slots: Slot[] = [];
  for (const [node, peer] of plan.peers) {
    if (node === plan.self.name) continue;
    slots.push({ kind: "mesh", ifname: MESH_INTERFACE, node, publicKey: peer.k });
    const k = links.get(node);
    if (k !== undefined) slots.push({ kind: "gateway", ifname: linkInterface(k), node, publicKey: peer.k });
    if (plan.clients.has(node)) slots.push({ kind: "client", ifname: GATEWAY_INTERFACE, node, publicKey: peer.k });
  }
  return slots;
}

function candidatesOf(slot: Slot, plan: Plan, families: ReadonlySet<Family>, provenMesh: Endpoint | undefined): Endpoint[] {
  const peer = plan.peers.get(slot.node);
  if (peer === undefined) return [];
  const { ports } = plan.network;
  const mesh = meshCandidates(peer, plan.self.site, families);
  switch (slot.kind) {
    case "mesh":
      return mesh;
    case "gateway":
      return gatewayCandidates(mesh, provenMesh, ports);
    case "client":
      // A gateway that can be dialed is dialed by its clients; two dialers would only move each other's endpoints.
      return plan.peers.get(plan.self.name)?.n === 1 && peer.s !== plan.self.site ? clientCandidates(mesh, plan.clients.get(slot.node)?.port) : [];
  }
}

function sameDial(a: ReadonlyMap<NodeName, PeerDial>, b: ReadonlyMap<NodeName, PeerDial>): boolean {
  if (a.size !== b.size) return false;
  for (const [node, one] of a) {
    const other = b.get(node);
    if (other === undefined || KINDS.some((kind) => one[kind] !== other[kind])) return false;
  }
  return true;
}
