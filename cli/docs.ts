/** The reference pages, made from the commands' own tree and from the schemas. `node cli/docs.ts` writes them. */
import { mkdir, writeFile } from "node:fs/promises";
import { realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Command, Option } from "commander";
import { ERRORS } from "../mesh/errors.ts";
import { factsOf, typeText } from "../mesh/model/explain-schema.ts";
import { KINDS, type Kind } from "../mesh/model/resources.ts";
import { structuralSpec, structuralStatus, type StructuralSchema } from "../mesh/model/structural.ts";
import { KIND_SUMMARIES } from "../mesh/model/summaries.ts";
import { buildProgram } from "./program.ts";

const { labProgram } = await import("../lab/main.ts");

const MADE = "<!-- Made by `node cli/docs.ts` from the source; do not edit. -->\n";

/** File names below docs/reference and what belongs into them. */
export function referencePages(): ReadonlyMap<string, string> {
  return new Map([
    ["cli.md", cliPage()],
    ["resources.md", resourcesPage()],
  ]);
}

function cliPage(): string {
  const silent = (): void => {};
  const program = buildProgram({
    io: {
      out: silent,
      err: silent,
      stdin: () => Promise.resolve(""),
      env: {},
      outTty: false,
      errTty: false,
      now: () => 0,
      signal: new AbortController().signal,
    },
    finish: silent,
  });
  const commands = program.commands.filter((command) => !command.name().startsWith("__"));
  return [
    `${MADE}\n# Command line\n`,
    `${program.description()}.\n`,
    "Every command takes these flags:\n",
    optionTable(program.options.filter((option) => option.attributeName() !== "version")),
    CONVENTIONS,
    exitTable(),
    ...commands.flatMap((command) => (command.name() === "lab" ? labSections() : commandSection(command, "isthmus"))),
  ].join("\n");
}

/** The lab has a command line of its own. */
function labSections(): string[] {
  const lab = labProgram(() => {});
  return commandSection(lab.name("lab"), "isthmus");
}

const CONVENTIONS = `
Long-running commands (\`join\`, \`agent run\`, \`controller run\`) read each flag also from the environment variable that its
row names, and from \`--config FILE\`, a YAML file with the flags as fields (\`log-level: debug\`). Flags win over the
environment, the environment over the file.

Which controller a command talks to: \`--socket\` or \`--context\`, then \`ISTHMUS_SOCKET\` and \`ISTHMUS_CONTEXT\`, then the
current context of \`~/.config/isthmus/config.yaml\` (\`ISTHMUS_CONFIG\` names another file), then the socket of a controller
on this machine. \`NO_COLOR\` switches colour off.
`;

function exitTable(): string {
  const meaning: Readonly<Record<number, string>> = {
    0: "done",
    1: "failed; for `diff`: something would change",
    2: "the command line or a document is wrong",
    3: "not found",
    4: "conflict: it exists already, is taken, or is used up",
    5: "denied",
    6: "not reached, or not in time: trying again may help",
    7: "this machine lacks something: a tool, root, a port, space",
  };
  const codes = (status: number): string =>
    Object.entries(ERRORS)
      .filter(([, row]) => row.exit === status)
      .map(([code]) => `\`${code}\``)
      .join(" ");
  return [
    "## Exit status\n",
    "| status | meaning | errors |",
    "| --- | --- | --- |",
    ...Object.entries(meaning).map(([status, text]) => `| ${status} | ${text} | ${codes(Number(status))} |`),
    "",
  ].join("\n");
}

function commandSection(command: Command, prefix: string): string[] {
  const name = `${prefix} ${command.name()}`;
  const children = command.commands.filter((child) => child.name() !== "help");
  const usage = children.length > 0 ? `${name} COMMAND` : `${name} ${command.usage()}`.trim();
  const examples = examplesOf(command);
  const own = [
    `## ${name}\n`,
    `${command.description()}.\n`,
    `\`\`\`\n${usage}\n\`\`\`\n`,
    ...(command.registeredArguments.some((argument) => argument.description !== "")
      ? [
          [
            "| argument | |",
            "| --- | --- |",
            ...command.registeredArguments.map((argument) => `| \`${argument.name()}\` | ${cell(argument.description)} |`),
            "",
          ].join("\n"),
        ]
      : []),
    ...(command.options.length === 0 ? [] : [optionTable(command.options)]),
    ...(examples === "" ? [] : [`\`\`\`sh\n${examples}\n\`\`\`\n`]),
  ];
  return [...own, ...children.flatMap((child) => commandSection(child, name))];
}

