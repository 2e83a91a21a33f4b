/**
 * Endpoints of all peers: keeps the dial state of each, remembers on disk what handshakes proved, and says which peers
 * nobody can reach. Decisions are those of `dial.ts`; here are only memory and bookkeeping.
 */
import { z } from "zod";
import { GATEWAY_INTERFACE, linkInterface, MESH_INTERFACE } from "../mesh/kernel/layout.ts";
import { deviceOf, isMeshPeer, isPaired } from "../mesh/kernel/topology.ts";
import type { KernelState, PeerDial, WgPeerSeen } from "../mesh/kernel/types.ts";
import type { PeerPlan, Plan } from "../mesh/model/plan.ts";
import { Endpoint, type NodeName, type WgPublicKey } from "../mesh/model/scalars.ts";
import type { Family } from "../mesh/net/ip.ts";
import { chooseDial, clientCandidates, type DialHistory, FRESH_MS, gatewayCandidates, isPatient, meshCandidates, rememberedDial } from "./dial.ts";
import { readHint } from "./files.ts";
import { type FirstTry, type Tries, tryAgain } from "./first-handshake.ts";
import { createKeeper } from "./keeper.ts";
import type { Links } from "./links.ts";

/** Peers by interface. */
export type WgStatus = ReadonlyMap<string, ReadonlyMap<WgPublicKey, WgPeerSeen>>;
type Kind = keyof PeerDial;

/** One peer on one interface. */
interface Slot {
  readonly kind: Kind;
  readonly ifname: string;
  readonly node: NodeName;
  readonly publicKey: PeerPlan["k"];
  /** The interface at the other end of a link is the peer's own link to us, not its `ismgw0`. */
  readonly paired?: boolean;
}

interface Dialed {
  readonly slot: Slot;
  readonly endpoint: Endpoint;
  readonly proven: boolean;
}

export interface Reset {
  readonly ifname: string;
  readonly publicKey: PeerPlan["k"];
  readonly node: NodeName;
}

export interface DialRound {
  /** Whether something else is to be dialed than in the round before. */
  readonly changed: boolean;
  readonly resets: readonly Reset[];
  /** Something has no handshake yet, and has not been silent for long: look again soon. */
  readonly unproven: boolean;
  /** When a first handshake should have come, or is begun anew; ms since 1970, or Infinity. */
  readonly dueAt: number;
}

export interface PeerReach {
  /** Endpoints at which handshakes prove each peer's mesh interface, or its end of a pairwise link where that is the way to it. */
  readonly observed: ReadonlyMap<NodeName, Endpoint>;
  readonly fresh: readonly NodeName[];
  readonly lost: readonly NodeName[];
  /** Both ends behind NAT in different sites, and no handshake: nobody can dial. */
  readonly noPath: readonly NodeName[];
}

const Stored = z.record(z.string(), z.object({ mesh: Endpoint.optional(), gateway: Endpoint.optional(), client: Endpoint.optional() }));
/** What a gateway proved a moment before its power went is what it dials when that is back. */
const WRITE_AFTER_MS = 100;
const NEVER_SEEN = { endpoint: undefined, latestHandshake: 0 };

export interface Dialer {
  /** @param now ms since 1970 @param random in [0, 1) */
  round(plan: Plan, links: Links, families: ReadonlySet<Family>, status: WgStatus, now: number, random?: () => number): DialRound;
  /**
   * What to write into the kernel. A proven endpoint is left out where the peer stands already: it may roam at any time, and
   * writing an endpoint that is a second old would undo it. So is one that is only tried, once the peer has come by itself: a
   * gateway that is back from a reboot would be sent away again, and be silent for all the turns until WireGuard dials anew.
   */
  dialFor(observed: KernelState): ReadonlyMap<NodeName, PeerDial>;
  /** What is dialed for a peer of an interface now. */
  endpointOf(ifname: string, publicKey: string): Endpoint | undefined;
  /** Gives new peers something to dial at once, without judging those that are known. */
  ensure(plan: Plan, links: Links, families: ReadonlySet<Family>, status: WgStatus, now: number): void;
  reach(plan: Plan, links: Links, status: WgStatus, now: number): PeerReach;
  /** Writes what is not on disk yet. */
  flush(): void;
}

