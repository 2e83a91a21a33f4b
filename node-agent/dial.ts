/**
 * Which endpoint to dial for a peer: a pure state machine with time as a parameter. The endpoint that a handshake proved is
 * kept; while there is no proof, candidates take turns. Another's word about an endpoint is a hint until then (I11).
 */
import { familyOf, joinEndpoint, splitEndpoint, type Family } from "../mesh/net/ip.ts";
import type { NetworkPlan, PeerPlan } from "../mesh/model/plan.ts";
import type { Endpoint } from "../mesh/model/scalars.ts";

/** A WireGuard session renews its keys every 120 s, and a peer with keepalive never lets it lapse; after 180 s it is dead. */
export const FRESH_MS = 180_000;
/** WireGuard repeats an initiation every 5 s: each candidate gets one. */
export const TURN_MS = 5_000;
/** A peer that stays silent through so many turns is likely switched off: turns double up to the longest one. */
export const PATIENT_TURNS = 12;
const LONGEST_TURN_MS = 40_000;

/** What the agent remembers of one peer on one interface. */
export interface DialHistory {
  readonly dialed: Endpoint | undefined;
  /** When its turn began. */
  readonly since: number;
  /** At the last look a handshake proved it. */
  readonly live?: boolean;
  /** Candidates at that time, joined: a changed list is news. */
  readonly offered: string;
  /** Turns without a handshake so far. */
  readonly turns?: number;
  /** The last endpoint that a handshake proved, also from an earlier run of the agent. */
  readonly proven: Endpoint | undefined;
}

/** What WireGuard says of that peer. */
export interface DialSeen {
  readonly endpoint: Endpoint | undefined;
  /** Milliseconds since 1970; 0 for never. */
  readonly latestHandshake: number;
}

export interface Dial {
  readonly endpoint: Endpoint | undefined;
  readonly history: DialHistory;
  /** The session must start anew for the endpoint to be tried at once: remove the peer and add it. */
  readonly reset: boolean;
}

/** @param now milliseconds since 1970, as the handshake times */
export function chooseDial(candidates: readonly Endpoint[], history: DialHistory | undefined, seen: DialSeen, now: number): Dial {
  const offered = candidates.join(" ");
  const fresh = seen.latestHandshake > 0 && now - seen.latestHandshake < FRESH_MS && seen.endpoint !== undefined;
  const first = firstChoice(candidates, history?.proven);
  if (history === undefined) {
    const proven = fresh ? seen.endpoint : undefined;
    const dialed = proven ?? first;
    return { endpoint: dialed, history: { dialed, since: now, offered, proven, ...(fresh ? { live: true } : {}) }, reset: false };
  }
  if (fresh && !moved(history, candidates, seen.endpoint)) {
    return {
      endpoint: seen.endpoint,
      history: { dialed: seen.endpoint, since: history.since, offered, proven: seen.endpoint, live: true },
      reset: false,
    };
  }
  if (history.offered !== offered && candidates.length > 0) {
    const dialed = candidates.includes(history.dialed as Endpoint) && !fresh ? history.dialed : candidates[0];
    // A new list that still holds what is tried right now does not start the turn anew.
    const since = dialed === history.dialed ? history.since : now;
    return { endpoint: dialed, history: { ...history, dialed, since, offered, turns: 0 }, reset: dialed !== history.dialed };
  }
  // Its session is gone (WireGuard was started anew, or the peer fell silent): what worked a moment ago has the first turn.
  if (history.live === true && !fresh) {
    return { endpoint: history.dialed, history: { dialed: history.dialed, since: now, offered, proven: history.proven }, reset: false };
  }
  const list = withProven(candidates, history.proven);
  const turns = history.turns ?? 0;
  if (now - history.since < turnMs(turns, list.length)) return { endpoint: history.dialed, history: { ...history, offered }, reset: false };
  const next = nextInTurn(list, history.dialed);
  return { endpoint: next, history: { ...history, dialed: next, since: now, offered, turns: turns + 1 }, reset: next !== undefined };
}

/** Whether it is worth looking at the peer often. */
export function isPatient({ turns = 0 }: DialHistory): boolean {
  return turns >= PATIENT_TURNS;
}

/** Every candidate gets two quick turns before they become longer. */
function turnMs(turns: number, candidates: number): number {
  const doublings = Math.max(0, turns - Math.max(PATIENT_TURNS, 2 * candidates));
  return Math.min(TURN_MS * 2 ** Math.min(doublings, 8), LONGEST_TURN_MS);
}

