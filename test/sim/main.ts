/** `isthmus sim`: many seeds of the simulator; a failing one is printed and replays exactly. */
import { parseArgs } from "node:util";
import { runSeed } from "./world.ts";

const USAGE = "usage: isthmus sim [--seeds N] [--from S] | [--seed S] [-v]";

/** @returns the exit status: 0 all seeds hold, 1 one failed, 2 wrong usage. */
export async function simCommand(argv: string[]): Promise<number> {
  const options = parse(argv);
  if (options === undefined) {
    console.error(USAGE);
    return 2;
  }
  const { from, count, verbose } = options;
  const started = performance.now();
  const failed: number[] = [];
  let steps = 0;
  for (let seed = from; seed < from + count; seed++) {
    const outcome = runSeed(seed, undefined, verbose && count === 1);
    steps += outcome.steps;
    for (const line of outcome.log) console.log(line);
    if (outcome.violation !== undefined) {
      failed.push(seed);
      console.log(`seed ${seed}: ${outcome.violation}\n  replay: isthmus sim --seed ${seed} -v`);
    }
    const done = seed - from + 1;
    if (done % 500 === 0 && done < count) console.log(`${done} of ${count} seeds, ${failed.length} failed`);
    // Lets ^C and timers through between seeds.
    if (done % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  const seconds = ((performance.now() - started) / 1_000).toFixed(1);
  console.log(
    `${count} seeds from ${from}: ${failed.length === 0 ? "all hold" : `${failed.length} failed (${failed.slice(0, 20).join(", ")})`}; ${steps} steps in ${seconds} s`,
  );
  return failed.length === 0 ? 0 : 1;
}

function parse(argv: string[]): { from: number; count: number; verbose: boolean } | undefined {
  try {
    const { values } = parseArgs({
      args: argv,
      options: {
        seeds: { type: "string", default: "1000" },
        from: { type: "string", default: "1" },
        seed: { type: "string" },
        verbose: { type: "boolean", short: "v", default: false },
      },
    });
    const from = Number(values.seed ?? values.from);
    const count = values.seed === undefined ? Number(values.seeds) : 1;
    return Number.isSafeInteger(from) && Number.isSafeInteger(count) && count > 0 ? { from, count, verbose: values.verbose } : undefined;
  } catch {
    return undefined;
  }
}

if (import.meta.main) process.exitCode = await simCommand(process.argv.slice(2));
