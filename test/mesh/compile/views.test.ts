import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  applyFill,
  applyPutDelete,
  bucketHashes,
  bucketOf,
  BUCKETS,
  createView,
  diffView,
  diffViews,
  differingBuckets,
  entriesInBuckets,
  keyHash,
  viewHash,
} from "../../../mesh/compile/views.ts";

const key = fc.oneof(fc.constantFrom("network", "peer/a", "peer/b", "d/10.0.0.0/8"), fc.string({ maxLength: 8 }));
const value = fc.oneof(fc.constant(1), fc.string(), fc.record({ i: fc.nat(), e: fc.array(fc.string()) }));
const entries = fc.uniqueArray(fc.tuple(key, value), { selector: ([name]) => name, maxLength: 40 });

describe("a view's hash", () => {
  it("is 16 digits, zero when empty, and the same in any order", () => {
    expect(viewHash(createView())).toBe("0000000000000000");
    fc.assert(
      fc.property(entries, (list) => {
        const hash = viewHash(createView(list));
        expect(hash).toMatch(/^[0-9a-f]{16}$/);
        expect(viewHash(createView([...list].reverse()))).toBe(hash);
      }),
    );
  });

  it("after any changes is that of a view made afresh, in total and in every bucket", () => {
    fc.assert(
      fc.property(entries, entries, fc.array(key), (before, put, remove) => {
        const view = applyPutDelete(createView(before), put, remove);
        const model = new Map(before);
        for (const name of remove) model.delete(name);
        for (const [name, content] of put) model.set(name, content);
        expect(view.data).toEqual(model);
        const fresh = createView(model);
        expect(viewHash(view)).toBe(viewHash(fresh));
        expect(bucketHashes(view)).toEqual(bucketHashes(fresh));
      }),
    );
  });

  it("leaves the view before the change as it was", () => {
    const before = createView([["a", 1]]);
    const hash = viewHash(before);
    applyPutDelete(before, [["b", 2]], ["a"]);
    expect([viewHash(before), [...before.data]]).toEqual([hash, [["a", 1]]]);
  });

  it("adds up over more than 32 bits: the total is the sum of the buckets modulo 2^64", () => {
    const view = createView(Array.from({ length: 5000 }, (_, i) => [`peer/${i}`, { i }] as const));
    const sum = bucketHashes(view).reduce((total, hash) => (total + BigInt(`0x${hash}`)) & (2n ** 64n - 1n), 0n);
    expect(viewHash(view)).toBe(sum.toString(16).padStart(16, "0"));
  });

  it("differs for what differs little", () => {
    const hashes = new Set<string>();
    const add = (name: string, json: string): void => {
      const { hi, lo } = keyHash(name, json);
      hashes.add(`${hi}:${lo}`);
    };
    for (let i = 0; i < 20_000; i++) add(`d/10.${i >> 8}.${i & 255}.0/24`, "1");
    for (let i = 0; i < 20_000; i++) add("peer/a", JSON.stringify({ i }));
    for (const [name, json] of [
      ["a", "b1"],
      ["ab", "1"],
      ["", "ab1"],
      ["ab1", ""],
    ] as const)
      add(name, json);
    expect(hashes.size).toBe(40_004);
  });

  it("is the same for what went over the wire", () => {
    fc.assert(
      fc.property(entries, (list) => {
        const received = JSON.parse(JSON.stringify(list)) as typeof list;
        expect(viewHash(createView(received))).toBe(viewHash(createView(list)));
      }),
    );
  });

  it("does not change between versions: both ends compute it", () => {
    expect(
      viewHash(
        createView([
          ["peer/do1", { i: 3, s: "fra" }],
          ["d/10.0.0.0/8", 1],
        ]),
      ),
    ).toBe("2da496692716f55e");
    expect(bucketOf("peer/do1")).toBe(15);
  });
});

describe("buckets", () => {
  it("spread keys over all 256", () => {
    const counts = Array.from({ length: BUCKETS }, () => 0);
    for (let i = 0; i < 25_600; i++) counts[bucketOf(`peer/node-${i}`)]! += 1;
    expect(Math.min(...counts)).toBeGreaterThan(50);
    expect(Math.max(...counts)).toBeLessThan(160);
  });

  it("that differ tell what to send, and filling them makes both ends equal", () => {
    fc.assert(
      fc.property(entries, entries, (ours, theirs) => {
        const [controller, agent] = [createView(ours), createView(theirs)];
        const differing = differingBuckets(bucketHashes(controller), bucketHashes(agent));
        const filled = applyFill(agent, differing, entriesInBuckets(controller, differing));
        expect(viewHash(filled)).toBe(viewHash(controller));
        expect(new Map(filled.data)).toEqual(new Map(controller.data));
        expect(viewHash(applyFill(agent, undefined, ours))).toBe(viewHash(controller));
      }),
    );
  });

  it("are few when one key of many differs", () => {
    const many = Array.from({ length: 2000 }, (_, i) => [`d/10.${i >> 8}.${i & 255}.0/24`, 1] as const);
    const differing = differingBuckets(bucketHashes(createView(many)), bucketHashes(createView(many.slice(1))));
    expect(differing).toEqual([bucketOf("d/10.0.0.0/24")]);
  });
});

describe("diff of views", () => {
  it("applied to the old view gives the new one", () => {
    fc.assert(
      fc.property(entries, entries, (before, after) => {
        const change = diffView(new Map(before), new Map(after)) ?? { put: new Map(), delete: [] };
        expect(viewHash(applyPutDelete(createView(before), change.put, change.delete))).toBe(viewHash(createView(after)));
      }),
    );
  });

  it("says nothing of equal content in other objects", () => {
    expect(diffView(new Map([["a", { i: 1 }]]), new Map([["a", { i: 1 }]]))).toBeUndefined();
  });

  it("covers views that come and go, sorted", () => {
    const before = {
      views: new Map([
        ["mesh", new Map([["network", 1]])],
        [
          "egress/old",
          new Map([
            ["path", 1],
            ["d/10.0.0.0/8", 1],
          ]),
        ],
      ]),
    };
    const after = {
      views: new Map([
        ["mesh", new Map([["network", 1]])],
        ["route/new", new Map([["path", 2]])],
      ]),
    };
    expect([...diffViews(before, after)]).toEqual([
      ["egress/old", { put: new Map(), delete: ["d/10.0.0.0/8", "path"] }],
      ["route/new", { put: new Map([["path", 2]]), delete: [] }],
    ]);
    expect([...diffViews(undefined, after).keys()]).toEqual(["mesh", "route/new"]);
  });
});
