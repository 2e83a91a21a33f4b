import { describe, expect, test } from "vitest";
import { readyCondition, STARTING, watchReady } from "../../../controller/reconcile/ready.ts";
import type { NodeReport } from "../../../controller/reconcile/reports.ts";

const here = { connected: true };
const saying = (...conditions: NonNullable<NodeReport["conditions"]>): Pick<NodeReport, "conditions"> => ({ conditions });
const said = (...given: Parameters<typeof readyCondition>): string => {
  const { status, reason } = readyCondition(...given);
  return `${status} ${reason}`;
};

describe("a node is ready", () => {
  test("when it is connected, has its plan in the kernel, and its first handshakes are over", () => {
    expect(said(undefined, undefined)).toBe("Unknown NeverSeen");
    expect(said({ connected: false }, saying())).toBe("False Disconnected");
    expect(said(here, undefined)).toBe("Unknown NotReported");
    expect(said(here, saying({ type: STARTING, status: "True", reason: "Handshakes", message: "with b" }))).toBe("False Starting");
    expect(said(here, saying({ type: "KernelRefused", status: "True", reason: "KernelRefused" }))).toBe("False KernelRefused");
    expect(said(here, saying({ type: "ClockWrong", status: "True", reason: "ClockWrong" }))).toBe("True Connected");
  });
});

describe("events of readiness", () => {
  function setUp(before: readonly string[] = []) {
    const state = new Map<string, boolean>();
    const told: string[] = [];
    const clock = { now: 0 };
    const watch = watchReady({
      nodes: () => state.keys(),
      ready: (node) =>
        state.get(node) === true
          ? { type: "Ready", status: "True", reason: "Connected" }
          : { type: "Ready", status: "False", reason: "Disconnected" },
      events: { record: (_node, { type, reason, about }) => void told.push(`${type} ${reason} ${about}`) },
      before,
      monotonic: () => clock.now,
    });
    const look = (change: Readonly<Record<string, boolean>> = {}): string[] => {
      for (const [node, ready] of Object.entries(change)) state.set(node, ready);
      told.length = 0;
      clock.now += 2_000;
      watch.sweep();
      return [...told];
    };
    return { state, clock, look };
  }

  test("tell each change once, and not of a node that was never ready", () => {
    const { clock, look } = setUp();
    clock.now = 60_000;
    expect(look({ a: false })).toEqual([]);
    expect(look({ a: true })).toEqual(["Normal NodeReady node/a"]);
    expect(look()).toEqual([]);
    expect(look({ a: false })).toEqual(["Warning NodeNotReady node/a"]);
    expect(look()).toEqual([]);
    expect(look({ a: true })).toEqual(["Normal NodeReady node/a"]);
  });

  test("do not tell that everybody returns to a controller that was restarted, but who does not", () => {
    const { look } = setUp(["a", "b"]);
    expect(look({ a: false, b: false })).toEqual([]);
    expect(look({ a: true })).toEqual([]);
    const later = Array.from({ length: 10 }, () => look()).flat();
    expect(later).toEqual(["Warning NodeNotReady node/b"]);
  });

  test("forget a node with its record", () => {
    const { state, clock, look } = setUp();
    clock.now = 60_000;
    look({ a: true });
    state.delete("a");
    expect(look()).toEqual([]);
    expect(look({ a: false })).toEqual([]);
    expect(look({ a: true })).toEqual(["Normal NodeReady node/a"]);
  });
});
