/** The documentation's own promises: links that lead somewhere, and decisions that are numbered once and listed. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");

function pages(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? pages(path) : entry.name.endsWith(".md") ? [path] : [];
  });
}

/** GitHub's anchor of a heading. */
function anchors(page: string): string[] {
  return [...readFileSync(page, "utf8").matchAll(/^#+ (.*)$/gm)].map(([, text = ""]) =>
    text
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}

describe("the documentation", () => {
  test.each(["README.md", "CONTRIBUTING.md", ...pages("docs")])("%s links to what is there", (page) => {
    const targets = [...readFileSync(join(root, page), "utf8").matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = ""]) => target);
    const broken = targets.filter((target) => {
      if (/^[a-z]+:/.test(target)) return false;
      const [path = "", anchor] = target.split("#");
      const file = path === "" ? join(root, page) : join(root, dirname(page), path);
      return !existsSync(file) || (anchor !== undefined && !anchors(file).includes(anchor));
    });
    expect(broken).toEqual([]);
  });

  test("decisions have numbers of their own and are all in the index", () => {
    const files = readdirSync(join(root, "docs/decisions")).filter((name) => name !== "README.md");
    const numbers = files.map((name) => name.slice(0, 3));
    expect(numbers.filter((number, i) => numbers.indexOf(number) !== i)).toEqual([]);
    const index = readFileSync(join(root, "docs/decisions/README.md"), "utf8");
    expect(files.filter((name) => !index.includes(`(${name})`))).toEqual([]);
  });
});
