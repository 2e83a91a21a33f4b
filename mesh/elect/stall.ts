/**
 * Telling our own fault from a gateway's. A link goes Down only on the word of another link: one that answered a probe which
 * was sent, and came back, while the missed ones were under way. Then this node could send and receive, and the silence is
 * the gateway's. Where all links are silent nothing is decided; and what was missed before the witness itself came back
 * from a silence is void.
 *
 * A single link has no witness. It goes Down by itself, which moves nothing: there is no alternative.
 */
import { collectMisses, forgive, isAnswering, looksDown, onVoidWindow, setDown, settle, type HealthState } from "./health.ts";

/** So long may all links be silent before they are called Down; the last choice stays all the same (I4). */
export const ALL_SILENT_MS = 10_000;

type Witness = "NotNeeded" | "Alive" | "WasSilentToo" | "Silent";

/** Whether a loop that should have run at `dueAt` came too late to judge the probes of this window. */
export function isLate(dueAt: number, now: number, intervalMs: number): boolean {
  return now - dueAt > intervalMs / 2;
}

/** This node's loop stood still: the open probes of all links are void. */
export function voidAll(links: readonly HealthState[]): void {
  for (const link of links) onVoidWindow(link);
}

/** Judges all links of this node at `now`; after a poll of the socket, never straight after a timer. */
export function judgeLinks(links: readonly HealthState[], now: number): void {
  for (const link of links) collectMisses(link, now);
  for (const link of links) {
    if (looksDown(link)) judgeSilent(link, links, now);
    settle(link, now);
  }
}

/** Links are silent and nobody can tell whose fault that is. */
export function isSilent(links: readonly HealthState[]): boolean {
  return links.some((link) => link.pendingSince !== undefined);
}

function judgeSilent(link: HealthState, links: readonly HealthState[], now: number): void {
  switch (link.verdict === "Up" ? witness(link, links) : "NotNeeded") {
    case "NotNeeded":
    case "Alive":
      setDown(link, now);
      break;
    case "WasSilentToo":
      forgive(link);
      break;
    case "Silent":
      if (link.pendingSince === undefined) {
        link.pendingSince = now;
        link.version++;
      } else if (now - link.pendingSince >= ALL_SILENT_MS) setDown(link, now);
      break;
  }
}

function witness(link: HealthState, links: readonly HealthState[]): Witness {
  let found: Witness = "NotNeeded";
  // One interval of slack is safe with two misses or more: an outage that began after the witness's answer would have
  // spared the first of them.
  const slack = link.config.threshold > 1 ? link.config.intervalMs : 0;
  const sentSince = link.lastMissSentAt - slack;
  const heardSince = sentSince + (link.srttMs ?? 0);
  for (const other of links) {
    // A link that is probed far less often cannot speak for this window.
    if (other === link || !isAnswering(other) || other.config.intervalMs > 2 * link.config.intervalMs) continue;
    if (other.lastAnswerSentAt >= sentSince && other.lastAnswerAt >= heardSince) {
      if (other.resumedSentAt <= link.silentFrom) return "Alive";
      found = "WasSilentToo";
    } else if (found === "NotNeeded") found = "Silent";
  }
  return found;
}