export function createDialer(file: string, log: (line: string) => void): Dialer {
  const stored = readHint(file, (value) => Stored.parse(value), {});
  const histories = new Map<string, DialHistory>();
  const unanswered = new Map<string, Tries>();
  const paired = new Map<string, boolean>();
  /** Links whose other end is to be another interface of the peer: the session starts anew, and what was proven is not meant. */
  const turned = new Set<string>();
  let dials: readonly Dialed[] = [];

  const remembered = (): string => {
    const proven: Record<string, Record<string, string>> = {};
    for (const [key, history] of [...histories].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
      const [kind = "", node = ""] = key.split("/");
      if (history.proven !== undefined) (proven[node] ??= {})[kind] = history.proven;
    }
    return JSON.stringify(proven);
  };
  const keeper = createKeeper({ path: file, afterMs: WRITE_AFTER_MS, onResult: (error) => error !== undefined && log(error.message) });

  /** One step of one peer's state machine. */
  const judge = (
    slot: Slot,
    plan: Plan,
    families: ReadonlySet<Family>,
    status: WgStatus,
    now: number,
  ): { dial: Dialed | undefined; reset: boolean; fresh: boolean } => {
    const key = `${slot.kind}/${slot.node}`;
    const peer = status.get(slot.ifname)?.get(slot.publicKey);
    const candidates = candidatesOf(slot, plan, families, histories.get(`mesh/${slot.node}`)?.proven);
    if ((paired.get(key) ?? slot.paired) !== slot.paired || otherEnd(slot, plan, families).includes(peer?.endpoint as Endpoint)) {
      // A peer that nobody can dial comes by itself, and may have come already: its new session is not to be thrown away.
      if (candidates.length > 0) turned.add(key);
      histories.delete(key);
    }
    if (slot.paired !== undefined) paired.set(key, slot.paired);
    const anew = turned.has(key);
    const seen = anew ? NEVER_SEEN : { endpoint: peer?.endpoint, latestHandshake: (peer?.latestHandshake ?? 0) * 1_000 };
    const fresh = now - seen.latestHandshake < FRESH_MS;
    const known = anew ? undefined : stored[slot.node]?.[slot.kind];
    const earlier = histories.get(key) ?? (known === undefined || fresh ? undefined : rememberedDial(known, candidates, now));
    // Traffic may wait for a gateway: it is never waited for patiently.
    const before = slot.kind === "mesh" || earlier === undefined ? earlier : { ...earlier, turns: 0 };
    const { endpoint, history, reset } = chooseDial(candidates, before, seen, now);
    histories.set(key, history);
    const dial = endpoint === undefined ? undefined : { slot, endpoint, proven: fresh && endpoint === seen.endpoint };
    return { dial, reset: (reset || anew) && peer !== undefined, fresh };
  };

  /** For a peer that was written and never heard since. */
  const firstTry = (key: string, slot: Slot, status: WgStatus, now: number, random: number): FirstTry | undefined => {
    const peer = status.get(slot.ifname)?.get(slot.publicKey);
    if (peer === undefined) return undefined;
    if (peer.latestHandshake > 0) {
      unanswered.delete(key);
      return undefined;
    }
    const first = tryAgain(unanswered.get(key), histories.get(key)?.offered ?? "", now, random);
    unanswered.set(key, first.tries);
    return first;
  };

  return {
    dialFor(observed) {
      const dial = new Map<NodeName, PeerDial>();
      for (const { slot, endpoint, proven } of dials) {
        const seen = observed.wireguard.get(slot.ifname)?.peers.get(slot.publicKey);
        if (seen?.endpoint !== undefined && (proven || cameSince(seen, histories.get(`${slot.kind}/${slot.node}`)))) continue;
        dial.set(slot.node, { ...dial.get(slot.node), [slot.kind]: endpoint });
      }
      return dial;
    },
    endpointOf: (ifname, publicKey) => dials.find(({ slot }) => slot.ifname === ifname && slot.publicKey === publicKey)?.endpoint,
    ensure(plan, links, families, status, now) {
      const known = new Map(dials.map((one) => [`${one.slot.kind}/${one.slot.node}`, one]));
      dials = slotsOf(plan, links).flatMap((slot) => {
        const before = known.get(`${slot.kind}/${slot.node}`);
        if (before !== undefined && sameSlot(before.slot, slot)) return [before];
        const { dial } = judge(slot, plan, families, status, now);
        return dial === undefined ? [] : [dial];
      });
    },
    round(plan, links, families, status, now, random = Math.random) {
      const next: Dialed[] = [];
      const resets: Reset[] = [];
      let unproven = false;
      let dueAt = Infinity;
      const live = new Set<string>();
      const begun = new Set<NodeName>();
      for (const slot of slotsOf(plan, links)) {
        const key = `${slot.kind}/${slot.node}`;
        live.add(key);
        const judged = judge(slot, plan, families, status, now);
        const { dial, fresh } = judged;
        if (turned.delete(key)) begun.add(slot.node);
        const peer = status.get(slot.ifname)?.get(slot.publicKey);
        // What the link still sent by its old session has led its other end back here from the client's new one.
        const reset = judged.reset || (slot.kind === "client" && begun.has(slot.node) && dial !== undefined && peer !== undefined);
        if (dial !== undefined) next.push(dial);
        const first = firstTry(key, slot, status, now, random());
        // One that dials us is only looked at.
        if (reset || (first?.again === true && dial !== undefined)) resets.push({ ifname: slot.ifname, publicKey: slot.publicKey, node: slot.node });
        dueAt = Math.min(dueAt, first?.tries.dueAt ?? Infinity);
        const history = histories.get(key);
        unproven ||= dial !== undefined && !fresh && (history === undefined || !isPatient(history));
      }
      for (const known of [histories, unanswered, paired]) for (const key of known.keys()) if (!live.has(key)) known.delete(key);
      const changed = !sameDials(dials, next);
      if (changed) dials = next;
      if (histories.size > 0) keeper.set(remembered);
      return { changed, resets, unproven, dueAt };
    },
    reach: reachOf,
    flush: () => keeper.flush(),
  };
}

