import { describe, expect, test } from "vitest";
import { acceptPlan } from "../../node-agent/plan-guard.ts";
import { rawViews } from "./plans.ts";

const good = acceptPlan(rawViews(), undefined).plan;

describe("what becomes the plan", () => {
  test("I1: an empty one, one without network, without self, or without our own peer entry is not taken", () => {
    expect(good?.self.name).toBe("c");
    expect(acceptPlan(new Map(), good).plan).toBeUndefined();
    for (const [view, key] of [
      ["mesh", "network"],
      ["mesh", "peer/c"],
      ["node/c", "self"],
    ] as const) {
      const views = rawViews();
      views.get(view)?.delete(key);
      expect(acceptPlan(views, good).plan, `${view} ${key}`).toBeUndefined();
    }
  });

  test("an entry that this version does not understand leaves what stood before, with the reason", () => {
    const { plan, faults } = acceptPlan(rawViews({ "egress/web": { path: { future: true } }, mesh: { "peer/g1": { i: "one" } } }), good);
    expect(plan?.paths.get("egress/web")).toEqual(good?.paths.get("egress/web"));
    expect(plan?.peers.get("g1" as never)).toEqual(good?.peers.get("g1" as never));
    expect([...(plan?.peers.keys() ?? [])]).toEqual(["c", "g1", "g2"]);
    expect(faults).toContain("egress/web path");
  });

  test("what is no longer there goes, and an unknown kind is only named", () => {
    const views = rawViews({ "teleport/x": { a: 1 } });
    views.delete("egress/web");
    const { plan, faults } = acceptPlan(views, good);
    expect(plan?.paths.size).toBe(0);
    expect(faults).toContain("teleport/x");
  });
});
