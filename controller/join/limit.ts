/**
 * How many joins and renewals a controller takes: anybody may send them, and each costs a check of a signature and a place in
 * the store's queue, on the thread that answers the agents' heartbeats.
 */
import { IsthmusError } from "../../mesh/errors.ts";
import type { IpAddress } from "../../mesh/model/scalars.ts";
import { parseIp } from "../../mesh/net/ip.ts";
import { createBucket, type Bucket, type Rate } from "../bucket.ts";

/** Of one address. A thousand machines behind one NAT may join at once, twice. */
const OF_ADDRESS: Rate = { perSecond: 50, burst: 2_000 };
/** Being worked on at one time, from all addresses. */
const UNDER_WAY = 2_000;
/** Addresses that are remembered before those that were silent are forgotten. */
const REMEMBERED = 1_000;

export interface JoinLimit {
  /** @throws {IsthmusError} `TooManyMessages` */
  admit(address: IpAddress | undefined): void;
  /** One that was admitted is answered, or its connection is gone. */
  done(): void;
}

/** @param monotonic milliseconds of a clock that nobody sets */
export function createJoinLimit(monotonic: () => number): JoinLimit {
  const buckets = new Map<string, Bucket>();
  let sweepAt = REMEMBERED;
  let underWay = 0;

  function bucketOf(address: IpAddress, now: number): Bucket {
    const key = whose(address);
    const bucket = buckets.get(key) ?? createBucket(OF_ADDRESS);
    buckets.set(key, bucket);
    if (buckets.size > sweepAt) {
      for (const [other, one] of buckets) if (one !== bucket && one.idle(now)) buckets.delete(other);
      sweepAt = Math.max(REMEMBERED, 2 * buckets.size);
    }
    return bucket;
  }

  return {
    admit(address) {
      if (underWay >= UNDER_WAY) throw tooMany(`the controller works on ${UNDER_WAY} joins and renewals already`);
      if (address !== undefined) {
        const now = monotonic();
        const bucket = bucketOf(address, now);
        // What is refused costs nothing: those who try again would never be let in.
        if (bucket.ahead(now) > 0) throw tooMany(`more than ${OF_ADDRESS.perSecond} joins and renewals a second come from ${address}`);
        bucket.take(1, now);
      }
      underWay++;
    },
    done: () => void underWay--,
  };
}

/** A machine has a whole /64 of IPv6 addresses to call from. */
function whose(address: IpAddress): string {
  return address.includes(":") ? String(parseIp(address).value >> 64n) : address;
}

function tooMany(message: string): IsthmusError {
  return new IsthmusError("TooManyMessages", message, { remedy: "Try again in a few seconds." });
}