/** Remembered from an earlier run: the proven endpoint is dialed first, so that a reboot costs nothing. */
export function rememberedDial(proven: Endpoint, candidates: readonly Endpoint[], now: number): DialHistory {
  return { dialed: proven, since: now, offered: candidates.join(" "), proven };
}

/**
 * Endpoints of a peer's ism0 in the order to try. Same site: its LAN first, so that nodes behind one NAT use the LAN. Other
 * sites: public ones first; a peer behind NAT cannot be dialed from outside, it dials.
 */
export function meshCandidates(peer: PeerPlan, ownSite: string, families: ReadonlySet<Family>): Endpoint[] {
  const { near, far } = usableOf(peer, families);
  if (peer.s === ownSite) return [...near, ...far];
  return peer.n === 1 ? [] : [...far, ...near];
}

/** Every peer is looked at every few seconds, and its endpoints hardly ever change. */
const usable = new WeakMap<PeerPlan["e"], { readonly families: string; readonly near: readonly Endpoint[]; readonly far: readonly Endpoint[] }>();

function usableOf({ e }: PeerPlan, families: ReadonlySet<Family>): { readonly near: readonly Endpoint[]; readonly far: readonly Endpoint[] } {
  const wanted = [...families].join();
  const known = usable.get(e);
  if (known?.families === wanted) return known;
  const rows = e.map((endpoint) => ({ endpoint, address: splitEndpoint(endpoint).address }));
  const reached = rows.filter(({ address }) => families.size === 0 || families.has(familyOf(address)));
  const [near, far] = [true, false].map((inside) => reached.flatMap(({ endpoint, address }) => (isPrivate(address) === inside ? [endpoint] : [])));
  const found = { families: wanted, near: near ?? [], far: far ?? [] };
  usable.set(e, found);
  return found;
}

/** The same hosts at another interface's port; a port that a NAT maps elsewhere is taken to be mapped side by side. */
export function atPort(endpoints: readonly Endpoint[], from: number, to: number): Endpoint[] {
  return endpoints.map((endpoint) => {
    const { address, port } = splitEndpoint(endpoint);
    return joinEndpoint(address, Math.min(65_535, Math.max(1, port - from + to))) as Endpoint;
  });
}

/** Endpoints of a gateway's ismgw0: the proven host of its mesh interface first. */
export function gatewayCandidates(mesh: readonly Endpoint[], provenMesh: Endpoint | undefined, ports: NetworkPlan["ports"]): Endpoint[] {
  const hosts = provenMesh === undefined || !mesh.includes(provenMesh) ? mesh : [provenMesh, ...mesh.filter((one) => one !== provenMesh)];
  return atPort(hosts, ports.mesh, ports.gateway);
}

/** Endpoints of a client's link, dialed by a gateway that is behind NAT and cannot be dialed itself. */
export function clientCandidates(mesh: readonly Endpoint[], port: number | undefined): Endpoint[] {
  if (port === undefined) return [];
  return mesh.map((endpoint) => joinEndpoint(splitEndpoint(endpoint).address, port) as Endpoint);
}

/** RFC 1918, RFC 6598, RFC 4193. */
export function isPrivate(address: string): boolean {
  return /^(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.|f[cd][0-9a-f]{2}:)/.test(address);
}

/** The plan now names other addresses and no longer the one in use: the peer has moved, and WireGuard would notice late. */
function moved(history: DialHistory, candidates: readonly Endpoint[], current: Endpoint | undefined): boolean {
  if (current === undefined || candidates.length === 0) return false;
  return history.offered !== candidates.join(" ") && history.offered.split(" ").includes(current) && !candidates.includes(current);
}

function firstChoice(candidates: readonly Endpoint[], proven: Endpoint | undefined): Endpoint | undefined {
  return proven ?? candidates[0];
}

function withProven(candidates: readonly Endpoint[], proven: Endpoint | undefined): readonly Endpoint[] {
  return proven === undefined || candidates.includes(proven) ? candidates : [...candidates, proven];
}

function nextInTurn(list: readonly Endpoint[], current: Endpoint | undefined): Endpoint | undefined {
  if (list.length === 0) return undefined;
  return list[(list.indexOf(current as Endpoint) + 1) % list.length];
}
