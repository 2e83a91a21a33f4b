/**
 * `isthmus test`: every gate of the repository, in order of cost. Prints what it runs and how long it took, stops at
 * nothing, and fails if one gate failed. `isthmus test FILTER…` runs only the tests whose path holds a filter.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { countTests } from "./count-tests.ts";
import { filesIn, leftBehind, networkNamespaces, PROCESSES } from "./leftovers.ts";
import { removeOrphans } from "./orphans.ts";

interface Gate {
  readonly name: string;
  readonly argv: readonly string[];
}

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
  // Ctrl-C and TERM reach the gate that runs; what it leaves is removed here, or by the next run where this one is killed.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});
  try {
    await sweep();
    return runAll(filters, scratch);
  } finally {
    await sweep();
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function sweep(): Promise<void> {
  const names = await removeOrphans();
  if (names.length > 0) console.error(`isthmus test: removed what killed tests had left: ${names.join(" ")}`);
}

function runAll(filters: readonly string[], scratch: string): number {
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
  const failed: string[] = [];
  for (const gate of gates) {
    const outcome = run(gate);
    if (outcome !== "ok") failed.push(gate.name);
    if (outcome === "stopped") break;
  }
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

function run(gate: Gate): "ok" | "failed" | "stopped" {
  console.log(`\n── ${gate.name} ──`);
  const started = performance.now();
  const [command = "", ...args] = gate.argv;
  const result = spawnSync(command, args, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  const outcome = result.status === 0 ? "ok" : result.signal !== null || (result.status ?? 0) > 128 ? "stopped" : "failed";
  console.log(`${outcome === "ok" ? "ok" : "FAILED"}: ${gate.name} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
  return outcome;
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

process.exitCode = await main(process.argv.slice(2));
