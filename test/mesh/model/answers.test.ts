import { expect, test } from "vitest";
import { AgentDiff, MOST_CHANGES } from "../../../mesh/model/answers.ts";

const row = { area: "route", action: "add", what: "192.0.2.0/24" } as const;

test("what a node answers comes without control characters, and cut where nobody reads on", () => {
  const evil = "\u001b]0;owned\u0007192.0.2.0/24\u009b2K";
  const read = AgentDiff.parse({
    changes: [{ ...row, what: evil, to: "x".repeat(1_000_000) }],
    refused: { "lanroute/x": `${evil}${"y".repeat(1_000_000)}` },
  });
  expect(read.changes[0]?.what).toBe(" ]0;owned 192.0.2.0/24 2K");
  expect(JSON.stringify(read).length).toBeLessThan(10_000);
  expect(read.refused?.["lanroute/x"]).toMatch(/^ \]0;owned 192.0.2.0\/24 2Ky+…$/);
});

test("a node that answers without end is not understood", () => {
  const many = (count: number) => Array.from({ length: count }, () => row);
  expect(AgentDiff.safeParse({ changes: many(MOST_CHANGES + 1) }).success).toBe(true);
  expect(AgentDiff.safeParse({ changes: many(MOST_CHANGES + 2) }).success).toBe(false);
  const refused = Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`lanroute/r${i}`, "no"]));
  expect(AgentDiff.safeParse({ changes: [], refused }).success).toBe(false);
  expect(AgentDiff.safeParse({ changes: [], refused: { ["x".repeat(10_000)]: "no" } }).success).toBe(false);
});
