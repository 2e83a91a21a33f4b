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
/** Being worked on at one time, from all addresses, and from one: nobody takes all the places. */
const UNDER_WAY = 2_000;
const UNDER_WAY_OF_ADDRESS = 1_000;
/** Addresses that are remembered before those that were silent are forgotten. */
const REMEMBERED = 1_000;

export interface JoinLimit {
  /** Counts a call, whatever it brings. @throws {IsthmusError} `TooManyMessages` */
  admit(address: IpAddress | undefined): void;
  /**
   * Takes a place until it is disposed of. Only for a request that has come whole: whoever sends none to its end would hold the place
   * for as long as he likes. @throws {IsthmusError} `TooManyMessages`
   */
  begin(address: IpAddress | undefined): Disposable;
}

/** @param monotonic milliseconds of a clock that nobody sets */
export function createJoinLimit(monotonic: () => number): JoinLimit {
  const buckets = new Map<string, Bucket>();
  const ofAddress = new Map<string, number>();
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

  function count(key: string, by: 1 | -1): void {
    underWay += by;
    const held = (ofAddress.get(key) ?? 0) + by;
    if (held === 0) ofAddress.delete(key);
    else ofAddress.set(key, held);
  }

  return {
    admit(address) {
      if (address === undefined) return;
      const now = monotonic();
      const bucket = bucketOf(address, now);
      // What is refused costs nothing: those who try again would never be let in.
      if (bucket.ahead(now) > 0) throw tooMany(`more than ${OF_ADDRESS.perSecond} joins and renewals a second come from ${address}`);
      bucket.take(1, now);
    },
    begin(address) {
      const key = address === undefined ? "" : whose(address);
      if (underWay >= UNDER_WAY) throw tooMany(`the controller works on ${UNDER_WAY} joins and renewals already`);
      if ((ofAddress.get(key) ?? 0) >= UNDER_WAY_OF_ADDRESS)
        throw tooMany(`the controller works on ${UNDER_WAY_OF_ADDRESS} joins and renewals from ${address ?? "its own socket"} already`);
      count(key, 1);
      return { [Symbol.dispose]: () => count(key, -1) };
    },
  };
}

/** What limits are kept by: a machine has a whole /64 of IPv6 addresses to call from. */
export function whose(address: IpAddress): string {
  return address.includes(":") ? String(parseIp(address).value >> 64n) : address;
}

function tooMany(message: string): IsthmusError {
  return new IsthmusError("TooManyMessages", message, { remedy: "Try again in a few seconds." });
}
