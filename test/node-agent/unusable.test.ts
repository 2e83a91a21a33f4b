import { describe, expect, test } from "vitest";
import type { Choice, LinkView, Rejected } from "../../mesh/elect/types.ts";
import type { PathId } from "../../mesh/model/plan.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import { unusableText } from "../../node-agent/unusable.ts";

const name = (text: string): NodeName => text as NodeName;
const choice = (active: readonly string[], rejected: Readonly<Record<string, Rejected["why"]>> = {}): Choice => ({
  active: active.map(name),
  reason: "Preferred",
  since: 0,
  rejected: Object.entries(rejected).map(([node, why]) => ({ node: name(node), why, since: 0 })),
  draining: [],
  wakeAt: undefined,
});
const link = (node: string, downPaths: readonly string[]): [NodeName, LinkView] => [
  name(node),
  { node: name(node), verdict: "Up", since: 0, gateway: "Serving", srttMs: 1, downPaths },
];
const said = (paths: Readonly<Record<string, Choice>>, links: readonly [NodeName, LinkView][] = []): string | undefined =>
  unusableText(new Map(Object.entries(paths) as [PathId, Choice][]), new Map(links));

describe("gateways that a node cannot use", () => {
  test("are named with why and for what, also while another one carries", () => {
    expect(said({ "egress/a": choice(["do2"], { do1: "Down" }), "egress/b": choice(["do2"], { do1: "Down" }) })).toBe(
      "do1: the link to it does not answer (egress/a, egress/b)",
    );
    expect(said({ "egress/a": choice(["do2"], { do1: "UplinkDown" }) })).toBe("do1: it says that its way out is down (egress/a)");
  });

  test("are not those that are healthy, unheard, drained or in their quiet time", () => {
    expect(said({ "egress/a": choice(["a"], { b: "LowerPreference", c: "Unknown", d: "Draining", e: "HoldDown", f: "Failback" }) })).toBeUndefined();
  });

  test("of a site that one does not reach are told only by the nodes that go through it", () => {
    const links = [link("a1", ["site/t"]), link("a2", [])];
    expect(said({ "via/s": choice(["a1"]) }, links)).toMatch(/^a1, which carries via\/s, does not reach site t:/);
    expect(said({ "via/s": choice(["a2"]) }, links)).toBeUndefined();
  });

  test("are few in words, however many there are", () => {
    const many = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`g${i}`, "Down" as const]));
    expect(said({ "egress/a": choice(["x"], many) })).toMatch(/and 55 more$/);
  });
});
