import { expect, test, vi } from "vitest";
import { openEvents } from "../../../controller/reconcile/events.ts";
import { IsthmusError } from "../../../mesh/errors.ts";
import type { Store } from "../../../controller/store/types.ts";
import { eventually } from "../harness.ts";

const store = { notes: () => Promise.resolve(new Map()), note: () => Promise.resolve() } as unknown as Store;

test("one node's events do not push out those of the others, and its newest stay", async () => {
  let now = 0;
  const events = await openEvents(
    store,
    () => ++now,
    (error) => {
      throw error;
    },
  );
  events.record("calm", { type: "Warning", reason: "Drift", message: "once", about: "node" });
  events.record(undefined, { type: "Normal", reason: "Joined", message: "once", about: "node/calm" });
  for (let i = 0; i < 20_000; i++) events.record("noisy", { type: "Normal", reason: "Moved", message: `${i}`, about: "node" });
  const kept = events.list({});
  expect(kept.map(({ node }) => node).slice(0, 3)).toEqual(["calm", undefined, "noisy"]);
  expect(kept.at(-1)?.message).toBe("19999");
  expect(kept.length).toBeLessThan(1_000);
  await events.close();
});

test("what a full disk kept from being saved is saved when there is room, in its newest form", async () => {
  const saved = new Map<string, unknown>();
  let full = true;
  const failures: unknown[] = [];
  const events = await openEvents(
    {
      ...store,
      note: async (entries) => {
        if (full) throw new IsthmusError("DiskFull", "no space left");
        for (const [key, value] of entries) saved.set(key, value);
      },
    },
    () => 1,
    (error) => failures.push(error),
  );
  const drift = { type: "Warning", reason: "Drift", message: "a rule was removed", about: "node" } as const;
  events.record("one", drift);
  events.record("two", drift);
  await eventually(() => expect(failures).toHaveLength(1));
  events.record("one", drift);
  full = false;
  await events.close();
  expect([...saved.values()]).toEqual([expect.objectContaining({ node: "one", count: 2 }), expect.objectContaining({ node: "two", count: 1 })]);
});

test("a disk that stays full lets nothing pile up: what came and went meanwhile is not written, what was saved before is removed", async () => {
  const saved = new Map<string, unknown>();
  const sizes: number[] = [];
  let full = false;
  vi.useFakeTimers();
  try {
    const events = await openEvents(
      {
        ...store,
        note: async (entries) => {
          if (full) throw new IsthmusError("DiskFull", "no space left");
          sizes.push(entries.size);
          for (const [key, value] of entries) {
            if (value === undefined) saved.delete(key);
            else saved.set(key, value);
          }
        },
      },
      () => 1,
      () => {},
    );
    const round = async (name: string): Promise<void> => {
      for (let i = 0; i < 5_000; i++) events.record(undefined, { type: "Normal", reason: "Moved", message: `${name}-${i}`, about: "node" });
      await vi.advanceTimersByTimeAsync(10_000);
    };
    await round("before");
    expect(saved.size).toBe(5_000);
    full = true;
    for (const name of ["one", "two", "three", "four", "five", "six"]) await round(name);
    full = false;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(sizes.at(-1)).toBe(10_000);
    expect([...saved.values()]).toEqual(events.list({}));
    await events.close();
  } finally {
    vi.useRealTimers();
  }
});
