/** How much one node may say. Pure: time is a parameter. */
import { type Bucket, createBucket, type Rate } from "../bucket.ts";

/** An honest agent reports once a second at most, and answers once for each of its views when it returns after a long time. */
export const MESSAGES: Rate = { perSecond: 50, burst: 2_000 };
/** The largest message that is read at all fits into the burst. */
export const BYTES: Rate = { perSecond: 512 * 1024, burst: 16 * 1024 * 1024 };
/** An agent keeps 500 events for the time without a controller. */
const EVENTS: Rate = { perSecond: 5, burst: 500 };
/** A connection costs a greeting and whatever the agent lacks: as much as so many messages. */
export const CONNECTION_MESSAGES = 50;

/** One node's; it outlives a connection, so that calling again pays nothing off. */
export interface Allowance {
  /** Gives how many milliseconds the node is ahead of what it may say. */
  spend(said: { readonly messages: number; readonly bytes: number }, now: number): number;
  ahead(now: number): number;
  /** How many of so many events are taken. */
  events(count: number, now: number): number;
  idle(now: number): boolean;
}

export function createAllowance(): Allowance {
  const [messages, bytes, events] = [MESSAGES, BYTES, EVENTS].map(createBucket) as [Bucket, Bucket, Bucket];
  return {
    spend: (said, now) => Math.max(messages.take(said.messages, now), bytes.take(said.bytes, now)),
    ahead: (now) => Math.max(messages.ahead(now), bytes.ahead(now)),
    events(count, now) {
      let taken = 0;
      while (taken < count && events.ahead(now) === 0) {
        events.take(1, now);
        taken++;
      }
      return taken;
    },
    idle: (now) => [messages, bytes, events].every((bucket) => bucket.idle(now)),
  };
}
