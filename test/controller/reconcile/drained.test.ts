import { describe, expect, test } from "vitest";
import { drainedCondition, NO_FLOWS } from "../../../controller/reconcile/drained.ts";
import type { IntentCompileStatus } from "../../../mesh/compile/types.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import type { ResourceResult } from "../../../mesh/model/wire.ts";

type Use =
  | "uses"
  | "drains"
  | "left"
  | "silent"
  | "offline"
  | "last of many"
  | "one of others"
  | "too many to name"
  | "left before"
  | "left long before"
  | "left on paper";

const CORDON = "2026-11-21T23:00:00.000Z";
const MANY = Array.from({ length: 8 }, (_, i) => `gw-frankfurt-${i}` as NodeName);

const intent = (clients: readonly string[]): IntentCompileStatus =>
  ({ kind: "EgressGateway", name: "e", id: "egress/e", conditions: [], nodes: clients, gateways: ["do1", "do2"] }) as unknown as IntentCompileStatus;

function resultOf(use: Use): ResourceResult | undefined {
  if (use === "silent") return undefined;
  const many = { ok: true, reason: "x", nextHop: MANY.join().slice(0, 64), cordons: [{ gateway: "do1" as NodeName, cordon: CORDON }] };
  if (use === "last of many") return { ...many, active: [...MANY, "do1" as NodeName] };
  if (use === "one of others") return { ...many, active: MANY };
  if (use === "too many to name") return many;
  const cordon = use === "left before" ? "the one before" : CORDON;
  const result = { ok: true, reason: "x", nextHop: use === "uses" ? "do1" : "do2", cordons: [{ gateway: "do1" as NodeName, cordon }] };
  if (use === "left long before") return { ...result, cordons: [{ gateway: "do2" as NodeName, cordon: CORDON }] };
  if (use === "left on paper") return { ...result, ok: false, reason: "KernelRefused" };
  return use === "drains" ? { ...result, draining: ["do1" as NodeName] } : result;
}

function said(uses: Readonly<Record<string, Use>>, more: { readonly noFlows?: boolean; readonly overdue?: boolean } = {}): string {
  return judged(uses, more).slice(0, 2).join(" ");
}

function judged(uses: Readonly<Record<string, Use>>, more: { readonly noFlows?: boolean; readonly overdue?: boolean } = {}): string[] {
  const { status, reason, message } = drainedCondition({
    node: "do1",
    cordon: CORDON,
    intents: [intent(Object.keys(uses))],
    report(node) {
      const use = uses[node];
      if (use === undefined)
        return { results: new Map(), conditions: more.noFlows === true ? [{ type: NO_FLOWS, status: "True", reason: NO_FLOWS }] : [] };
      const result = resultOf(use);
      return { results: result === undefined ? new Map() : new Map([["egress/e", result]]) };
    },
    contact: (node) => ({ connected: uses[node] !== "offline" }),
    overdue: more.overdue ?? false,
  });
  return [status, reason, message ?? ""];
}

describe("a node is drained", () => {
  test("when no client uses it, and none keeps flows on it", () => {
    expect(said({ a: "left", b: "uses" })).toBe("False InUse");
    expect(said({ a: "left", b: "drains" })).toBe("False FlowsLeft");
    expect(said({ a: "left", b: "left" })).toBe("True NotUsed");
    expect(said({})).toBe("True NotUsed");
  });

  test("when it is none of many gateways either; an agent of an earlier version may not have named all", () => {
    expect(said({ a: "last of many" })).toBe("False InUse");
    expect(said({ a: "one of others" })).toBe("True NotUsed");
    expect(said({ a: "too many to name" })).toBe("False InUse");
  });

  test("not by what a client said before it knew: it may have moved there meanwhile", () => {
    for (const use of ["left before", "left long before"] as const) {
      expect(said({ a: use })).toBe("False Waiting");
      expect(said({ a: use }, { noFlows: true })).toBe("False Waiting");
      expect(said({ a: use }, { overdue: true })).toBe("True NotUsed");
    }
  });

  test("not by a client whose kernel did not do what it chose, for longer than the drain timeout; it is named", () => {
    expect(judged({ a: "left", b: "left on paper", c: "offline" })).toEqual(["False", "Waiting", "not heard from c yet; not taken up by b yet"]);
    expect(said({ b: "left on paper" }, { overdue: true })).toBe("True NotUsed");
  });

  test("once, and does not take that back when the clients let their flows go", () => {
    expect(said({ a: "drains", b: "left" }, { noFlows: true })).toBe("True NoFlowsLeft");
    expect(said({ a: "left", b: "left" }, { noFlows: true })).toBe("True NoFlowsLeft");
    expect(said({ a: "left", b: "left" })).toBe("True NotUsed");
  });

  test("before the drain timeout when the node itself sees no flow any more", () => {
    expect(said({ a: "drains" }, { noFlows: true })).toBe("True NoFlowsLeft");
    expect(said({ a: "uses" }, { noFlows: true })).toBe("False InUse");
  });

  test("only after the longest drain timeout where a client is not heard", () => {
    for (const use of ["silent", "offline"] as const) {
      expect(said({ a: "left", b: use })).toBe("False Waiting");
      expect(said({ a: "left", b: use }, { noFlows: true })).toBe("False Waiting");
      expect(said({ a: "left", b: use }, { overdue: true })).toBe("True NotUsed");
    }
    expect(said({ a: "uses" }, { overdue: true })).toBe("False InUse");
  });
});
