import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseSelector, selects } from "../../../mesh/model/selector.ts";

const labels = { location: "cloud", "isthmus.dev/site": "do", empty: "" };

describe("a label selector", () => {
  it.each([
    ["", true],
    ["location=cloud", true],
    ["location==cloud", true],
    ["location=onprem", false],
    ["location!=onprem", true],
    ["location!=cloud", false],
    ["nosuch!=x", true],
    ["nosuch=x", false],
    ["location", true],
    ["nosuch", false],
    ["!nosuch", true],
    ["!location", false],
    ["empty=", true],
    ["isthmus.dev/site=do,location=cloud", true],
    ["isthmus.dev/site=do,location=onprem", false],
    ["location in (onprem, cloud)", true],
    ["location notin (onprem,cloud)", false],
    ["location in (onprem),empty", false],
  ])("%j selects: %s", (text, expected) => {
    expect(selects(parseSelector(text), labels)).toBe(expected);
  });

  it.each(["a=b=c", "a b", "=x", "a in b", "a in (b", "!", "a>1", "a=$"])("%j is not understood, and the error says what would be", (text) => {
    expect(() => parseSelector(text)).toThrow(/is not understood/);
  });

  it("and its negation never both select", () => {
    const key = fc.constantFrom("location", "empty", "nosuch");
    const value = fc.constantFrom("cloud", "", "x");
    fc.assert(fc.property(key, value, (k, v) => selects(parseSelector(`${k}=${v}`), labels) !== selects(parseSelector(`${k}!=${v}`), labels)));
  });
});
