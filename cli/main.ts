#!/usr/bin/env node
/** Entry of the command line. */
import { realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Command, CommanderError } from "commander";
import type { Delegated } from "./commands/tools.ts";
import { type Io, processIo } from "./io.ts";
import { buildProgram } from "./program.ts";

const USAGE = 2;

/** Runs one command line (without node and script) and gives its exit status. Never throws. */
export async function run(argv: readonly string[], io: Io): Promise<number> {
  try {
    const delegated = await delegate(argv);
    if (delegated !== undefined) return delegated;
    let status = 0;
    const program = buildProgram({ io, finish: (result) => (status = result) });
    if (argv.length === 0) {
      program.outputHelp();
      return 0;
    }
    await program.parseAsync(asksForHelp(argv) ? helpWords(program, argv.slice(1)) : [...argv], { from: "user" });
    return status;
  } catch (thrown) {
    return await failure(thrown, io);
  }
}

/** `lab`, `bench` and `sim` have command lines of their own, with options that look like ours. */
async function delegate(argv: readonly string[]): Promise<number | undefined> {
  if (asksForHelp(argv)) return await delegate([...argv.slice(1), "--help"]);
  const [first, ...rest] = argv;
  switch (first as Delegated | undefined) {
    case "lab":
      return (await importPart<{ labCommand: (argv: string[]) => Promise<number> }>("lab/main.ts")).labCommand(rest);
    case "bench":
      return (await importPart<{ benchCommand: (argv: string[]) => Promise<number> }>("bench/main.ts")).benchCommand(rest);
    case "sim":
      return (await importPart<{ simCommand: (argv: string[]) => Promise<number> }>("test/sim/main.ts")).simCommand(rest);
    case "test": {
      const { IsthmusError } = await import("../mesh/errors.ts");
      throw new IsthmusError("BadRequest", "`test` is run by the launcher of a source tree", { remedy: "Run ./isthmus test in the source tree." });
    }
    case undefined:
      return undefined;
  }
  return undefined;
}

/** `help WORD…`; of `test`, which only the launcher runs, there is but the one line that the program has. */
function asksForHelp([first, about]: readonly string[]): boolean {
  return first === "help" && about !== undefined && about !== "test";
}

/** `help WORD…` is `WORD… --help`. A word that names no command is left to be refused as such: with `--help` behind it, it is not looked at. */
function helpWords(program: Command, words: readonly string[]): string[] {
  let at = program;
  for (const [i, word] of words.entries()) {
    if (at.commands.length === 0 || word === "help") break;
    const next = at.commands.find((command) => command.name() === word);
    if (next === undefined) return words.slice(0, i + 1);
    at = next;
  }
  return [...words.filter((word) => word !== "help"), "--help"];
}

/** A part of the source tree that an installation may lack. */
async function importPart<T>(path: string): Promise<T> {
  return (await import(new URL(`../${path}`, import.meta.url).href)) as T;
}

async function failure(thrown: unknown, io: Io): Promise<number> {
  if (thrown instanceof CommanderError) {
    const shown = ["commander.helpDisplayed", "commander.version"].includes(thrown.code);
    return shown || thrown.exitCode === 0 ? 0 : USAGE;
  }
  if ((thrown as NodeJS.ErrnoException | undefined)?.code === "EPIPE") return 0;
  const [{ asIsthmusError }, { renderError }] = await Promise.all([import("../mesh/errors.ts"), import("./errors.ts")]);
  const error = asIsthmusError(thrown);
  io.err(renderError(error));
  if (io.env["ISTHMUS_DEBUG"] === "1") io.err(`${thrown instanceof Error ? thrown.stack : String(thrown)}\n`);
  return error.exit;
}

if (process.argv[1] !== undefined && fileURLToPath(import.meta.url) === realpathSync(process.argv[1])) {
  // A reader that goes away early (`isthmus get nodes | head -1`) is no error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));
  process.exitCode = await run(process.argv.slice(2), processIo());
}
