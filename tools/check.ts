/**
 * `isthmus test`: every gate of the repository, in order of cost. Prints what it runs and how long it took, stops at
 * nothing, and fails if one gate failed. `isthmus test FILTER…` runs only the tests whose path holds a filter.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { countTests } from "./count-tests.ts";
import { type Gate, heedSignals, runGates } from "./gates.ts";
import { filesIn, leftBehind, networkNamespaces, PROCESSES } from "./leftovers.ts";
import { removeOrphans } from "./orphans.ts";

const root = join(import.meta.dirname, "..");
const tool = (name: string): string => join(root, "node_modules", ".bin", name);

const STATIC: readonly Gate[] = [
  { name: "types", argv: [tool("tsc"), "--noEmit"] },
  { name: "lint", argv: [tool("oxlint"), "--type-aware", "--deny-warnings"] },
  { name: "format", argv: [tool("oxfmt"), "--check"] },
  { name: "dead code", argv: [tool("knip"), "--no-progress"] },
];

async function main(filters: readonly string[]): Promise<number> {
  if (userInfo().uid !== 0) {
    console.error("isthmus test: the lab tests make network namespaces and need root; run it in a root shell or a container");
    return 7;
  }
  const scratch = mkdtempSync(join(tmpdir(), "isthmus-test-"));
  // What the gate leaves that they end is removed here, or by the next run where this one is killed.
  const stopped = heedSignals();
  try {
    await sweep();
    return await runAll(filters, scratch, stopped);
  } finally {
    await sweep();
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function sweep(): Promise<void> {
  const names = await removeOrphans();
  if (names.length > 0) console.error(`isthmus test: removed what killed tests had left: ${names.join(" ")}`);
}

async function runAll(filters: readonly string[], scratch: string, stopped: () => boolean): Promise<number> {
  const results = join(scratch, "results.json");
  const processes = join(scratch, "processes");
  mkdirSync(processes);
  process.env[PROCESSES] = processes;
  const tests: Gate = {
    name: "tests",
    argv: [tool("vitest"), "run", "--reporter=default", "--reporter=json", `--outputFile.json=${results}`, ...filters],
  };
  const gates = filters.length > 0 ? [tests] : [...STATIC, tests];
  console.log(`isthmus test: ${gates.map((gate) => gate.name).join(", ")} (Node ${process.versions.node}, ${cpus().length} cores)`);
  const before = networkNamespaces();
  const failed = await runGates(gates, root, stopped);
  const left = leftBehind(before, networkNamespaces(), filesIn(processes));
  if (left.length > 0) {
    console.error(`isthmus test: the tests left network namespaces behind: ${left.join(" ")}`);
    failed.push("clean-up");
  }
  console.log(failed.length === 0 ? "isthmus test: all green" : `isthmus test: FAILED: ${failed.join(", ")}`);
  const counted = countTests(readIfThere(results), !failed.includes("tests"));
  if (counted !== undefined) console.log(counted);
  return failed.length === 0 ? 0 : 1;
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

process.exitCode = await main(process.argv.slice(2));
