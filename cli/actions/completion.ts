/** `completion SHELL` prints a small script; the script asks `isthmus __complete WORDS…` what may come next. */
import type { Argument, Command, Option } from "commander";
import { IsthmusError } from "../../mesh/errors.ts";
import { nearest } from "../../mesh/model/suggest.ts";
import type { Io } from "../io.ts";

const SCRIPTS: Readonly<Record<string, string>> = {
  bash: `# bash completion for isthmus
_isthmus() {
  local IFS=$'\\n' cur="\${COMP_WORDS[COMP_CWORD]}"
  local words=("\${COMP_WORDS[@]:1:COMP_CWORD}")
  local found
  found=$("\${COMP_WORDS[0]}" __complete -- "\${words[@]}" 2>/dev/null) || return 0
  if [ "$found" = ":files" ]; then
    COMPREPLY=($(compgen -f -- "$cur"))
    compopt -o filenames 2>/dev/null
  else
    COMPREPLY=($(compgen -W "$found" -- "$cur"))
  fi
}
complete -F _isthmus isthmus
`,
  zsh: `#compdef isthmus
_isthmus() {
  local -a found
  found=("\${(@f)$("\${words[1]}" __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ "\${found[1]}" == ":files" ]]; then
    _files
  else
    compadd -a found
  fi
}
if [ "$funcstack[1]" = "_isthmus" ]; then _isthmus "$@"; else compdef _isthmus isthmus; fi
`,
  fish: `# fish completion for isthmus
function __isthmus_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l found ($words[1] __complete -- $words[2..-1] 2>/dev/null)
  if test "$found[1]" = ":files"
    __fish_complete_path (commandline -ct)
  else
    printf '%s\\n' $found
  end
end
complete -c isthmus -f -a '(__isthmus_complete)'
`,
};

/** What the scripts take as "complete file names". */
const FILES = ":files";
const ASK_MS = 1_500;

export function printCompletion(io: Io, shell: string): number {
  const script = SCRIPTS[shell];
  if (script === undefined) {
    const near = nearest(shell, Object.keys(SCRIPTS));
    throw new IsthmusError(
      "BadRequest",
      `there is no completion for ${JSON.stringify(shell)}${near === undefined ? "" : `; did you mean ${near}?`}`,
      { remedy: "The shells are bash, zsh and fish." },
    );
  }
  io.out(script);
  return 0;
}

/** Prints one candidate a line. `words` are those after `isthmus`; the last one is being typed. */
export async function complete(io: Io, program: Command, words: readonly string[]): Promise<number> {
  const candidates = await candidatesFor(io, program, words[0] === "--" ? words.slice(1) : words);
  const typed = words.at(-1) ?? "";
  io.out(
    candidates
      .filter((each) => each === FILES || each.startsWith(typed))
      .map((each) => `${each}\n`)
      .join(""),
  );
  return 0;
}

async function candidatesFor(io: Io, program: Command, words: readonly string[]): Promise<string[]> {
  const typed = words.at(-1) ?? "";
  let command = program;
  const given: string[] = [];
  let pending: Option | undefined;
  for (const word of words.slice(0, -1)) {
    const child = given.length === 0 ? command.commands.find((each) => each.name() === word || each.aliases().includes(word)) : undefined;
    if (pending !== undefined) pending = undefined;
    else if (word.startsWith("-")) pending = takesValue(command, program, word);
    else if (child !== undefined) command = child;
    else given.push(word);
  }
  if (pending !== undefined) return await valuesOf(io, pending, command);
  if (typed.startsWith("-")) return [...visibleOptions(command), ...visibleOptions(program)];
  const children = visibleCommands(command);
  if (children.length > 0 && given.length === 0) return children;
  return await argumentsOf(io, command, given, typed);
}

function takesValue(command: Command, program: Command, word: string): Option | undefined {
  if (word.includes("=")) return undefined;
  const option = [...command.options, ...program.options].find((each) => each.long === word || each.short === word);
  return option?.required === true ? option : undefined;
}

async function valuesOf(io: Io, option: Option, command: Command): Promise<string[]> {
  if (option.argChoices !== undefined) return option.argChoices;
  const name = option.long ?? "";
  if (/file|config|out|data|run|socket/.test(name)) return [FILES];
  if (name === "--context") return await contexts(io);
  if (name === "--site" || name === "--gateway-site") return await namesOf(io, "site");
  if (name === "--schema") return await kinds();
  if (name === "--for" || name === "--delete") return await slashNames(io);
  return command.name() === "" ? [] : [];
}

/** What a command's arguments are: kinds and names, nodes, contexts, files. */
async function argumentsOf(io: Io, command: Command, given: readonly string[], typed: string): Promise<string[]> {
  const path = [command.parent?.name() ?? "", command.name()].join(" ");
  if (/ (get|describe|delete|label)$/.test(path)) {
    if (given.length > 0) return await namesOf(io, given[0] ?? "");
    if (typed.includes("/")) return await slashNames(io, typed.split("/")[0]);
    return [...(await kinds()), ...(command.name() === "get" ? ["events", "all"] : [])];
  }
  if (/ (drain|uncordon)$|^node /.test(path) || (command.name() === "explain" && given.length === 0)) return await namesOf(io, "node");
  if (/ (use-context|delete-context|set-context)$/.test(path)) return await contexts(io);
  if (path === "token revoke") return await namesOf(io, "token");
  if (command.name() === "completion") return Object.keys(SCRIPTS);
  const next: Argument | undefined = command.registeredArguments[given.length];
  return next !== undefined && /file/.test(next.name()) ? [FILES] : [];
}

function visibleCommands(command: Command): string[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .map((each) => each.name());
}

function visibleOptions(command: Command): string[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .flatMap((option) => option.long ?? []);
}

async function kinds(): Promise<string[]> {
  const { kindWords } = await import("../kinds.ts");
  return kindWords().sort();
}

async function contexts(io: Io): Promise<string[]> {
  const { readContexts } = await import("../context.ts");
  return (await readContexts(io).catch(() => ({ contexts: [] }))).contexts.map((context) => context.name);
}

/** Names of a kind's objects from the controller, quickly or not at all: a shell waits for this. */
async function namesOf(io: Io, kind: string): Promise<string[]> {
  const [{ kindOf }, { connect }, { listObjects }] = await Promise.all([import("../kinds.ts"), import("../connect.ts"), import("../api.ts")]);
  try {
    const client = await connect(io, {});
    const late = new Promise<never>((_, failed) => setTimeout(() => failed(new Error("late")), ASK_MS).unref());
    return (await Promise.race([listObjects(client, kindOf(kind)), late])).items.map((object) => object.metadata.name);
  } catch {
    return [];
  }
}

async function slashNames(io: Io, kind?: string): Promise<string[]> {
  const words = kind === undefined ? ["node", "site", "route", "egress"] : [kind];
  return (await Promise.all(words.map(async (word) => (await namesOf(io, word)).map((name) => `${word}/${name}`)))).flat();
}
