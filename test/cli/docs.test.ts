import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { referencePages } from "../../cli/docs.ts";

describe("docs/reference", () => {
  it.each([...referencePages()])("%s is up to date (node cli/docs.ts writes it)", (name, text) => {
    expect(readFileSync(new URL(`../../docs/reference/${name}`, import.meta.url), "utf8")).toBe(text);
  });
});
