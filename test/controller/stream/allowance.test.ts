import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createBucket } from "../../../controller/bucket.ts";
import { BYTES, CONNECTION_MESSAGES, createAllowance, MESSAGES } from "../../../controller/stream/allowance.ts";

describe("a bucket", () => {
  test("gives its burst at once, then only its rate, and is full again after a silence", () => {
    const bucket = createBucket({ perSecond: 10, burst: 5 });
    const waits = Array.from({ length: 7 }, () => bucket.take(1, 1_000));
    expect(waits).toEqual([0, 0, 0, 0, 0, 100, 200]);
    expect([bucket.ahead(1_150), bucket.ahead(1_200), bucket.idle(1_200)]).toEqual([50, 0, false]);
    expect([bucket.idle(1_699), bucket.idle(1_700)]).toEqual([false, true]);
  });

  test("never lets more through than burst and rate, when whoever is ahead waits", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ after: fc.integer({ min: 0, max: 500 }), amount: fc.integer({ min: 1, max: 20 }) }), { maxLength: 100 }),
        (steps) => {
          const rate = { perSecond: 20, burst: 40 };
          const bucket = createBucket(rate);
          let [now, taken] = [0, 0];
          for (const { after, amount } of steps) {
            now += after + bucket.ahead(now);
            bucket.take(amount, now);
            // What was taken last may reach beyond; the next one waits for it.
            expect(taken).toBeLessThanOrEqual(rate.burst + (now / 1_000) * rate.perSecond + 1e-6);
            taken += amount;
          }
        },
      ),
    );
  });
});

describe("a node's allowance", () => {
  test("is not used up by an agent that reports each second and comes back after a long time with a thousand views", () => {
    const allowance = createAllowance();
    expect(allowance.spend({ messages: CONNECTION_MESSAGES, bytes: 0 }, 0)).toBe(0);
    for (let i = 0; i < 1_000; i++) expect(allowance.spend({ messages: 1, bytes: 6_000 }, 0)).toBe(0);
    expect(allowance.events(500, 0)).toBe(500);
    for (let at = 1_000; at < 600_000; at += 1_000) expect(allowance.spend({ messages: 1, bytes: 20_000 }, at)).toBe(0);
  });

  test("is ahead after too many messages or too many bytes, whichever is worse", () => {
    const [many, long] = [createAllowance(), createAllowance()];
    expect(many.spend({ messages: MESSAGES.burst + MESSAGES.perSecond, bytes: 0 }, 0)).toBe(1_000);
    expect(long.spend({ messages: 1, bytes: BYTES.burst + 2 * BYTES.perSecond }, 0)).toBe(2_000);
    expect([long.ahead(500), long.ahead(2_000)]).toEqual([1_500, 0]);
  });

  test("takes few events of one who makes them all the time", () => {
    const allowance = createAllowance();
    let taken = 0;
    for (let at = 0; at < 60_000; at += 20) taken += allowance.events(100, at);
    expect(taken).toBeGreaterThan(500);
    expect(taken).toBeLessThan(900);
  });
});
