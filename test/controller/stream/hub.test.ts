import { describe, expect, test } from "vitest";
import { createHub, type Hub, type Receiver } from "../../../controller/stream/hub.ts";
import type { CompileOutput } from "../../../mesh/compile/types.ts";
import { bucketHashes, createView, viewHash } from "../../../mesh/compile/views.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { AgentHello, ControllerMessage } from "../../../mesh/model/wire.ts";
import { type Holdings, NOTHING_HELD, receive } from "../../../node-agent/holdings.ts";

const AT = { lineage: "l", epoch: 1, revision: 1 };
const LARGE = "x".repeat(5 * 1024 * 1024);
const OLD = { "peer/a": { i: 1 } };
const NEW = { "peer/a": { i: 2 } };

interface Agent extends Receiver {
  readonly messages: ControllerMessage[];
  held: Holdings;
  /** Lets the messages that were written leave. */
  read(): void;
}

/** Reads nothing until it is told to. */
function agent(name: string): Agent {
  const left: (() => void)[] = [];
  const one: Agent = {
    node: name as NodeName,
    views: new Set(),
    suspects: new Set(),
    surplus: new Set(),
    messages: [],
    held: NOTHING_HELD,
    read: () => left.splice(0).forEach((done) => done()),
    write(frames, sent) {
      // One frame each in these tests, except for the large one.
      const payload = frames.length > 1 ? undefined : frames[0]!.toString("utf8").replace(/^[^{]*/, "");
      if (payload !== undefined) {
        const message = ControllerMessage.parse(JSON.parse(payload));
        one.messages.push(message);
        one.held = receive(one.held, message).holdings;
      }
      if (sent !== undefined) left.push(sent);
    },
  };
  return one;
}

const output = (mesh: object): CompileOutput =>
  ({
    views: new Map([
      ["large", new Map([["text", LARGE]])],
      ["mesh", new Map(Object.entries(mesh))],
    ]),
    audience: new Map([
      ["slow" as NodeName, ["large"]],
      ["a" as NodeName, ["mesh"]],
    ]),
  }) as unknown as CompileOutput;

const hello = (node: string, mesh?: object): AgentHello =>
  AgentHello.parse({
    t: "hello",
    node,
    format: 1,
    version: "0",
    bootId: "b",
    machineId: "m",
    views: mesh === undefined ? {} : { mesh: { r: 1, h: viewHash(createView(Object.entries(mesh))) } },
  });

/** A hub whose buffer is full, with an agent `a` that was told that its view changed and that waits for its turn. */
function waiting(): { hub: Hub; a: Agent; slow: Agent } {
  const hub = createHub({ network: "isthmus", format: 1, now: () => 0, sealOf: () => "s" });
  hub.publish(output(NEW), 1);
  const [slow, a] = [agent("slow"), agent("a")];
  hub.attach(slow, hello("slow"), AT);
  a.held = { ...NOTHING_HELD, views: new Map([["mesh", { r: 1, view: createView(Object.entries(OLD)) }]]) };
  hub.attach(a, hello("a", OLD), AT);
  expect([...a.held.awaiting]).toEqual(["mesh"]);
  return { hub, a, slow };
}

test("an agent that waits for a view that was taken back before its turn hears so, and waits no longer", () => {
  const { hub, a, slow } = waiting();
  hub.publish(output(OLD), 2);
  expect([...a.held.awaiting]).toEqual(["mesh"]);
  slow.read();
  expect(a.messages.map(({ t }) => t)).toEqual(["hello", "delta"]);
  expect([...a.held.awaiting]).toEqual([]);
});

test("one whose content was unknown to the log hears so too when its buckets turn out to be the same", () => {
  const { hub, a, slow } = waiting();
  slow.read();
  // The log begins at the new content, so the buckets are asked for; meanwhile the change is taken back.
  expect(a.messages.at(-1)).toMatchObject({ t: "want", v: "mesh" });
  hub.detach(a);
  const again = agent("a");
  again.held = { ...NOTHING_HELD, views: new Map([["mesh", { r: 1, view: createView(Object.entries(NEW)) }]]), awaiting: new Set(["mesh"]) };
  hub.attach(again, hello("a", NEW), AT);
  again.held = { ...again.held, awaiting: new Set(["mesh"]) };
  expect(hub.answerBuckets(again, "mesh", bucketHashes(createView(Object.entries(NEW))))).toBe("same");
  expect([...again.held.awaiting]).toEqual([]);
});

test("an agent that asks for a view before its turn gets it when that comes", () => {
  const { hub, a, slow } = waiting();
  expect(hub.answerBuckets(a, "mesh", bucketHashes(createView(Object.entries(OLD))))).toBe("same");
  expect([...a.held.awaiting]).toEqual(["mesh"]);
  slow.read();
  expect(hub.answerBuckets(a, "mesh", bucketHashes(createView(Object.entries(OLD))))).toBe("filled");
  expect([...a.held.awaiting]).toEqual([]);
});

test("what could not be sent to the end is sent by the next try", () => {
  const hub = createHub({ network: "isthmus", format: 1, now: () => 0, sealOf: () => "s" });
  hub.publish(output(OLD), 1);
  const a = agent("a");
  hub.attach(a, hello("a", OLD), AT);
  const broken = agent("a");
  let breaks = false;
  const { write } = broken;
  broken.write = (frames, sent) => {
    if (breaks) throw new Error("broken");
    write(frames, sent);
  };
  hub.detach(a);
  hub.attach(broken, hello("a", OLD), AT);
  hub.attach(a, hello("a", OLD), AT);
  breaks = true;
  expect(() => hub.publish(output(NEW), 2)).toThrow("broken");
  breaks = false;
  expect(hub.publish(output(NEW), 2)).toBe(1);
  expect(a.messages.at(-1)).toMatchObject({ t: "delta", v: "mesh" });
  expect(hub.view("mesh")?.hash).toBe(viewHash(createView(Object.entries(NEW))));
});

describe("a controller that recovers", () => {
  const of = (views: Record<string, object>, audience = Object.keys(views)): CompileOutput =>
    ({
      views: new Map([
        ["large", new Map([["text", LARGE]])],
        ...Object.entries(views).map(([id, data]) => [id, new Map(Object.entries(data))] as const),
      ]),
      audience: new Map([
        ["slow" as NodeName, ["large"]],
        ["a" as NodeName, audience],
      ]),
    }) as unknown as CompileOutput;
  /** An agent that holds these views, greeted by a hub that recovers. */
  const met = (held: Record<string, object>, now: CompileOutput, busy = false): { hub: Hub; a: Agent; slow: Agent; whole: string[][] } => {
    const hub = createHub({ network: "isthmus", format: 1, now: () => 0, sealOf: () => "s" });
    hub.publish(now, 1);
    hub.setRecovering(true);
    const [slow, a] = [agent("slow"), agent("a")];
    if (busy) hub.attach(slow, hello("slow"), AT);
    const views = Object.entries(held).map(([id, data]) => [id, createView(Object.entries(data))] as const);
    a.held = { ...NOTHING_HELD, views: new Map(views.map(([id, view]) => [id, { r: 1, view }])) };
    const whole: string[][] = [];
    const { write } = a;
    // What the agent would apply, and when.
    a.write = (frames, sent) => {
      write(frames, sent);
      if (a.held.awaiting.size === 0) whole.push([...a.held.views].map(([id, { view }]) => `${id}=${[...view.data.values()].join()}`));
    };
    hub.attach(a, { ...hello("a"), views: Object.fromEntries(views.map(([id, view]) => [id, { r: 1, h: viewHash(view) }])) }, AT);
    return { hub, a, slow, whole };
  };

  test("lets no agent that comes back in the middle of a change of several views apply a half of it", () => {
    const { a, whole } = met({ x: { to: "a" }, y: { to: "a" } }, of({ x: { to: "b" }, y: { to: "b" } }));
    expect(whole).not.toContainEqual(["x=b", "y=a"]);
    expect(whole.at(-1)).toEqual(["x=b", "y=b"]);
    expect(a.held.guarded).toBe(true);
  });

  test("nor one that is connected, and has nobody wait for what it leaves out", () => {
    const { hub, a, whole } = met({}, of({ x: { to: "a" }, y: { to: "a" }, z: { gone: "a" } }));
    hub.publish(of({ x: { to: "b" }, y: { to: "b" }, z: {} }), 2);
    expect(whole).not.toContainEqual(["x=b", "y=a", "z=a"]);
    expect(whole.at(-1)).toEqual(["x=b", "y=b", "z=a"]);
    expect([...a.held.awaiting]).toEqual([]);
  });

  test("has nobody wait for a view that goes before its turn, and takes none away", () => {
    const { hub, a, slow } = met({ x: { to: "a" }, y: { to: "a" } }, of({ x: { to: "b" }, y: { to: "b" } }), true);
    expect([...a.held.awaiting]).toEqual(["x", "y"]);
    hub.publish(of({ x: { to: "b" } }), 2);
    slow.read();
    expect([...a.held.awaiting]).toEqual([]);
    expect([...a.held.views].map(([id, { view }]) => [id, ...view.data.values()])).toEqual([
      ["x", "b"],
      ["y", "a"],
    ]);
  });
});
