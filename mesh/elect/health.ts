/**
 * The health of one link, folded from its probes. The caller owns the state and the functions change it in place: tens of
 * probes a second must not make garbage. Time is always a parameter; nothing here reads a clock.
 *
 * A probe has a deadline of srtt + 4·rttvar (RFC 6298 §2), at least one interval. `threshold` misses in a row make the link
 * Down, unless the fault may be our own (`stall.ts`). Then it must answer for a quiet period, which doubles with every flap.
 */
import type { NodeName } from "../model/scalars.ts";
import type { GatewayState, LinkVerdict, LinkView } from "./types.ts";

export interface HealthConfig {
  readonly intervalMs: number;
  /** Probes missed in a row until the link is Down. */
  readonly threshold: number;
  /** First quiet period; doubles with every flap, to 5 minutes. */
  readonly holdDownMs: number;
}

/** Longest quiet period after flapping. */
export const MAX_HOLD_DOWN_MS = 300_000;
/** Up for this long takes one doubling back. */
export const FLAP_DECAY_MS = 60_000;
/** A gateway that says nothing for this long is no longer known to serve; that alone moves nothing. */
export const STATE_SILENCE_MS = 10_000;
/** Deadline before the first answer (RFC 6298 §2.1), and the longest one: a wild sample must not blind the prober. */
const FIRST_DEADLINE_MS = 1_000;
const MAX_DEADLINE_MS = 3_000;
/** Unanswered probes of voided windows that are forgiven; beyond that the link is silent even for a starved prober. */
const FORGIVEN_PER_THRESHOLD = 10;
/** Probes that are remembered; a power of two. */
const RING = 64;

export interface HealthState {
  config: HealthConfig;
  verdict: LinkVerdict;
  since: number;
  /** Raised whenever something that an election looks at changed. */
  version: number;
  /** The version that elections were last told of. */
  told: number;
  /** Sequence number of the newest probe; 0 before the first. */
  lastSeq: number;
  /** Oldest probe that is neither answered, missed nor forgotten. */
  openSeq: number;
  readonly sentAt: Float64Array;
  readonly answered: Uint8Array;
  /** Answers to probes up to this one prove life but say nothing about the round trip: the window was void. */
  voidSeq: number;
  /** Up to this probe a late answer tells how long the silence was, not how long the way is. */
  silentSeq: number;
  srttMs: number | undefined;
  rttvarMs: number;
  /** Misses in a row. */
  missed: number;
  /** When the first unanswered probe of the present silence was sent, and the one that made it suffice for Down. */
  silentFrom: number;
  lastMissSentAt: number;
  /** Unanswered probes in voided windows since the last answer. */
  forgiven: number;
  lastAnswerSeq: number;
  lastAnswerSentAt: number;
  /** When that answer came, as far as we can know. */
  lastAnswerAt: number;
  /** When the first answered probe after a silence of two or more was sent. */
  resumedSentAt: number;
  answersInRow: number;
  /** Down, but answered `threshold` probes in a row since. */
  recovering: boolean;
  /** Misses reached the threshold, but no other link proves that the fault is not ours. */
  pendingSince: number | undefined;
  everUp: boolean;
  /** Start of the quiet period; undefined while Up or silent. */
  quietSince: number | undefined;
  holdDownMs: number;
  flaps: number;
  gateway: GatewayState;
  gatewayAt: number;
  downPaths: readonly string[];
}

export function createLinkHealth(config: HealthConfig, now: number): HealthState {
  return {
    config,
    verdict: "Unknown",
    since: now,
    version: 0,
    told: 0,
    lastSeq: 0,
    openSeq: 1,
    sentAt: new Float64Array(RING),
    answered: new Uint8Array(RING),
    voidSeq: 0,
    silentSeq: 0,
    srttMs: undefined,
    rttvarMs: 0,
    missed: 0,
    silentFrom: Infinity,
    lastMissSentAt: -Infinity,
    forgiven: 0,
    lastAnswerSeq: 0,
    lastAnswerSentAt: -Infinity,
    lastAnswerAt: -Infinity,
    resumedSentAt: -Infinity,
    answersInRow: 0,
    recovering: false,
    pendingSince: undefined,
    everUp: false,
    quietSince: undefined,
    holdDownMs: config.holdDownMs,
    flaps: 0,
    gateway: "Unknown",
    gatewayAt: now,
    downPaths: [],
  };
}

