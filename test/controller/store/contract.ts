/** What every store backend must do. A backend's test file calls this with a way to open a fresh store. */
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Store, WatchEvent } from "../../../controller/store/types.ts";

export interface Backend {
  /** Opens the same store again on every call until `reset`. */
  open(): Promise<Store>;
  reset(): Promise<void>;
}

export function storeContract(name: string, backend: Backend): void {
  describe(`${name} keeps the store contract`, () => {
    let store: Store;
    beforeEach(async () => {
      await backend.reset();
      store = await backend.open();
    });
    afterEach(() => store.close());

    test("a new store has a lineage, epoch 1 and revision 0", async () => {
      const state = await store.state();
      expect(state).toMatchObject({ epoch: 1, revision: 0, recovering: false });
      expect(state.lineage.length).toBeGreaterThan(8);
    });

    test("everything of one transaction carries the same revision, also after reopening", async () => {
      const put = [
        { key: "n/a/2", value: { x: 2 } },
        { key: "n/a/1", value: [1] },
      ];
      expect(await store.txn({ put })).toEqual({ ok: true, revision: 1 });
      await store.close();
      store = await backend.open();
      const listing = await store.list("n/a/");
      expect(listing).toEqual({
        revision: 1,
        items: [
          { key: "n/a/1", value: [1], revision: 1 },
          { key: "n/a/2", value: { x: 2 }, revision: 1 },
        ],
      });
      expect(await store.get("n/a/1")).toEqual({ key: "n/a/1", value: [1], revision: 1 });
      expect(await store.get("n/a/9")).toBeUndefined();
    });

    test("a listing holds exactly the keys with the prefix", async () => {
      await store.txn({ put: ["a/b", "a/b/c", "a/bc", "a/c", "b", "a/bé"].map((key) => ({ key, value: 1 })) });
      expect((await store.list("a/b")).items.map((item) => item.key)).toEqual(["a/b", "a/b/c", "a/bc", "a/bé"]);
    });

    test("a transaction whose comparison fails changes nothing and names the key", async () => {
      await store.txn({ put: [{ key: "a", value: 1 }] });
      const result = await store.txn({
        compare: [
          { key: "a", revision: 1 },
          { key: "b", revision: 5 },
        ],
        put: [{ key: "a", value: 2 }],
        delete: ["a"],
      });
      expect(result).toEqual({ ok: false, conflict: "b" });
      expect(await store.get("a")).toMatchObject({ value: 1, revision: 1 });
    });

    test("revision 0 in a comparison means that the key must be absent", async () => {
      expect(await store.txn({ compare: [{ key: "a", revision: 0 }], put: [{ key: "a", value: 1 }] })).toMatchObject({ ok: true });
      expect(await store.txn({ compare: [{ key: "a", revision: 0 }], put: [{ key: "a", value: 2 }] })).toEqual({ ok: false, conflict: "a" });
    });

    test("writing the same value or deleting what is absent raises no revision", async () => {
      await store.txn({ put: [{ key: "a", value: { x: 1 } }] });
      expect(await store.txn({ put: [{ key: "a", value: { x: 1 } }], delete: ["zz"] })).toEqual({ ok: true, revision: 1 });
      expect(await store.get("a")).toMatchObject({ revision: 1 });
    });

    test("of many transactions at once that want one key, exactly one gets it", async () => {
      const results = await Promise.all(
        Array.from({ length: 100 }, (_, value) => store.txn({ compare: [{ key: "one", revision: 0 }], put: [{ key: "one", value }] })),
      );
      expect(results.filter((result) => result.ok)).toHaveLength(1);
    });

    test("a watch tells what came before and what comes after, once and in order", async () => {
      await store.txn({ put: [{ key: "a", value: 1 }] });
      await store.txn({ put: [{ key: "b", value: 1 }] });
      const stop = new AbortController();
      const seen: WatchEvent[] = [];
      const done = collect(store.watch(1, stop.signal), seen, 3, stop);
      await store.txn({ put: [{ key: "c", value: 2 }], delete: ["a"] });
      await store.txn({ put: [{ key: "d", value: 2 }] });
      await done;
      expect(seen).toEqual([
        { type: "changes", revision: 2, changes: [{ key: "b", revision: 2, value: 1 }] },
        {
          type: "changes",
          revision: 3,
          changes: expect.arrayContaining([
            { key: "c", revision: 3, value: 2 },
            { key: "a", revision: 3 },
          ]),
        },
        { type: "changes", revision: 4, changes: [{ key: "d", revision: 4, value: 2 }] },
      ]);
    });

    test("a watch from before the log, or from a future that this store never had, is told so", async () => {
      for (let i = 0; i < 10; i++) await store.txn({ put: [{ key: "a", value: i }] });
      await store.compact(3);
      const stop = new AbortController();
      for (const since of [6, 11]) {
        const seen: WatchEvent[] = [];
        await collect(store.watch(since, stop.signal), seen, 1, new AbortController());
        expect(seen).toEqual([{ type: "compacted" }]);
      }
      const inside: WatchEvent[] = [];
      await collect(store.watch(7, stop.signal), inside, 3, stop);
      expect(inside).toMatchObject([{ revision: 8 }, { revision: 9 }, { revision: 10 }]);
    });

    test("epoch and revision are raised and never sink, and Recovery is remembered", async () => {
      await store.raise({ epoch: 4, revision: 100, recovering: true });
      await store.raise({ epoch: 2, revision: 7 });
      await store.close();
      store = await backend.open();
      expect(await store.state()).toMatchObject({ epoch: 4, revision: 100, recovering: true });
      expect(await store.txn({ put: [{ key: "a", value: 1 }] })).toEqual({ ok: true, revision: 101 });
    });

    test("a transaction ends a Recovery together with what it writes, also when that is nothing, and not when it loses", async () => {
      await store.raise({ recovering: true });
      expect(await store.txn({ compare: [{ key: "a", revision: 7 }], recovering: false })).toMatchObject({ ok: false });
      expect(await store.txn({ put: [{ key: "a", value: 1 }] })).toMatchObject({ ok: true });
      expect(await store.state()).toMatchObject({ recovering: true });
      expect(await store.txn({ put: [{ key: "a", value: 2 }], recovering: false })).toEqual({ ok: true, revision: 2 });
      await store.close();
      store = await backend.open();
      expect(await store.state()).toMatchObject({ recovering: false, revision: 2 });
      await store.raise({ recovering: true });
      expect(await store.txn({ recovering: false })).toEqual({ ok: true, revision: 2 });
      expect(await store.state()).toMatchObject({ recovering: false });
    });

    test("a number that could no longer be counted up from is refused, and what was asked beside it is done", async () => {
      const [absurd, beside] = await Promise.allSettled([
        store.raise({ revision: Number.MAX_SAFE_INTEGER }),
        store.txn({ put: [{ key: "a", value: 1 }] }),
      ]);
      expect(absurd).toMatchObject({ status: "rejected", reason: { code: "BadRequest" } });
      expect(beside).toMatchObject({ status: "fulfilled", value: { ok: true } });
      await expect(store.raise({ epoch: -1 })).rejects.toMatchObject({ code: "BadRequest" });
    });

    test("notes are kept without raising the revision or waking a watch", async () => {
      await store.note(
        new Map<string, unknown>([
          ["seen/a", { at: 1 }],
          ["seen/b", 2],
          ["other", 3],
        ]),
      );
      await store.note(new Map([["seen/b", undefined]]));
      expect(await store.state()).toMatchObject({ revision: 0 });
      await store.close();
      store = await backend.open();
      expect(await store.notes("seen/")).toEqual(new Map([["seen/a", { at: 1 }]]));
    });

    test("replaying the watch of any history gives the listing", async () => {
      const operation = fc.record({ key: fc.constantFrom("a", "b", "c"), value: fc.option(fc.integer({ min: 0, max: 3 }), { nil: undefined }) });
      await fc.assert(
        fc.asyncProperty(fc.array(operation, { minLength: 1, maxLength: 12 }), async (operations) => {
          const before = await store.state();
          const start = (await store.list("")).items;
          await Promise.all(operations.map(({ key, value }) => store.txn(value === undefined ? { delete: [key] } : { put: [{ key, value }] })));
          const end = await store.list("");
          const seen: WatchEvent[] = [];
          const stop = new AbortController();
          if (end.revision > before.revision) await collect(store.watch(before.revision, stop.signal), seen, end.revision - before.revision, stop);
          const replayed = new Map(start.map((item) => [item.key, item.value]));
          for (const event of seen) {
            for (const change of event.type === "changes" ? event.changes : []) {
              if (change.value === undefined) replayed.delete(change.key);
              else replayed.set(change.key, change.value);
            }
          }
          expect(replayed).toEqual(new Map(end.items.map((item) => [item.key, item.value])));
        }),
        { numRuns: 30 },
      );
    });
  });
}

async function collect(events: AsyncIterable<WatchEvent>, into: WatchEvent[], count: number, stop: AbortController): Promise<void> {
  for await (const event of events) {
    into.push(event);
    if (into.length >= count) stop.abort();
  }
}
