/**
 * `isthmus test kernel`: the same code on a stock Debian kernel, in virtual machines that need no support by this one's
 * processor. Tests run inside of one; another is a node itself, with systemd and network managers of its own. Both at once, a
 * core each. `isthmus test kernel FILTER…` runs only the files whose path holds a filter; flags go to vitest.
 */
import { globSync, mkdirSync } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { type Image, machineImage, makeDisk, TREE } from "./vm/image.ts";
import { OUTPUT, startMachine } from "./vm/machine.ts";
import { endInOrder, ownFolder, start } from "./vm/scratch.ts";
import { INSIDE, OUTSIDE } from "./vm/suites.ts";

const root = join(import.meta.dirname, "..");
/** The guest's own clock makes it an even machine, but not a fast one: deadlines inside are so much longer. Outside our clock is none of its. */
const PATIENCE = { inside: "4", outside: "40" };
const LONGEST_MS = 5 * 3_600_000;

async function main(argv: readonly string[]): Promise<number> {
  if (userInfo().uid !== 0) {
    console.error("isthmus test kernel: makes the image of a machine and needs root; run it in a root shell or a container");
    return 7;
  }
  endInOrder();
  // Once, before two want it.
  const image = await machineImage(say);
  const folder = ownFolder(tmpdir(), "isthmus-kernel-");
  const halves = [
    ...(concerns(INSIDE, argv) ? [timed("inside of a virtual machine", runInside(argv, image, join(folder, "inside")))] : []),
    ...(concerns(OUTSIDE, argv) ? [timed("a virtual machine as a node", runOutside(argv, join(folder, "outside")))] : []),
  ];
  const failed = (await Promise.all(halves)).flatMap(({ what, ok }) => (ok ? [] : [what]));
  console.log(failed.length === 0 ? "isthmus test kernel: all green" : `isthmus test kernel: FAILED: ${failed.join(", ")}`);
  return failed.length === 0 ? 0 : 1;
}

/** Whether a file of these patterns is meant. */
function concerns(patterns: readonly string[], argv: readonly string[]): boolean {
  const flags = argv.findIndex((word) => word.startsWith("-"));
  const filters = flags < 0 ? argv : argv.slice(0, flags);
  return globSync([...patterns], { cwd: root }).some((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)));
}

async function timed(what: string, half: Promise<boolean>): Promise<{ what: string; ok: boolean }> {
  const started = performance.now();
  const ok = await half;
  console.log(`${ok ? "ok" : "FAILED"}: ${what} (${((performance.now() - started) / 1000).toFixed(0)} s)`);
  return { what, ok };
}

/** Tests in the machine. */
async function runInside(argv: readonly string[], image: Image, folder: string): Promise<boolean> {
  mkdirSync(folder);
  const tree = join(folder, "tree.img");
  await makeDisk(root, tree, "3G");
  await using machine = await startMachine({ image, tree, folder, memoryMb: 3072, onOutput: (text) => process.stdout.write(text) });
  const { out } = await machine.sh('. /etc/os-release; echo "$PRETTY_NAME, Linux $(uname -r)"');
  say(out.trim());
  const env = `HOME=/root NO_COLOR=1 PATH=${TREE}/node_modules/.bin:$PATH ISTHMUS_TEST_KERNEL=inside ISTHMUS_PATIENCE=${PATIENCE.inside}`;
  const words = argv.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  // Node does not write to such a device well; `cat` does.
  const piped = `set -o pipefail; vitest run --reporter=verbose "$@" 2>&1 | cat >${OUTPUT}`;
  const tests = await machine.sh(`cd ${TREE} && export ${env} && exec bash -c '${piped}' bash ${words}`, { timeoutMs: LONGEST_MS, mayFail: true });
  return tests.code === 0;
}

/** Tests on this machine, each with virtual machines of its own. */
function runOutside(argv: readonly string[], folder: string): Promise<boolean> {
  mkdirSync(folder);
  // What they make is in our folder, and goes with it.
  const env = { ...process.env, NO_COLOR: "1", TMPDIR: folder, ISTHMUS_TEST_KERNEL: "outside", ISTHMUS_PATIENCE: PATIENCE.outside };
  const vitest = start([join(root, "node_modules/.bin/vitest"), "run", "--reporter=verbose", ...argv], {
    cwd: root,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  for (const stream of [vitest.stdout, vitest.stderr]) stream?.on("data", (text: Buffer) => process.stdout.write(text));
  return new Promise((done, failed) => vitest.once("error", failed).once("close", (code) => done(code === 0)));
}

function say(line: string): void {
  console.log(`isthmus test kernel: ${line}`);
}

process.exitCode = await main(process.argv.slice(2));
