import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bucketHashes, createView, entriesInBuckets, differingBuckets, viewHash } from "../../mesh/compile/views.ts";
import type { ControllerMessage, Position } from "../../mesh/model/wire.ts";
import { beatOf, helloOf, type Holdings, holdingsOf, isBehind, NOTHING_HELD, proposed, receive, viewData } from "../../node-agent/holdings.ts";

const AT: Position = { lineage: "l", epoch: 1, revision: 10 };
const HELD = holdingsOf(AT, { mesh: { network: 1, "peer/a": 1, "peer/b": 2 }, "node/a": { self: 1 }, "egress/web": { path: 1 } });
const hello = (fields: Partial<Extract<ControllerMessage, { t: "hello" }>> = {}): ControllerMessage => ({
  t: "hello",
  at: AT,
  format: 1,
  network: "isthmus" as never,
  views: ["mesh", "node/a", "egress/web"],
  recovering: false,
  now: 0,
  ...fields,
});
const after = (holdings: Holdings, ...messages: ControllerMessage[]): Holdings =>
  messages.reduce((held, message) => receive(held, message).holdings, holdings);
const keys = (holdings: Holdings, view: string): string[] => [...(holdings.views.get(view)?.view.data.keys() ?? [])].toSorted();

describe("messages of a healthy controller", () => {
  test("the first contact holds the plan back until every view is here", () => {
    let held = after(NOTHING_HELD, hello());
    expect([...held.awaiting]).toEqual(["mesh", "node/a", "egress/web"]);
    held = after(held, { t: "fill", v: "mesh", r: 10, p: { network: 1 } }, { t: "fill", v: "node/a", r: 10, p: { self: 1 } });
    expect([...held.awaiting]).toEqual(["egress/web"]);
    expect(after(held, { t: "fill", v: "egress/web", r: 10, p: {} }).awaiting.size).toBe(0);
  });

  test("a delta puts and deletes, and raises the position that was seen", () => {
    const held = after(HELD, hello(), { t: "delta", v: "mesh", r: 11, p: { "peer/c": 3 }, d: ["peer/b"] });
    expect(keys(held, "mesh")).toEqual(["network", "peer/a", "peer/c"]);
    expect(held.seen).toEqual({ ...AT, revision: 11 });
  });

  test("the seal of the furthest position is kept and shown, and never one of another position", () => {
    const seen = (held: Holdings): Position | undefined => {
      const said = helloOf(held, { node: "a", version: "", bootId: "", machineId: "" });
      return said.t === "hello" ? said.seen : undefined;
    };
    const held = after(HELD, hello({ at: { ...AT, seal: "ten" } }));
    expect(seen(held)).toEqual({ ...AT, seal: "ten" });
    expect(seen(after(held, { t: "delta", v: "mesh", r: 12, s: "twelve", p: { x: 1 } }))).toEqual({ ...AT, revision: 12, seal: "twelve" });
    expect(seen(after(held, { t: "fill", v: "mesh", r: 9, s: "nine", p: { x: 1 } }))).toEqual({ ...AT, seal: "ten" });
    expect(seen(after(held, { t: "fill", v: "mesh", r: 12, p: { x: 1 } }))).toEqual({ ...AT, revision: 12 });
  });

  test("a view that is no longer ours is dropped, by hello and by word", () => {
    expect(after(HELD, hello({ views: ["mesh", "node/a"] })).views.has("egress/web")).toBe(false);
    expect(after(HELD, hello(), { t: "views", add: ["subnet/dc1"], drop: ["egress/web"] })).toMatchObject({ awaiting: new Set(["subnet/dc1"]) });
  });

  test("what changes together is awaited together: in a hello, and before a change of several views", () => {
    const delta = (v: string): ControllerMessage => ({ t: "delta", v, r: 11, p: { x: 1 } });
    const fill: ControllerMessage = { t: "fill", v: "subnet/dc1", r: 11, p: { path: 1 } };
    const waits = (...messages: ControllerMessage[]): string[] => [...after(HELD, ...messages).awaiting];
    const announced: ControllerMessage = { t: "views", add: ["subnet/dc1"], drop: [], change: ["mesh", "egress/web", "unheard/of"] };
    expect(waits(announced)).toEqual(["subnet/dc1", "mesh", "egress/web"]);
    expect(waits(announced, delta("mesh"), fill)).toEqual(["egress/web"]);
    expect(waits(announced, delta("mesh"), fill, delta("egress/web"))).toEqual([]);
    expect(waits(announced, delta("mesh"), { t: "views", add: [], drop: ["egress/web"] }, fill)).toEqual([]);
    const stale = hello({ stale: ["mesh", "node/a", "unheard/of"] });
    expect(waits(stale)).toEqual(["mesh", "node/a"]);
    expect(waits(stale, delta("mesh"), delta("node/a"))).toEqual([]);
  });

  test("a delta of a view that was never filled asks for its content instead of guessing", () => {
    const result = receive(HELD, { t: "delta", v: "subnet/x", r: 11, p: { path: 1 } });
    expect(result).toMatchObject({ changed: false, send: [{ t: "buckets", v: "subnet/x" }] });
  });

  test("asked for buckets, it answers with hashes by which exactly the wrong part is replaced", () => {
    const theirs = createView([
      ["network", 1],
      ["peer/a", 9],
      ["peer/z", 1],
    ] as [string, unknown][]);
    const asked = receive(HELD, { t: "want", v: "mesh" }).send[0];
    if (asked?.t !== "buckets") throw new Error("no buckets");
    const wrong = differingBuckets(bucketHashes(theirs), asked.h);
    const held = after(HELD, { t: "fill", v: "mesh", r: 12, b: wrong, p: Object.fromEntries(entriesInBuckets(theirs, wrong)) });
    expect(viewHash(held.views.get("mesh")?.view ?? createView())).toBe(viewHash(theirs));
  });

  test("hello and heartbeat name the hash of every view", () => {
    const hash = viewHash(HELD.views.get("mesh")?.view ?? createView());
    expect(helloOf(HELD, { node: "a", version: "1", bootId: "b", machineId: "m" })).toMatchObject({
      t: "hello",
      seen: AT,
      views: { mesh: { r: 10, h: hash } },
    });
    expect(beatOf(HELD)).toMatchObject({ t: "beat", views: { mesh: hash } });
  });
});

