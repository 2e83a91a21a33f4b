/**
 * `isthmus test kernel`: the same code on a stock Debian kernel, in a virtual machine that needs no support by this one's
 * processor. First tests that run inside of it, then tests in which it is a node, with systemd and network managers of its own.
 * `isthmus test kernel FILTER…` runs only the files whose path holds a filter; flags go to vitest.
 */
import { spawnSync } from "node:child_process";
import { globSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { machineImage, makeDisk, TREE } from "./vm/image.ts";
import { OUTPUT, startMachine } from "./vm/machine.ts";
import { IN_MACHINE, WITH_MACHINE } from "./vm/suites.ts";

const root = join(import.meta.dirname, "..");
/** How much slower than this machine an emulated processor is, generously: its deadlines are that much longer. */
const PATIENCE = process.env["ISTHMUS_PATIENCE"] ?? "20";
const LONGEST_MS = 3 * 3_600_000;
/** For the image, the sockets and the file with the working tree. */
const scratch = mkdtempSync(join(tmpdir(), "isthmus-kernel-"));

async function main(argv: readonly string[]): Promise<number> {
  if (userInfo().uid !== 0) {
    console.error("isthmus test kernel: needs root for network namespaces and for the image; run it in a root shell or a container");
    return 7;
  }
  const failed: string[] = [];
  if (concerns(IN_MACHINE, argv) && !(await runInside(argv))) failed.push("in the machine");
  if (concerns(WITH_MACHINE, argv) && !runBeside(argv)) failed.push("with the machine");
  console.log(failed.length === 0 ? "isthmus test kernel: all green" : `isthmus test kernel: FAILED: ${failed.join(", ")}`);
  return failed.length === 0 ? 0 : 1;
}

/** Whether a file of these patterns is meant. */
function concerns(patterns: readonly string[], argv: readonly string[]): boolean {
  const flags = argv.findIndex((word) => word.startsWith("-"));
  const filters = flags < 0 ? argv : argv.slice(0, flags);
  return globSync([...patterns], { cwd: root }).some((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)));
}

async function runInside(argv: readonly string[]): Promise<boolean> {
  console.log("\n── in a virtual machine ──");
  const started = performance.now();
  const image = machineImage(say);
  const tree = join(scratch, "tree.img");
  makeDisk(root, tree, "3G");
  say("booting");
  await using machine = await startMachine({ image, tree, folder: scratch, memoryMb: 3072, onOutput: (text) => process.stdout.write(text) });
  const { out } = await machine.sh('. /etc/os-release; echo "$PRETTY_NAME, Linux $(uname -r)"');
  say(`${out.trim()}: up after ${seconds(started)}`);
  const env = `HOME=/root NO_COLOR=1 PATH=${TREE}/node_modules/.bin:$PATH ISTHMUS_TEST_KERNEL=machine ISTHMUS_PATIENCE=${PATIENCE}`;
  const words = argv.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  // Node does not write to such a device well; `cat` does.
  const piped = `set -o pipefail; vitest run "$@" 2>&1 | cat >${OUTPUT}`;
  const tests = await machine.sh(`cd ${TREE} && export ${env} && exec bash -c '${piped}' bash ${words}`, {
    timeoutMs: LONGEST_MS,
    mayFail: true,
  });
  return over("in the machine", tests.code === 0, started);
}

function runBeside(argv: readonly string[]): boolean {
  console.log("\n── with a virtual machine as a node ──");
  const started = performance.now();
  const { status } = spawnSync(join(root, "node_modules/.bin/vitest"), ["run", ...argv], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, ISTHMUS_TEST_KERNEL: "beside", ISTHMUS_PATIENCE: PATIENCE },
  });
  return over("with the machine", status === 0, started);
}

function over(what: string, ok: boolean, started: number): boolean {
  console.log(`${ok ? "ok" : "FAILED"}: ${what} (${seconds(started)})`);
  return ok;
}

function say(line: string): void {
  console.log(`isthmus test kernel: ${line}`);
}

function seconds(started: number): string {
  return `${((performance.now() - started) / 1000).toFixed(0)} s`;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
