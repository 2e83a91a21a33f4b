import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createWakes } from "../../node-agent/wakes.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** The passes that run, each with the time at which it began and whether it looked first. */
function passes(): { readonly wakes: ReturnType<typeof createWakes>; readonly stop: AbortController; readonly seen: [number, boolean][] } {
  const start = performance.now();
  const wakes = createWakes(() => performance.now());
  const stop = new AbortController();
  const seen: [number, boolean][] = [];
  const run = async (): Promise<void> => {
    while (await wakes.next(stop.signal)) seen.push([performance.now() - start, wakes.takeLook()]);
    wakes.stop();
  };
  void run();
  return { wakes, stop, seen };
}

test("the first pass looks; after it one does that was asked to", async () => {
  const { wakes, seen } = passes();
  wakes.rouse();
  await vi.advanceTimersByTimeAsync(1);
  wakes.rouse();
  await vi.advanceTimersByTimeAsync(1);
  wakes.look();
  await vi.advanceTimersByTimeAsync(1);
  expect(seen).toEqual([
    [0, true],
    [1, false],
    [2, true],
  ]);
});

test("of several looks that are asked for the earliest counts", async () => {
  const { wakes, seen } = passes();
  wakes.lookIn(15_000);
  wakes.lookIn(100);
  wakes.lookIn(700);
  await vi.advanceTimersByTimeAsync(20_000);
  expect(seen).toEqual([[100, true]]);
});

test("what comes while a pass runs is due after it, and one pass is enough for all of it", async () => {
  const wakes = createWakes(() => performance.now());
  const { signal } = new AbortController();
  wakes.rouse();
  expect(await wakes.next(signal)).toBe(true);
  wakes.rouse();
  wakes.rouse();
  expect(await wakes.next(signal)).toBe(true);
  const idle = wakes.next(signal);
  expect(await Promise.race([idle, vi.advanceTimersByTimeAsync(60_000)])).not.toBe(true);
});

test("ends when it is stopped, waiting or not", async () => {
  const { wakes, stop, seen } = passes();
  wakes.lookIn(100);
  wakes.at(performance.now() + 200, () => wakes.rouse());
  stop.abort();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(seen).toEqual([]);
  expect(await wakes.next(stop.signal)).toBe(false);
  expect(vi.getTimerCount()).toBe(0);
});
