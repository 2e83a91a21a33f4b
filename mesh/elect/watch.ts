/**
 * All links of one node, as its one probing loop knows them, and what elections were told of them. The caller owns the state,
 * runs the timer and the socket, and has elections made anew when there is news.
 *
 * An election that was told of a standstill held its choice, and nothing else may ever ask for it again: the end of the
 * standstill is news to it.
 */
import type { HealthState } from "./health.ts";
import { isLate, isSilent, judgeLinks, voidAll } from "./stall.ts";

export interface LinkWatch {
  links: readonly HealthState[];
  /** The loop came late: what it knows is too old to move anything, until it was on time after this moment. */
  lateUntil: number | undefined;
  /** Somebody was told that nothing may move, and not yet that this is over. */
  toldStalled: boolean;
}

export function createLinkWatch(): LinkWatch {
  return { links: [], lateUntil: undefined, toldStalled: false };
}

/** The loop runs at `now` and should have run at `dueAt`; before the socket is read. @param intervalMs the shortest of the links */
export function onTimer(watch: LinkWatch, dueAt: number, now: number, intervalMs: number): void {
  if (isLate(dueAt, now, intervalMs)) {
    voidAll(watch.links);
    watch.lateUntil = now + intervalMs;
  } else if (watch.lateUntil !== undefined && now >= watch.lateUntil) watch.lateUntil = undefined;
}

/** After the poll that followed the timer. True when elections are to be made anew. */
export function judgeWatch(watch: LinkWatch, now: number): boolean {
  judgeLinks(watch.links, now);
  return takeNews(watch);
}

/** Nothing may move: links are silent and nobody knows whose fault that is, or this process stood still a moment ago. */
export function tellStalled(watch: LinkWatch): boolean {
  const stalled = isStalled(watch);
  watch.toldStalled ||= stalled;
  return stalled;
}

/** Whether anything changed that an election looks at, since it was asked last. */
export function takeNews(watch: LinkWatch): boolean {
  let news = watch.toldStalled && !isStalled(watch);
  if (news) watch.toldStalled = false;
  for (const link of watch.links) {
    news ||= link.told !== link.version;
    link.told = link.version;
  }
  return news;
}

function isStalled({ lateUntil, links }: LinkWatch): boolean {
  return lateUntil !== undefined || isSilent(links);
}
