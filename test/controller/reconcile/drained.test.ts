import { describe, expect, test } from "vitest";
import { drainedCondition, NO_FLOWS } from "../../../controller/reconcile/drained.ts";
import type { IntentCompileStatus } from "../../../mesh/compile/types.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import type { ResourceResult } from "../../../mesh/model/wire.ts";

type Use = "uses" | "drains" | "left" | "silent" | "offline" | "last of many" | "one of others" | "too many to name" | "left before";

const MANY = Array.from({ length: 8 }, (_, i) => `gw-frankfurt-${i}` as NodeName);

const intent = (clients: readonly string[]): IntentCompileStatus =>
  ({ kind: "EgressGateway", name: "e", id: "egress/e", conditions: [], nodes: clients, gateways: ["do1", "do2"] }) as unknown as IntentCompileStatus;

function resultOf(use: Use): ResourceResult | undefined {
  if (use === "silent") return undefined;
  const many = { ok: true, reason: "x", nextHop: MANY.join().slice(0, 64) };
  if (use === "last of many") return { ...many, active: [...MANY, "do1" as NodeName] };
  if (use === "one of others") return { ...many, active: MANY };
  if (use === "too many to name") return many;
  const result = { ok: true, reason: "x", nextHop: use === "uses" ? "do1" : "do2" };
  return use === "drains" ? { ...result, draining: ["do1" as NodeName] } : result;
}

function said(uses: Readonly<Record<string, Use>>, more: { readonly noFlows?: boolean; readonly overdue?: boolean } = {}): string {
  const { status, reason } = drainedCondition({
    node: "do1",
    revision: 7,
    intents: [intent(Object.keys(uses))],
    report(node) {
      const use = uses[node];
      if (use === undefined)
        return { results: new Map(), conditions: more.noFlows === true ? [{ type: NO_FLOWS, status: "True", reason: NO_FLOWS }] : [] };
      const result = resultOf(use);
      const applied = { lineage: "l", epoch: 1, revision: use === "left before" ? 6 : 7, seal: "s" };
      return { applied, results: result === undefined ? new Map() : new Map([["egress/e", result]]) };
    },
    contact: (node) => ({ connected: uses[node] !== "offline" }),
    overdue: more.overdue ?? false,
  });
  return `${status} ${reason}`;
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
    expect(said({ a: "left before" })).toBe("False Waiting");
    expect(said({ a: "left before" }, { noFlows: true })).toBe("False Waiting");
    expect(said({ a: "left before" }, { overdue: true })).toBe("True NotUsed");
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
