import { defineConfig } from "vitest/config";
import { patient } from "./lab/patience.ts";
import { INSIDE, OUTSIDE } from "./tools/vm/suites.ts";

/**
 * Unit and property tests run side by side. What makes namespaces, processes or timing-sensitive traffic (`lab`,
 * `system`) runs one file at a time, so that tests measure the product and not each other.
 */
const SYSTEM = [
  "test/lab/**/*.test.ts",
  "test/node-agent/drivers/**/*.test.ts",
  "test/node-agent/*nodes*.test.ts",
  "test/node-agent/probe/**/*.test.ts",
  "test/system/**/*.test.ts",
];

/** `isthmus test kernel` runs one half inside of a virtual machine and drives one by the other; neither is part of `isthmus test`. */
const VIRTUAL = { inside: INSIDE, outside: OUTSIDE }[process.env["ISTHMUS_TEST_KERNEL"] ?? ""];
const named = { setupFiles: ["tools/name-process.ts"] };
const inTurn = { ...named, testTimeout: patient(180_000), hookTimeout: patient(180_000), fileParallelism: false };

export default defineConfig({
  test: {
    projects:
      VIRTUAL !== undefined
        ? [{ test: { name: "kernel", include: [...VIRTUAL], ...inTurn } }]
        : [
            {
              test: {
                ...named,
                name: "unit",
                include: ["test/**/*.test.ts"],
                exclude: [...SYSTEM, "test/kernel/**"],
                testTimeout: 60_000,
                hookTimeout: 60_000,
              },
            },
            { test: { name: "system", include: SYSTEM, ...inTurn, sequence: { groupOrder: 1 } } },
          ],
  },
});
