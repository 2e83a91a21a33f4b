/** Holds the import limits of the architecture: who may know whom. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const AREAS = ["mesh", "controller", "node-agent", "cli", "dashboard", "lab", "bench", "tools"] as const;
type Area = (typeof AREAS)[number];

interface Import {
  readonly file: string;
  readonly target: string;
  /** `import("…")` in an expression: the command line starts the long-running commands that way. */
  readonly lazy: boolean;
}

/** May `from` import a file of `to`? Own area is always allowed. */
const ALLOWED: Record<Area, readonly Area[]> = {
  mesh: [],
  controller: ["mesh"],
  "node-agent": ["mesh"],
  cli: ["mesh"],
  dashboard: ["mesh"],
  // The lab does what an operator would do, by the same command line.
  lab: ["mesh", "cli"],
  bench: ["mesh", "lab", "controller", "node-agent"],
  tools: ["mesh", "lab"],
};

/** Packages that only some files may import. */
const ONLY: Record<string, (file: string) => boolean> = {
  "@kubernetes/client-node": (file) => file.startsWith("controller/kube/"),
  ioredis: (file) => file === "controller/store/redis.ts",
  execa: (file) => file === "node-agent/drivers/exec.ts" || file.startsWith("lab/"),
  // What users run starts processes in one place.
  "node:child_process": (file) => /^(bench|lab|tools)\//.test(file),
};

/** Every rule that one import breaks, as sentences. */
function faults({ file, target, lazy }: Import): string[] {
  const area = file.split("/")[0] as Area;
  if (!target.startsWith(".")) {
    const name = target.startsWith("@") ? target.split("/").slice(0, 2).join("/") : (target.split("/")[0] ?? target);
    const found: string[] = [];
    if (area === "mesh" && name !== "zod") found.push(`${file}: mesh/ is pure and imports only zod, not ${target}`);
    const only = ONLY[name];
    if (only !== undefined && !only(file)) found.push(`${file}: may not import ${name}`);
    return found;
  }
  const to = relative(root, resolve(root, dirname(file), target)).split("/")[0] as Area | "test" | "package.json";
  // The version stands in one place.
  if (to === area || to === "package.json") return [];
  if (area === "cli" && lazy) return [];
  return to !== "test" && ALLOWED[area].includes(to) ? [] : [`${file}: ${area}/ may not import ${target}`];
}

function* sources(folder: string): Generator<string> {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) yield* sources(path);
    else if (/\.tsx?$/.test(name)) yield path;
  }
}

function importsOf(path: string): Import[] {
  const text = readFileSync(path, "utf8");
  const file = relative(root, path);
  const still = [...text.matchAll(/^(?:import|export)\s[^;]*?from\s+"([^"]+)"|^import\s+"([^"]+)"/gm)].map((m) => ({
    file,
    target: m[1] ?? m[2] ?? "",
    lazy: false,
  }));
  const lazy = [...text.matchAll(/\bimport\("([^"]+)"\)/g)].map((m) => ({ file, target: m[1] ?? "", lazy: true }));
  return [...still, ...lazy];
}

describe("import limits", () => {
  test("nobody imports what the architecture forbids", () => {
    const all = AREAS.filter((area) => readdirSync(root).includes(area)).flatMap((area) => [...sources(join(root, area))].flatMap(importsOf));
    expect(all.length).toBeGreaterThan(50);
    expect(all.flatMap(faults)).toEqual([]);
  });

  test.each([
    [{ file: "mesh/net/ip.ts", target: "node:fs", lazy: false }],
    [{ file: "mesh/net/ip.ts", target: "../../controller/main.ts", lazy: false }],
    [{ file: "controller/main.ts", target: "../node-agent/main.ts", lazy: false }],
    [{ file: "node-agent/main.ts", target: "execa", lazy: false }],
    [{ file: "node-agent/probe/ping.ts", target: "node:child_process", lazy: false }],
    [{ file: "node-agent/main.ts", target: "../controller/main.ts", lazy: true }],
    [{ file: "cli/main.ts", target: "../controller/main.ts", lazy: false }],
    [{ file: "controller/api/x.ts", target: "@kubernetes/client-node", lazy: false }],
  ])("the check finds a planted fault: %o", (planted) => {
    expect(faults(planted)).toHaveLength(1);
  });
});
