import { expect, test } from "vitest";
import { judgeIntent } from "../../../controller/reconcile/conditions.ts";
import { createReports } from "../../../controller/reconcile/reports.ts";
import type { CompileOutput } from "../../../mesh/compile/types.ts";
import type { Resource } from "../../../mesh/model/resources.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import type { ResourceResult } from "../../../mesh/model/wire.ts";

const [a, b, do1] = ["a", "b", "do1"] as NodeName[] as [NodeName, NodeName, NodeName];
const egress = { kind: "EgressGateway", metadata: { name: "web" }, spec: {} } as unknown as Resource<"EgressGateway">;

/** What is said of an egress with these nodes. */
function said(nodes: readonly NodeName[], results: Readonly<Record<string, ResourceResult>> = {}) {
  const reports = createReports(new Map());
  for (const [node, result] of Object.entries(results)) reports.merge(node as NodeName, { t: "report", results: { "egress/web": result } }, true);
  const status = { kind: "EgressGateway", name: "web", id: "egress/web", conditions: [], nodes, gateways: [do1] } as const;
  const output = { intentStatus: new Map([["EgressGateway/web", status]]) } as unknown as CompileOutput;
  return judgeIntent(egress, reports, output);
}

test("an intent that no node uses is not said to be ready", () => {
  expect(said([])?.conditions).toEqual([{ type: "Ready", status: "Unknown", reason: "NoNodes", message: "no node uses it" }]);
});

test("of nodes that fail the first is named with its reason in words; numbers agree with their nouns", () => {
  const failed = { ok: false, reason: "LastKnown", message: "no gateway is believed alive", nextHop: "do1" };
  const ready = (nodes: NodeName[], results: Parameters<typeof said>[1]): string | undefined => said(nodes, results)?.conditions[0]?.message;
  expect(ready([a], { a: failed })).toBe("1 of 1 node reports a fault; the first is a: LastKnown (no gateway is believed alive)");
  expect(ready([a, b], { a: failed, b: failed })).toMatch(/^2 of 2 nodes report a fault/);
  expect(ready([a], { a: { ok: true, reason: "Preferred", nextHop: "do1" } })).toBe("1 node");
  expect(ready([a], {})).toBe("1 of 1 node has not reported yet");
});

test("a node whose first probes have not spoken is waited for and fails nothing", () => {
  const unheard = { ok: false, reason: "NotHeardYet", message: "the first probes are on their way" };
  const fine = { ok: true, reason: "Preferred", nextHop: "do1" };
  const ready = (results: Parameters<typeof said>[1]): unknown => {
    const judged = said([a, b], results);
    return [judged?.rest.nodes, judged?.conditions[0]];
  };
  expect(ready({ a: unheard, b: fine })).toEqual([
    { total: 2, ready: 1, failing: 0 },
    { type: "Ready", status: "Unknown", reason: "Waiting", message: "1 of 2 nodes waits for the first probes of the gateways" },
  ]);
  expect(ready({ a: unheard })).toMatchObject([
    {},
    { reason: "Waiting", message: "1 of 2 nodes has not reported yet; 1 of 2 nodes waits for the first probes of the gateways" },
  ]);
});

test("a gateway that some node cannot use is named with why, while the intent stays ready", () => {
  const ok = (unusable?: ResourceResult["unusable"]): ResourceResult => ({
    ok: true,
    reason: "Preferred",
    ...(unusable === undefined ? {} : { unusable }),
  });
  const usable = (results: Parameters<typeof said>[1]): unknown => said([a, b], results)?.conditions.find(({ type }) => type === "GatewaysUsable");
  expect(usable({ a: ok(), b: ok() })).toBeUndefined();
  expect(usable({ a: ok([{ gateway: do1, why: "Down" }]), b: ok() })).toEqual({
    type: "GatewaysUsable",
    status: "False",
    reason: "GatewayDown",
    message: "cannot be used: do1 for 1 of 2 nodes (a): the link to it does not answer",
  });
  expect(said([a, b], { a: ok([{ gateway: do1, why: "UplinkDown" }]), b: ok() })?.conditions).toMatchObject([
    { type: "Ready", status: "True" },
    { type: "GatewaysUsable", reason: "UplinkDown" },
  ]);
  expect(usable({ a: ok([{ gateway: "gone" as NodeName, why: "Down" }]), b: ok() })).toBeUndefined();
});