/** Who has a session now, by what WireGuard tells. */
function reachOf(plan: Plan, links: Links, status: WgStatus, now: number): PeerReach {
  const observed = new Map<NodeName, Endpoint>();
  const fresh: NodeName[] = [];
  const lost: NodeName[] = [];
  const noPath: NodeName[] = [];
  const self = plan.peers.get(plan.self.name);
  for (const [node, peer] of plan.peers) {
    // Who is reached through others has no session here.
    if (node === plan.self.name || !(isMeshPeer(plan, peer) || isPaired(plan, node))) continue;
    const one = status.get(deviceOf(plan, links, node) ?? "")?.get(peer.k);
    if (one !== undefined && one.latestHandshake > 0 && now - one.latestHandshake * 1_000 < FRESH_MS) {
      fresh.push(node);
      if (one.endpoint !== undefined) observed.set(node, one.endpoint);
      continue;
    }
    lost.push(node);
    if (self?.n === 1 && peer.n === 1 && peer.s !== self.s) noPath.push(node);
  }
  return { observed, fresh, lost, noPath };
}

/** A handshake since the present turn began, as WireGuard tells it, in whole seconds. Turns begin with a new session. */
function cameSince({ latestHandshake = 0 }: Partial<WgPeerSeen>, history: DialHistory | undefined): boolean {
  return history !== undefined && latestHandshake > 0 && latestHandshake >= Math.floor(history.since / 1_000);
}

/** Every peer of every interface of ours that the plan wants. */
function slotsOf(plan: Plan, links: Links): Slot[] {
  const slots: Slot[] = [];
  for (const [node, peer] of plan.peers) {
    if (node === plan.self.name) continue;
    if (isMeshPeer(plan, peer)) slots.push({ kind: "mesh", ifname: MESH_INTERFACE, node, publicKey: peer.k });
    const k = links.get(node);
    if (k !== undefined) slots.push({ kind: "gateway", ifname: linkInterface(k), node, publicKey: peer.k, paired: isPaired(plan, node) });
    if (plan.clients.has(node) && !isPaired(plan, node)) slots.push({ kind: "client", ifname: GATEWAY_INTERFACE, node, publicKey: peer.k });
  }
  return slots;
}

function candidatesOf(slot: Slot, plan: Plan, families: ReadonlySet<Family>, provenMesh: Endpoint | undefined): Endpoint[] {
  const peer = plan.peers.get(slot.node);
  if (peer === undefined) return [];
  const { ports } = plan.network;
  const mesh = meshCandidates(peer, plan.self.site, families);
  if (slot.kind === "mesh") return mesh;
  const port = plan.clients.get(slot.node)?.port;
  // The other end of a pairwise link has an interface of its own for it, too.
  if (slot.kind === "gateway") return isPaired(plan, slot.node) ? clientCandidates(mesh, port) : gatewayCandidates(mesh, provenMesh, ports);
  // A gateway that can be dialed is dialed by its clients; two dialers would only move each other's endpoints.
  const dials = plan.peers.get(plan.self.name)?.n === 1 && peer.s !== plan.self.site;
  return dials ? clientCandidates(mesh, port) : [];
}

/** Where the interface of the peer listens that this link is not meant for, as far as that can be told. */
function otherEnd(slot: Slot, plan: Plan, families: ReadonlySet<Family>): Endpoint[] {
  const peer = plan.peers.get(slot.node);
  if (slot.kind !== "gateway" || peer === undefined) return [];
  const mesh = meshCandidates(peer, plan.self.site, families);
  return slot.paired === true ? gatewayCandidates(mesh, undefined, plan.network.ports) : clientCandidates(mesh, plan.clients.get(slot.node)?.port);
}

function sameSlot(a: Slot, b: Slot): boolean {
  return a.publicKey === b.publicKey && a.ifname === b.ifname && a.paired === b.paired;
}

function sameDials(a: readonly Dialed[], b: readonly Dialed[]): boolean {
  return (
    a.length === b.length &&
    a.every(
      (one, i) =>
        one.endpoint === b[i]?.endpoint && one.proven === b[i]?.proven && one.slot.node === b[i]?.slot.node && one.slot.kind === b[i]?.slot.kind,
    )
  );
}
