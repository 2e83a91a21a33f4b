import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { allocate, claim, free, isAllocated, skip, NO_ALLOCATIONS, QUARANTINE_MS, type AllocationState } from "../../../mesh/net/allocate.ts";

const HOUR = 3_600_000;

function take(state: AllocationState, now: number, max: number): { index: number; state: AllocationState } {
  const got = allocate(state, now, max);
  if (!got.ok) throw new Error("exhausted");
  return got;
}

describe("allocation of indexes", () => {
  it("gives fresh ones from 1 on, and a freed one only when nothing fresh is left", () => {
    let state = take(NO_ALLOCATIONS, 0, 3).state;
    state = free(state, 1, 0);
    const second = take(state, 48 * HOUR, 3);
    expect(second.index).toBe(2);
    const third = take(second.state, 48 * HOUR, 3);
    expect(third.index).toBe(3);
    expect(take(third.state, 48 * HOUR, 3).index).toBe(1);
  });

  it("lets a freed index rest, and says until when", () => {
    const state = free(take(NO_ALLOCATIONS, 0, 1).state, 1, 10 * HOUR);
    expect(allocate(state, 33 * HOUR, 1)).toEqual({ ok: false, reason: "Exhausted", retryAt: 34 * HOUR });
    expect(allocate(state, 34 * HOUR, 1)).toMatchObject({ ok: true, index: 1 });
  });

  it("gives the one freed longest ago first", () => {
    let state = NO_ALLOCATIONS;
    for (let i = 0; i < 3; i++) state = take(state, 0, 3).state;
    state = free(free(free(state, 2, 5), 3, 1), 1, 9);
    expect(take(state, QUARANTINE_MS + 9, 3).index).toBe(3);
  });

  it("lets what was skipped rest, and gives it then", () => {
    const state = skip(take(NO_ALLOCATIONS, 0, 4).state, 2, HOUR);
    expect([2, 3].map((index) => isAllocated(state, index))).toEqual([false, false]);
    const fourth = take(state, HOUR, 4);
    expect(fourth.index).toBe(4);
    expect(allocate(fourth.state, 2 * HOUR, 4)).toEqual({ ok: false, reason: "Exhausted", retryAt: HOUR + QUARANTINE_MS });
    expect(take(fourth.state, HOUR + QUARANTINE_MS, 4).index).toBe(2);
  });

  it("loses none of those below one that its owner claims, and the owner of one of them may claim it still", () => {
    const state = claim(NO_ALLOCATIONS, 3, HOUR);
    expect([1, 2, 3].map((index) => isAllocated(state, index))).toEqual([false, false, true]);
    const both = claim(state, 1, HOUR);
    expect(isAllocated(both, 1)).toBe(true);
    expect(take(both, HOUR + QUARANTINE_MS, 3).index).toBe(2);
  });

  it("is exhausted without a date when all are held", () => {
    expect(allocate(take(NO_ALLOCATIONS, 0, 1).state, 0, 1)).toEqual({ ok: false, reason: "Exhausted" });
  });

  it("ignores what is freed twice or was never given", () => {
    const state = take(NO_ALLOCATIONS, 0, 9).state;
    const freed = free(state, 1, 0);
    expect(free(freed, 1, 5)).toBe(freed);
    for (const index of [0, 2, -1, 1.5, Number.NaN]) expect(free(state, index, 0)).toBe(state);
  });

  it("never gives an index that somebody holds or that still rests, whatever happens in which order", () => {
    const step = fc.record({ wait: fc.integer({ min: -HOUR, max: 30 * HOUR }), give: fc.boolean(), which: fc.nat(20) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), fc.integer({ min: 1, max: 6 }), (steps, max) => {
        const held = new Set<number>();
        const freedAt = new Map<number, number>();
        let state = NO_ALLOCATIONS;
        let now = 100 * HOUR;
        for (const { wait, give, which } of steps) {
          now += wait;
          if (give) {
            const got = allocate(state, now, max);
            if (!got.ok) {
              const all = Array.from({ length: max }, (_, i) => i + 1);
              expect(all.every((index) => held.has(index) || (freedAt.get(index) ?? -Infinity) + QUARANTINE_MS > now)).toBe(true);
              continue;
            }
            expect(held.has(got.index)).toBe(false);
            expect(got.index).toBeLessThanOrEqual(max);
            expect((freedAt.get(got.index) ?? -Infinity) + QUARANTINE_MS).toBeLessThanOrEqual(now);
            held.add(got.index);
            state = got.state;
          } else {
            const index = [...held][which % Math.max(1, held.size)];
            if (index === undefined) continue;
            state = free(state, index, now);
            held.delete(index);
            freedAt.set(index, now);
          }
          for (let index = 1; index <= max; index++) expect(isAllocated(state, index)).toBe(held.has(index));
          expect(JSON.parse(JSON.stringify(state))).toEqual(state);
        }
      }),
    );
  });
});
