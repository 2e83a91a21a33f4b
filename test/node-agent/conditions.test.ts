import { expect, test } from "vitest";
import { createConditions } from "../../node-agent/conditions.ts";

test("conditions come, change and go, each change is told once, and what is so already is not told", () => {
  const told: string[] = [];
  const { set, all } = createConditions((list) => told.push(list.map(({ type, reason, message }) => `${type} ${reason} ${message}`).join("; ")));
  set("B", "Gone", undefined);
  set("B", "Why", "because");
  set("B", "Why", "because");
  set("A", "Why", "x".repeat(2_000));
  set("A", "Why", "x".repeat(3_000));
  set("B", "Another", "because");
  set("A", "", undefined);
  set("A", "", undefined);
  const long = `A Why ${"x".repeat(1_024)}`;
  expect(told).toEqual(["B Why because", `${long}; B Why because`, `${long}; B Another because`, "B Another because"]);
  expect(all()).toEqual([{ type: "B", status: "True", reason: "Another", message: "because" }]);
});
