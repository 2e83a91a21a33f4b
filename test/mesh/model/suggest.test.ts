import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { editDistance, nearest } from "../../../mesh/model/suggest.ts";

describe("edit distance", () => {
  it("is nothing between equals, symmetric, and at most the longer length", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 }), (a, b) => {
        const distance = editDistance(a, b);
        expect(distance === 0).toBe(a === b);
        expect(editDistance(b, a)).toBe(distance);
        expect(distance).toBeLessThanOrEqual(Math.max(a.length, b.length));
      }),
    );
  });

  it.each([
    ["kitten", "sitting", 3],
    ["gatewya", "gateway", 1],
    ["", "abc", 3],
  ])("from %j to %j is %i", (a, b, steps) => {
    expect(editDistance(a, b)).toBe(steps);
  });
});

describe("the nearest name", () => {
  const names = ["destinations", "excludedDestinations", "gateways", "snat", "health"];
  it.each([
    ["destination", "destinations"],
    ["gatways", "gateways"],
    ["Snat", "snat"],
    ["dest", "destinations"],
    ["colour", undefined],
    ["", undefined],
  ])("to %j is %j", (word, expected) => {
    expect(nearest(word, names)).toBe(expected);
  });
});
