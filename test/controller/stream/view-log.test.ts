import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { applyFill, applyPutDelete, bucketHashes, createView, diffView, viewHash, type ViewState } from "../../../mesh/compile/views.ts";
import { createLiveView } from "../../../controller/stream/view-log.ts";
import { textFrames, type Frames } from "../../../controller/stream/frame.ts";

/** Text of a message in unmasked frames; the first says text, the last that it is the last. */
function unframe(frames: Frames): string {
  expect(frames.map((frame) => frame[0])).toEqual(frames.map((_, i) => (i === 0 ? 1 : 0) | (i === frames.length - 1 ? 0x80 : 0)));
  return Buffer.concat(frames.map((frame) => frame.subarray(((frame[1] ?? 0) & 127) < 126 ? 2 : 4))).toString("utf8");
}

function follow(state: ViewState, frame: Frames): ViewState {
  const message = JSON.parse(unframe(frame)) as { t: string; p?: Record<string, unknown>; d?: string[]; b?: number[] };
  return message.t === "fill"
    ? applyFill(state, message.b, Object.entries(message.p ?? {}))
    : applyPutDelete(state, Object.entries(message.p ?? {}), message.d ?? []);
}

const content = fc.dictionary(fc.constantFrom(..."abcdefghij"), fc.integer({ min: 0, max: 5 }), { maxKeys: 10 });

describe("a view's delta log", () => {
  test("from any revision of any history the deltas lead to the view as it is now", () => {
    fc.assert(
      fc.property(fc.array(content, { minLength: 1, maxLength: 12 }), fc.nat(), (history, pick) => {
        const view = createLiveView("v", new Map(Object.entries(history[0] ?? {})), 1);
        const held = [{ r: 1, state: createView(Object.entries(history[0] ?? {})) }];
        for (const [i, next] of history.slice(1).entries()) {
          const last = held.at(-1)?.state ?? createView();
          const change = diffView(last.data, new Map(Object.entries(next)));
          if (change === undefined) continue;
          view.apply(change, i + 2);
          held.push({ r: i + 2, state: applyPutDelete(last, change.put, change.delete) });
        }
        const from = held[pick % held.length];
        if (from === undefined) return;
        const update = view.since(viewHash(from.state));
        expect(update).not.toBeUndefined();
        const end = update === "current" || update === undefined ? from.state : follow(from.state, update);
        expect(viewHash(end)).toBe(view.hash);
        const fill = view.fill(bucketHashes(from.state));
        expect(viewHash(fill === undefined ? from.state : follow(from.state, fill))).toBe(view.hash);
        expect(viewHash(follow(createView([["stale", 1]]), view.full()))).toBe(view.hash);
      }),
    );
  });

  test("content that never was in the log is not answered by a delta", () => {
    const view = createLiveView("v", new Map([["a", 1]]), 5);
    view.apply({ put: new Map([["b", 2]]), delete: [] }, 6);
    expect(view.since(viewHash(createView([["a", 9]])))).toBeUndefined();
    expect(view.since(viewHash(createView([["a", 1]])))).toBeInstanceOf(Array);
    expect(view.since(view.hash)).toBe("current");
  });

  test("a log that would grow without end forgets its beginning", () => {
    const view = createLiveView("v", new Map(), 1);
    const first = view.hash;
    for (let r = 2; r < 1_200; r++) view.apply({ put: new Map([["k", r]]), delete: [] }, r);
    expect(view.since(first)).toBeUndefined();
    expect(view.since(viewHash(createView([["k", 1_100]])))).toBeInstanceOf(Array);
  });

  test("agents that stand far back at nearby revisions get the same bytes, which lead each of them to the view as it is", () => {
    const view = createLiveView("v", new Map(), 0);
    const held: ViewState[] = [createView()];
    for (let r = 1; r <= 600; r++) {
      const change = { put: new Map([[`k${r % 50}`, r]]), delete: r % 7 === 0 ? [`k${(r + 3) % 50}`] : [] };
      view.apply(change, r);
      held.push(applyPutDelete(held.at(-1) ?? createView(), change.put, change.delete));
    }
    const updates = [130, 140, 150].map((r) => ({ state: held[r] ?? createView(), update: view.since(viewHash(held[r] ?? createView())) }));
    expect(new Set(updates.map(({ update }) => update)).size).toBe(1);
    for (const { state, update } of updates) {
      if (update === undefined || update === "current") throw new Error("no delta");
      expect(viewHash(follow(state, update))).toBe(view.hash);
    }
  });

  test("frames of every length carry their text", () => {
    for (const length of [0, 62, 63, 8_191, 8_192, 8_193, 100_000]) expect(unframe(textFrames("é".repeat(length)))).toBe("é".repeat(length));
  });
});