function optionTable(options: readonly Option[]): string {
  const rows = options.map((option) => {
    const facts = [
      option.argChoices === undefined ? "" : `One of ${option.argChoices.map((choice) => `\`${choice}\``).join(", ")}.`,
      option.defaultValue === undefined || option.negate ? "" : `Default \`${option.defaultValueDescription ?? String(option.defaultValue)}\`.`,
      option.mandatory ? "Required." : "",
    ].filter((fact) => fact !== "");
    const env = option.envVar === undefined ? "" : `\`${option.envVar}\``;
    return `| \`${option.flags}\` | ${cell([sentence(option.description), ...facts].filter((part) => part !== "").join(" "))} | ${env} |`;
  });
  return ["| flag | | environment |", "| --- | --- | --- |", ...rows, ""].join("\n");
}

/** What `addHelpText("after")` holds, without its heading. */
function examplesOf(command: Command): string {
  let text = "";
  const before = command.configureOutput();
  command.configureOutput({ ...before, writeOut: (part) => (text += part) });
  command.outputHelp();
  command.configureOutput(before);
  const found = /\nExamples:\n([\s\S]*)$/.exec(text)?.[1] ?? "";
  return found.trimEnd().replace(/^ {2}/gm, "");
}

function resourcesPage(): string {
  const kinds = Object.keys(KINDS) as Kind[];
  return [
    `${MADE}\n# Resources\n`,
    "What files, the HTTP API and (where a cluster is connected) custom resources say. Unknown fields are refused with the nearest known name. `isthmus explain --schema KIND.FIELD` prints the same on a terminal.\n",
    [
      "| kind | apiVersion | names for `get` | made by |",
      "| --- | --- | --- | --- |",
      ...kinds.map(
        (kind) =>
          `| [${kind}](#${kind.toLowerCase()}) | \`${KINDS[kind].apiVersion}\` | ${[KINDS[kind].plural, ...KINDS[kind].aliases].map((name) => `\`${name}\``).join(" ")} | ${madeBy(kind)} |`,
      ),
      "",
    ].join("\n"),
    ...kinds.map(kindSection),
  ].join("\n");
}

function madeBy(kind: Kind): string {
  if (KINDS[kind].appliable) return "`apply`";
  return kind === "MeshNode" ? "`join`" : "`create token`";
}

function kindSection(kind: Kind): string {
  return [
    `## ${kind}\n`,
    `${KIND_SUMMARIES[kind]}\n`,
    "### spec\n",
    fieldTable(structuralSpec(kind)),
    "### status\n",
    fieldTable(structuralStatus(kind)),
  ].join("\n");
}

function fieldTable(schema: StructuralSchema): string {
  return ["| field | type | |", "| --- | --- | --- |", ...fieldRows(schema, ""), ""].join("\n");
}

function fieldRows(schema: StructuralSchema, prefix: string): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const path = `${prefix}${name}${field.type === "array" ? "[]" : ""}`;
    const facts = factsOf(field).map((fact) => `${fact}.`);
    const required = schema.required?.includes(name) === true ? ["**Required.**"] : [];
    const row = `| \`${path}\` | ${typeText(field)} | ${cell([...required, field.description ?? "", ...facts].filter((part) => part !== "").join(" "))} |`;
    const inner = field.type === "array" ? field.items : field;
    return [row, ...(inner === undefined ? [] : fieldRows(inner, `${path}.`))];
  });
}

function sentence(text: string): string {
  return text === "" || text.endsWith(".") ? text : `${text}.`;
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("<", "&lt;").replaceAll("\n", " ");
}

if (process.argv[1] !== undefined && fileURLToPath(import.meta.url) === realpathSync(process.argv[1])) {
  const folder = new URL("../docs/reference/", import.meta.url);
  await mkdir(folder, { recursive: true });
  for (const [name, text] of referencePages()) await writeFile(new URL(name, folder), text);
}
