import { describe, expect, test } from "vitest";
import { createLinkHealth, onAnswer, onSent } from "../../../mesh/elect/health.ts";
import { createLinkWatch, judgeWatch, onTimer, tellStalled, type LinkWatch } from "../../../mesh/elect/watch.ts";

const INTERVAL_MS = 100;

/** Two links that answer, judged and told. */
function running(): LinkWatch {
  const watch = createLinkWatch();
  watch.links = [0, 0].map(() => createLinkHealth({ intervalMs: INTERVAL_MS, threshold: 3, holdDownMs: 1_000 }, 0));
  step(watch, 0, 0);
  expect(step(watch, 100, 100)).toBe(false);
  return watch;
}

/** One run of the loop; every link answers at once. */
function step(watch: LinkWatch, dueAt: number, now: number): boolean {
  onTimer(watch, dueAt, now, INTERVAL_MS);
  for (const link of watch.links) onAnswer(link, onSent(link, now), now);
  return judgeWatch(watch, now);
}

describe("a loop that came late", () => {
  test("lets nothing move for an interval, and tells once when that is over", () => {
    const watch = running();
    expect(step(watch, 200, 290)).toBe(false);
    expect(tellStalled(watch)).toBe(true);
    expect(step(watch, 300, 300)).toBe(false);
    expect(tellStalled(watch)).toBe(true);
    expect(step(watch, 400, 400)).toBe(true);
    expect(tellStalled(watch)).toBe(false);
    expect(step(watch, 500, 500)).toBe(false);
  });

  test("tells nobody who was not told of its beginning", () => {
    const watch = running();
    expect([step(watch, 200, 290), step(watch, 300, 300), step(watch, 400, 400)]).toEqual([false, false, false]);
  });

  test("and comes late again is over only when it was on time", () => {
    const watch = running();
    for (let now = 290; now < 1_000; now += 90) {
      expect(step(watch, now - 60, now)).toBe(false);
      expect(tellStalled(watch)).toBe(true);
    }
    expect(step(watch, 1_100, 1_100)).toBe(true);
  });

  test("is not forgotten by asking again after its end and before the judgement", () => {
    const watch = running();
    step(watch, 200, 290);
    tellStalled(watch);
    onTimer(watch, 400, 400, INTERVAL_MS);
    expect(tellStalled(watch)).toBe(false);
    expect(judgeWatch(watch, 400)).toBe(true);
  });
});
