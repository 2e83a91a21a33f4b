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
import { clock, type Narrator, narrator } from "./vm/narrate.ts";
import { endInOrder, ownFolder, start } from "./vm/scratch.ts";
import { INSIDE, OUTSIDE } from "./vm/suites.ts";

const root = join(import.meta.dirname, "..");
/** The guest's own clock makes it an even machine, but not a fast one: deadlines inside are so much longer. Outside our clock is none of its. */
const PATIENCE = { inside: "4", outside: "40" };
const LONGEST_MS = 5 * 3_600_000;

interface Half {
  readonly what: string;
  readonly patterns: readonly string[];
  readonly run: (told: Narrator) => Promise<boolean>;
}

async function main(argv: readonly string[]): Promise<number> {
  if (userInfo().uid !== 0) {
    say("makes the image of a machine and needs root; run it in a root shell or a container");
    return 7;
  }
  endInOrder();
  const begun = performance.now();
  // Folders first: what a killed run left goes, whatever comes of this one.
  const folder = ownFolder(tmpdir(), "isthmus-kernel-");
  // Once, before two want it.
  const image = await machineImage(say);
  const all: readonly Half[] = [
    { what: "inside", patterns: INSIDE, run: (told) => runInside(argv, image, join(folder, "inside"), told) },
    { what: "node", patterns: OUTSIDE, run: (told) => runOutside(argv, join(folder, "outside"), told) },
  ];
  const halves = all.filter(({ patterns }) => concerns(patterns, argv));
  if (halves.length === 0) {
    say(`no file of ${[...INSIDE, ...OUTSIDE].join(", ")} is meant by: ${argv.join(" ")}`);
    return 2;
  }
  say(HOW_LONG);
  const over = await Promise.all(halves.map(async (half) => finish(half)));
  for (const line of over.flatMap(({ lines }) => lines)) console.log(line);
  const failed = over.flatMap(({ what, ok }) => (ok ? [] : [what]));
  const took = clock(performance.now() - begun).trim();
  say(failed.length === 0 ? `all green in ${took} minutes` : `FAILED after ${took} minutes: ${failed.join(", ")}`);
  return failed.length === 0 ? 0 : 1;
}

const HOW_LONG =
  process.env["ISTHMUS_VM_ACCEL"] === undefined
    ? "the processors are emulated: about 25 minutes for all on two cores that have nothing else to do, hours where they have; Ctrl-C takes everything away"
    : "some minutes; Ctrl-C takes everything away";

/** Runs one half to its end, whatever becomes of it: the other one goes on. */
async function finish({ what, run }: Half): Promise<{ what: string; ok: boolean; lines: readonly string[] }> {
  const told = narrator(what.padEnd(6), () => performance.now(), console.log);
  const ok = await run(told).catch((error: unknown) => {
    told.say(error instanceof Error ? (error.stack ?? error.message) : String(error));
    return false;
  });
  told.end();
  told.say(ok ? "all green" : "FAILED");
  const lines = told
    .files()
    .map(({ file, ms, green, red }) => `${clock(ms)} ${String(green).padStart(4)} green${red > 0 ? `, ${red} RED` : ""}  ${file}`);
  return { what, ok, lines };
}

/** Whether a file of these patterns is meant. */
function concerns(patterns: readonly string[], argv: readonly string[]): boolean {
  const flags = argv.findIndex((word) => word.startsWith("-"));
  const filters = flags < 0 ? argv : argv.slice(0, flags);
  return globSync([...patterns], { cwd: root }).some((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)));
}

/** Tests in the machine. */
async function runInside(argv: readonly string[], image: Image, folder: string, told: Narrator): Promise<boolean> {
  mkdirSync(folder);
  const tree = join(folder, "tree.img");
  told.say("copies the tree to a disk, and boots");
  await makeDisk(root, tree, "3G");
  await using machine = await startMachine({ image, tree, folder, memoryMb: 3072, onOutput: told.take });
  const { out } = await machine.sh('. /etc/os-release; echo "$PRETTY_NAME, Linux $(uname -r)"');
  told.say(out.trim());
  const env = `HOME=/root NO_COLOR=1 PATH=${TREE}/node_modules/.bin:$PATH ISTHMUS_TEST_KERNEL=inside ISTHMUS_PATIENCE=${PATIENCE.inside}`;
  const words = argv.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  // Node does not write to such a device well; `cat` does.
  const piped = `set -o pipefail; vitest run --reporter=verbose "$@" 2>&1 | cat >${OUTPUT}`;
  const tests = await machine.sh(`cd ${TREE} && export ${env} && exec bash -c '${piped}' bash ${words}`, { timeoutMs: LONGEST_MS, mayFail: true });
  return tests.code === 0;
}

/** Tests on this machine, each with virtual machines of its own. */
function runOutside(argv: readonly string[], folder: string, told: Narrator): Promise<boolean> {
  mkdirSync(folder);
  // What they make is in our folder, and goes with it.
  const env = { ...process.env, NO_COLOR: "1", TMPDIR: folder, ISTHMUS_TEST_KERNEL: "outside", ISTHMUS_PATIENCE: PATIENCE.outside };
  const vitest = start([join(root, "node_modules/.bin/vitest"), "run", "--reporter=verbose", ...argv], {
    cwd: root,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  for (const stream of [vitest.stdout, vitest.stderr]) stream?.setEncoding("utf8").on("data", told.take);
  return new Promise((done, failed) => vitest.once("error", failed).once("close", (code) => done(code === 0)));
}

function say(line: string): void {
  console.log(`isthmus test kernel: ${line}`);
}

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  say(error instanceof Error ? error.message : String(error));
  return 1;
});
