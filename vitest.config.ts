import { defineConfig } from "vitest/config";

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

/** Minutes of bad luck in whole labs; `isthmus test --long` runs them too. */
const LONG = ["drain", "drift", "intents", "lost-writes", "reach", "stall"].map((name) => `test/system/${name}.test.ts`);
const skipped = process.env["ISTHMUS_TEST_LONG"] === "1" ? [] : LONG;

export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["test/**/*.test.ts"], exclude: SYSTEM, testTimeout: 60_000, hookTimeout: 60_000 } },
      {
        test: {
          name: "system",
          include: SYSTEM,
          exclude: skipped,
          testTimeout: 180_000,
          hookTimeout: 180_000,
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
