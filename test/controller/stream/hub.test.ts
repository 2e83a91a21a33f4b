import { expect, test } from "vitest";
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