/** Milliseconds that a probe may take before it counts as missed. */
export function deadlineMs(h: HealthState): number {
  const adaptive = h.srttMs === undefined ? FIRST_DEADLINE_MS : h.srttMs + 4 * h.rttvarMs;
  return Math.max(h.config.intervalMs, Math.min(adaptive, MAX_DEADLINE_MS));
}

/** A probe leaves now. Its sequence number, counted from 1. */
export function onSent(h: HealthState, now: number): number {
  const seq = ++h.lastSeq;
  h.sentAt[seq & (RING - 1)] = now;
  h.answered[seq & (RING - 1)] = 0;
  if (seq - h.openSeq >= RING) {
    h.openSeq = seq - RING + 1;
    miss(h, now);
  }
  return seq;
}

/** The answer to probe `seq` was read. Late and forgotten ones prove life too. False when it answers nothing of ours. */
export function onAnswer(h: HealthState, seq: number, now: number): boolean {
  if (seq < 1 || seq > h.lastSeq || seq <= h.lastSeq - RING || h.answered[seq & (RING - 1)] === 1) return false;
  h.answered[seq & (RING - 1)] = 1;
  const sentAt = h.sentAt[seq & (RING - 1)] ?? now;
  if (h.verdict !== "Up" && h.quietSince === undefined) h.silentSeq = seq === h.lastSeq ? seq - 1 : h.lastSeq;
  if (seq > h.voidSeq && seq > h.silentSeq) sample(h, Math.max(0, now - sentAt));
  if (seq > h.lastAnswerSeq) {
    if (seq - h.lastAnswerSeq > 2) h.resumedSentAt = sentAt;
    h.lastAnswerSeq = seq;
    h.lastAnswerSentAt = sentAt;
    h.lastAnswerAt = seq > h.voidSeq ? now : sentAt + (h.srttMs ?? 0);
    if (seq >= h.openSeq) h.openSeq = seq + 1;
  }
  forgive(h);
  h.answersInRow++;
  if (h.verdict === "Up") return true;
  if (!h.everUp) setVerdict(h, "Up", now);
  else if (h.quietSince === undefined) h.quietSince = now;
  if (h.verdict === "Down" && !h.recovering && h.answersInRow >= h.config.threshold) {
    h.recovering = true;
    h.version++;
  }
  return true;
}

/** Our own loop stood still: what is still open is neither missed nor answered in time. */
export function onVoidWindow(h: HealthState): void {
  if (h.openSeq > h.lastSeq) return;
  const first = h.sentAt[h.openSeq & (RING - 1)] ?? 0;
  h.silentFrom = Math.min(h.silentFrom, first);
  if (!looksDown(h)) h.lastMissSentAt = h.sentAt[h.lastSeq & (RING - 1)] ?? 0;
  h.forgiven += h.lastSeq - h.openSeq + 1;
  h.openSeq = h.lastSeq + 1;
  h.voidSeq = h.lastSeq;
}

/** The gateway's own word (`Serving`, `Draining`, `UplinkDown`) was read. */
export function onGatewayState(h: HealthState, state: GatewayState, downPaths: readonly string[], now: number): void {
  h.gatewayAt = now;
  if (h.gateway === state && sameList(h.downPaths, downPaths)) return;
  h.gateway = state;
  h.downPaths = [...downPaths];
  h.version++;
}

/** Counts probes whose deadline has passed; call it only after a poll of the socket that followed the deadline. */
export function collectMisses(h: HealthState, now: number): void {
  // An eighth of an interval of slack: a timer that fires a millisecond early must not cost a whole interval.
  const limit = now - deadlineMs(h) + h.config.intervalMs / 8;
  while (h.openSeq <= h.lastSeq && (h.sentAt[h.openSeq & (RING - 1)] ?? 0) <= limit) {
    const sentAt = h.sentAt[h.openSeq & (RING - 1)] ?? now;
    const answered = h.answered[h.openSeq & (RING - 1)] === 1;
    h.openSeq++;
    if (!answered) miss(h, sentAt);
  }
}