describe("I1: no word of a controller that recovers, or that knows less, takes anything away", () => {
  const untrusted: [string, ControllerMessage][] = [
    ["recovering", hello({ recovering: true, views: ["mesh"] })],
    ["an older revision", hello({ at: { ...AT, revision: 9 }, views: ["mesh"] })],
    ["an older epoch", hello({ at: { ...AT, epoch: 0, revision: 99 }, views: ["mesh"] })],
    ["another store", hello({ at: { lineage: "other", epoch: 9, revision: 99 }, views: ["mesh"] })],
    ["an empty plan", hello({ views: [] })],
  ];

  test.each(untrusted)("%s", (_, greeting) => {
    const held = after(
      HELD,
      greeting,
      { t: "delta", v: "mesh", r: 1, d: ["peer/a", "peer/b", "network"] },
      { t: "fill", v: "mesh", r: 1, p: {} },
      { t: "views", add: [], drop: ["mesh", "node/a", "egress/web"] },
    );
    expect(viewData(held)).toEqual(viewData(HELD));
    expect(held.seen).toEqual(AT);
  });

  test("whatever it says, in any order, every entry that was held is still held", () => {
    const view = fc.constantFrom("mesh", "node/a", "egress/web", "subnet/x");
    const key = fc.constantFrom("network", "peer/a", "peer/b", "peer/c", "self", "path");
    const message: fc.Arbitrary<ControllerMessage> = fc.oneof(
      fc.record({ t: fc.constant("delta" as const), v: view, r: fc.nat(20), p: fc.dictionary(key, fc.nat(3)), d: fc.array(key, { maxLength: 3 }) }),
      fc.record({ t: fc.constant("fill" as const), v: view, r: fc.nat(20), p: fc.dictionary(key, fc.nat(3)) }),
      fc.record({ t: fc.constant("views" as const), add: fc.array(view, { maxLength: 2 }), drop: fc.array(view, { maxLength: 3 }) }),
    );
    fc.assert(
      fc.property(fc.array(message, { maxLength: 12 }), (messages) => {
        const held = after(HELD, hello({ recovering: true }), ...messages);
        for (const [id, before] of HELD.views) for (const name of before.view.data.keys()) expect(keys(held, id)).toContain(name);
      }),
    );
  });

  test("once it is whole again, its word counts and what it does not name goes", () => {
    const held = after(HELD, hello({ recovering: true, views: ["mesh"] }), hello({ at: { ...AT, epoch: 2 }, views: ["mesh", "node/a"] }));
    expect([...held.views.keys()]).toEqual(["mesh", "node/a"]);
    expect(held.seen).toEqual({ ...AT, epoch: 2 });
  });
});

test("a store that took the place of the one that was seen is followed from then on, but never into an empty plan", () => {
  const at: Position = { lineage: "new", epoch: 2, revision: 3 };
  expect(after(HELD, hello({ at, supersedes: ["l"] }))).toMatchObject({ guarded: false, seen: at });
  expect(after(HELD, hello({ at, supersedes: ["l"] }), { t: "delta", v: "mesh", r: 4, p: {}, d: ["peer/b"] }).seen).toEqual({ ...at, revision: 4 });
  expect(after(HELD, hello({ at, supersedes: ["another"] }))).toMatchObject({ guarded: true, seen: AT });
  expect(after(HELD, hello({ at, supersedes: ["l"], recovering: true }))).toMatchObject({ guarded: true, seen: AT });
  expect(after(HELD, hello({ at, supersedes: ["l"], views: [] })).views.size).toBe(3);
});

test("a position is behind by lineage, epoch, then revision", () => {
  expect(isBehind(undefined, AT)).toBe(false);
  expect(isBehind(AT, AT)).toBe(false);
  expect(isBehind(AT, { ...AT, epoch: 2, revision: 1 })).toBe(false);
  expect(isBehind(AT, { ...AT, revision: 9 })).toBe(true);
  expect(isBehind(AT, { ...AT, lineage: "x", epoch: 5 })).toBe(true);
});

test("a proposed change is tried on a copy", () => {
  const views = proposed(HELD, {
    views: { mesh: { put: { "peer/c": 3 }, delete: ["peer/a"] }, "subnet/x": { put: { path: 1 } } },
    drop: ["egress/web"],
  });
  expect([...views.keys()]).toEqual(["mesh", "node/a", "subnet/x"]);
  expect([...(views.get("mesh")?.keys() ?? [])]).toEqual(["network", "peer/b", "peer/c"]);
  expect(keys(HELD, "mesh")).toEqual(["network", "peer/a", "peer/b"]);
});
