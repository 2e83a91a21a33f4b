import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { applyFill, applyPutDelete, bucketHashes, createView, diffView, viewHash, type ViewState } from "../../../mesh/compile/views.ts";
import { createLiveView } from "../../../controller/stream/view-log.ts";
import { textFrame } from "../../../controller/stream/frame.ts";

/** Text of an unmasked frame. */
function unframe(frame: Buffer): string {
  const short = (frame[1] ?? 0) & 127;
  return frame.subarray(short < 126 ? 2 : short === 126 ? 4 : 10).toString("utf8");
}

function follow(state: ViewState, frame: Buffer): ViewState {
  const message = JSON.parse(unframe(frame)) as { t: string; p?: Record<string, unknown>; d?: string[]; b?: number[] };
  return message.t === "fill" ? applyFill(state, message.b, Object.entries(message.p ?? {})) : applyPutDelete(state, Object.entries(message.p ?? {}), message.d ?? []);
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
        const update = view.since(from.r, viewHash(from.state));
        expect(update).not.toBeUndefined();
        const end = update === "current" || update === undefined ? from.state : follow(from.state, update);
        expect(viewHash(end)).toBe(view.hash);
        const fill = view.fill(bucketHashes(from.state));
        expect(viewHash(fill === undefined ? from.state : follow(from.state, fill))).toBe(view.hash);
        expect(viewHash(follow(createView([["stale", 1]]), view.full()))).toBe(view.hash);
      }),
    );
  });

  test("a revision that is not in the log, or has another content there, is not answered by a delta", () => {
    const view = createLiveView("v", new Map([["a", 1]]), 5);
    view.apply({ put: new Map([["b", 2]]), delete: [] }, 6);
    expect(view.since(4, viewHash(createView([["a", 1]])))).toBeUndefined();
    expect(view.since(5, viewHash(createView([["a", 9]])))).toBeUndefined();
    expect(view.since(1, view.hash)).toBe("current");
  });

  test("a log that would grow without end forgets its beginning", () => {
    const view = createLiveView("v", new Map(), 1);
    const first = view.hash;
    for (let r = 2; r < 1_200; r++) view.apply({ put: new Map([["k", r]]), delete: [] }, r);
    expect(view.since(1, first)).toBeUndefined();
    expect(view.since(1_100, viewHash(createView([["k", 1_100]])))).toBeInstanceOf(Buffer);
  });

  test("frames of every length carry their text", () => {
    for (const length of [0, 125, 126, 65_535, 65_536, 100_000]) expect(unframe(textFrame("é".repeat(length)))).toBe("é".repeat(length));
  });
});