/** Misses suffice for Down. */
export function looksDown(h: HealthState): boolean {
  return h.missed >= h.config.threshold || h.forgiven >= h.config.threshold * FORGIVEN_PER_THRESHOLD;
}

/** The silence so far proves nothing: it was our own, or it is over. */
export function forgive(h: HealthState): void {
  h.missed = 0;
  h.forgiven = 0;
  h.silentFrom = Infinity;
  if (h.pendingSince === undefined) return;
  h.pendingSince = undefined;
  h.version++;
}

/** The link is Down from now on. */
export function setDown(h: HealthState, now: number): void {
  if (h.verdict === "Up") {
    h.flaps = Math.max(0, h.flaps - Math.floor((now - h.since) / FLAP_DECAY_MS));
    h.flaps = Math.min(h.flaps + 1, 32);
    h.holdDownMs = quietPeriod(h);
  }
  h.pendingSince = undefined;
  if (h.recovering) h.version++;
  h.quietSince = undefined;
  h.recovering = false;
  if (h.verdict !== "Down") setVerdict(h, "Down", now);
}

/** Ends quiet periods and forgets a gateway's word that is too old. */
export function settle(h: HealthState, now: number): void {
  if (h.verdict === "Down" && h.quietSince !== undefined && now - h.quietSince >= h.holdDownMs) setVerdict(h, "Up", now);
  // Only a good word fades. A bad one stays until the gateway takes it back: silence is no proof that its uplink is healed.
  if (h.gateway === "Serving" && now - h.gatewayAt >= STATE_SILENCE_MS) {
    h.gateway = "Unknown";
    h.version++;
  }
}

/** Answers again after it was Down, but not often enough yet. */
export function isReturning(h: HealthState): boolean {
  return h.verdict === "Down" && h.quietSince !== undefined && !h.recovering;
}

/** Whether the link answers at present, whatever its verdict. */
export function isAnswering(h: HealthState): boolean {
  return h.verdict === "Up" || h.recovering;
}

/** Changes interval, threshold or hold-down of a running link without forgetting what is known of it. */
export function setConfig(h: HealthState, config: HealthConfig): void {
  h.config = config;
  h.holdDownMs = quietPeriod(h);
}

/** What an election sees of the link. */
export function linkView(node: NodeName, h: HealthState): LinkView {
  return {
    node,
    verdict: h.verdict,
    since: h.since,
    gateway: h.gateway,
    ...(h.downPaths.length === 0 ? {} : { downPaths: h.downPaths }),
    srttMs: h.srttMs,
    ...(h.recovering && h.quietSince !== undefined ? { holdDownUntil: h.quietSince + h.holdDownMs } : {}),
  };
}

function quietPeriod({ config, flaps }: HealthState): number {
  return Math.min(config.holdDownMs * 2 ** Math.max(0, flaps - 1), Math.max(MAX_HOLD_DOWN_MS, config.holdDownMs));
}

function miss(h: HealthState, sentAt: number): void {
  if (!looksDown(h)) h.lastMissSentAt = sentAt;
  h.missed++;
  h.silentFrom = Math.min(h.silentFrom, sentAt);
  h.answersInRow = 0;
}

function sample(h: HealthState, rtt: number): void {
  if (h.srttMs === undefined) {
    h.srttMs = rtt;
    h.rttvarMs = rtt / 2;
    return;
  }
  h.rttvarMs += (Math.abs(h.srttMs - rtt) - h.rttvarMs) / 4;
  h.srttMs += (rtt - h.srttMs) / 8;
}

function setVerdict(h: HealthState, verdict: LinkVerdict, now: number): void {
  h.verdict = verdict;
  h.since = now;
  h.version++;
  if (verdict !== "Up") return;
  h.everUp = true;
  h.quietSince = undefined;
  h.recovering = false;
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}
