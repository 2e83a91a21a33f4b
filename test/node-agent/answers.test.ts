import { describe, expect, test } from "vitest";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import { desiredKernel } from "../../mesh/kernel/desired.ts";
import type { DesiredInput } from "../../mesh/kernel/types.ts";
import { GatewayHealth } from "../../mesh/model/health.ts";
import type { WgPublicKey } from "../../mesh/model/scalars.ts";
import { diffProposal } from "../../node-agent/answers.ts";
import { holdingsOf } from "../../node-agent/holdings.ts";
import type { Pass } from "../../node-agent/reconcile.ts";
import { HOST, key, rawViews } from "./plans.ts";

const raw = rawViews();
const holdings = holdingsOf(
  { lineage: "l", epoch: 1, revision: 1 },
  Object.fromEntries([...raw].map(([id, entries]) => [id, Object.fromEntries(entries)])),
);

function lastPass(): Pass {
  const { plan } = parsePlan(raw);
  if (plan === undefined) throw new Error("no plan");
  const input: DesiredInput = {
    plan,
    host: HOST,
    publicKey: key(1) as WgPublicKey,
    links: new Map(),
    choices: new Map(),
    deadLinks: new Set(),
    dial: new Map(),
    lanChoices: new Map(),
  };
  return { input, desired: desiredKernel(input) } as Pass;
}

const more = (count: number): Record<string, number> =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`d/34.0.${i >> 8}.${i & 255}/32`, 1]));
const diffOf = (count: number) => diffProposal({ views: { "egress/web": { put: more(count) } } }, holdings, lastPass()).changes;

describe("the difference that a proposed change makes here", () => {
  test("names every route", () => {
    const changes = diffOf(3);
    expect(changes.filter(({ area, action }) => area === "route" && action === "add").map(({ what }) => what)).toEqual(
      expect.arrayContaining([expect.stringContaining("34.0.0.2")]),
    );
    expect(changes.some(({ what }) => what.startsWith("and "))).toBe(false);
  });

  test("of a large intent ends with how many more there are: an answer must fit into one message", () => {
    const small = diffOf(3).length - diffOf(2).length;
    const all = diffOf(100).length + 4_900 * small;
    const changes = diffOf(5_000);
    expect(changes).toHaveLength(2_001);
    expect(changes.at(-1)).toMatchObject({ area: "route", what: `and ${all - 2_000} more` });
    expect(Buffer.byteLength(JSON.stringify(changes))).toBeLessThan(512 * 1024);
  });

  test("says what it would not route, and why", () => {
    const path = { created: 5, gateways: ["10.99.0.1"], table: 254, strategy: "Failover", health: GatewayHealth.parse({}) };
    const views = { "lanroute/office": { put: { lan: path, "d/192.0.2.0/24": 1 } } };
    const { changes, refused } = diffProposal({ views }, holdings, lastPass());
    expect(changes.filter(({ what }) => what.includes("192.0.2.0"))).toEqual([]);
    expect(refused).toEqual({ "lanroute/office": expect.stringMatching(/not routed: 192\.0\.2\.0\/24: NotReachable \(10\.99\.0\.1\)/) });
    expect(diffProposal({ views: {} }, holdings, lastPass())).not.toHaveProperty("refused");
  });
});
