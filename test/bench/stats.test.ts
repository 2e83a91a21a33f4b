import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { percentile, reached, type Row, summarise, table } from "../../bench/stats.ts";

const row = (fields: Partial<Row>): Row => ({ what: "a thing", unit: "ms", samples: [1, 2, 3], judge: "p99", ...fields });

describe("percentiles", () => {
  test("are samples by nearest rank, whatever their order", () => {
    const samples = [50, 15, 40, 20, 35];
    expect([0, 5, 30, 40, 50, 99, 100].map((p) => percentile(samples, p))).toEqual([15, 15, 20, 20, 35, 50, 50]);
    expect(samples).toEqual([50, 15, 40, 20, 35]);
  });

  test("of a hundred samples: p99 leaves out the worst one only", () => {
    const samples = Array.from({ length: 100 }, (_, i) => i + 1);
    expect([percentile(samples, 50), percentile(samples, 99), percentile(samples, 100)]).toEqual([50, 99, 100]);
  });

  test("of no samples are no numbers", () => {
    expect(percentile([], 50)).toBeNaN();
    expect(table([row({ samples: [] })])).toContain("–");
  });

  test("never leave the range of the samples and never fall as p rises", () => {
    const samples = fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }), { minLength: 1, maxLength: 50 });
    fc.assert(
      fc.property(samples, (values) => {
        const { min, median, p99, max, iqr, n } = summarise(values);
        expect(n).toBe(values.length);
        expect(min).toBe(Math.min(...values));
        expect(max).toBe(Math.max(...values));
        expect(min <= median && median <= p99 && p99 <= max).toBe(true);
        expect(iqr).toBeGreaterThanOrEqual(0);
      }),
    );
  });
});

describe("a target", () => {
  test("is held against the figure that it speaks of", () => {
    const samples = [...Array.from({ length: 99 }, () => 10), 900];
    expect(reached(row({ samples, judge: "median", target: 10 }))).toBe(true);
    expect(reached(row({ samples, judge: "p99", target: 10 }))).toBe(true);
    expect(reached(row({ samples, judge: "max", target: 899 }))).toBe(false);
    expect(reached(row({ samples, judge: "max", target: 900 }))).toBe(true);
  });

  test("that was not measured is not reached, and no target is neither", () => {
    expect(reached(row({ samples: [], target: 10 }))).toBe(false);
    expect(reached(row({}))).toBeUndefined();
  });

  test("of nothing at all is missed by one", () => {
    expect(reached(row({ samples: [0, 0, 1], judge: "max", target: 0 }))).toBe(false);
    expect(reached(row({ samples: [0, 0, 0], judge: "max", target: 0 }))).toBe(true);
  });
});

describe("the table", () => {
  test("says plainly what was missed", () => {
    const lines = table([row({ what: "fast", target: 5 }), row({ what: "slow", target: 1, compared: "others 9" }), row({ what: "told" })]).split(
      "\n",
    );
    expect(lines).toHaveLength(5);
    expect(lines[2]).toMatch(/^\| fast .* p99 ≤ 5 +\| yes /);
    expect(lines[3]).toMatch(/^\| slow .* p99 ≤ 1 +\| NO +\| others 9 /);
    expect(lines[4]).not.toMatch(/yes|NO|≤/);
  });

  test("has columns of one width, and figures of three digits", () => {
    const text = table([row({ samples: [0.1234] }), row({ samples: [12.345] }), row({ samples: [1234.5] })]);
    expect(new Set(text.split("\n").map((line) => line.length)).size).toBe(1);
    expect(text).toMatch(/ 0\.12 [^]* 12\.3 [^]* 1235 /);
  });
});
