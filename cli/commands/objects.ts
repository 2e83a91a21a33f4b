/** Commands on objects: get, describe, apply, delete, label, diff, events. */
import type { Command } from "commander";
import { type Cli, collectWhole, dryRunOption, isDryRun, outputOption, selectorOption } from "../cli.ts";

export function registerObjects(program: Command, cli: Cli): void {
  registerGet(program, cli);
  registerApply(program, cli);
  registerDelete(program, cli);
  registerLabel(program, cli);
  registerEvents(program, cli);
}

function registerGet(program: Command, cli: Cli): void {
  program
    .command("get")
    .description("Show objects: nodes, sites, routes, egress, vip, cluster, tokens, network, events, or `all` (but the network, tokens and events)")
    .argument("<kind...>", "KIND[,KIND] [NAME…] or KIND/NAME …")
    .addOption(outputOption())
    .addOption(selectorOption())
    .option("-w, --watch", "keep printing what changes")
    .option("--no-headers", "leave the header line out")
    .option("--show-labels", "add a column with the labels")
    .addHelpText("after", EXAMPLES.get)
    .action(async (words: string[], _: unknown, command: Command) => {
      const { getObjects } = await import("../actions/get.ts");
      cli.finish(await getObjects(cli.io, words, command.optsWithGlobals()));
    });

  program
    .command("describe")
    .description("Show everything about objects: fields, conditions, failing nodes, events")
    .argument("<kind...>", "KIND [NAME…] or KIND/NAME …")
    .addOption(selectorOption())
    .action(async (words: string[], _: unknown, command: Command) => {
      const { describeObjects } = await import("../actions/describe.ts");
      cli.finish(await describeObjects(cli.io, words, command.optsWithGlobals()));
    });
}

function registerApply(program: Command, cli: Cli): void {
  program
    .command("apply")
    .description("Make or change objects from files: all of them or, if one is wrong, none")
    .option("-f, --filename <file>", "a file, a directory, or - for standard input; may be repeated", collectWhole)
    .option("-R, --recursive", "also the directories inside a directory")
    .addOption(dryRunOption())
    .addOption(outputOption())
    .addHelpText("after", EXAMPLES.apply)
    .action(async (_: unknown, command: Command) => {
      const { applyFiles } = await import("../actions/apply.ts");
      const flags = command.optsWithGlobals<{ filename?: string[]; recursive?: boolean; dryRun?: string; output?: string }>();
      cli.finish(await applyFiles(cli.io, { ...flags, dryRun: isDryRun(flags.dryRun), local: flags.dryRun === "client" }));
    });

  program
    .command("diff")
    .description("Show, node by node, which peers, routes, rules and nat entries an apply or delete would change. Exit status 1 when something would")
    .option("-f, --filename <file>", "what would be applied: a file, a directory, or -; may be repeated", collectWhole)
    .option("-R, --recursive", "also the directories inside a directory")
    .option("--delete <kind/name>", "what would be deleted; may be repeated", collectWhole)
    .option("-o, --output <format>", "json, or text when absent")
    .action(async (_: unknown, command: Command) => {
      const { diffFiles } = await import("../actions/diff.ts");
      cli.finish(await diffFiles(cli.io, command.optsWithGlobals()));
    });
}

function registerDelete(program: Command, cli: Cli): void {
  program
    .command("delete")
    .description("Delete objects by name, by selector, or those that files name")
    .argument("[kind...]", "KIND NAME… or KIND/NAME …")
    .option("-f, --filename <file>", "delete what this file, directory or - names; may be repeated", collectWhole)
    .option("-R, --recursive", "also the directories inside a directory")
    .addOption(selectorOption())
    .option("--all", "every object of the kind")
    .option("--ignore-not-found", "an object that is not there is no error")
    .addOption(dryRunOption())
    .action(async (words: string[], _: unknown, command: Command) => {
      const { deleteObjects } = await import("../actions/delete.ts");
      const flags = command.optsWithGlobals<{ filename?: string[]; dryRun?: string }>();
      cli.finish(await deleteObjects(cli.io, words, { ...flags, dryRun: isDryRun(flags.dryRun) }));
    });
}

function registerLabel(program: Command, cli: Cli): void {
  program
    .command("label")
    .description("Set labels with KEY=VALUE, take them away with KEY-")
    .argument("<words...>", "KIND NAME… or KIND/NAME …, then KEY=VALUE or KEY- …")
    .option("--overwrite", "change a label that has another value")
    .addOption(selectorOption())
    .option("--all", "every object of the kind")
    .option("--list", "print the labels afterwards")
    .addHelpText("after", EXAMPLES.label)
    .action(async (words: string[], _: unknown, command: Command) => {
      const { labelObjects } = await import("../actions/label.ts");
      cli.finish(await labelObjects(cli.io, words, command.optsWithGlobals()));
    });
}

function registerEvents(program: Command, cli: Cli): void {
  program
    .command("events")
    .description("Show what happened, newest last")
    .option("--for <kind/name>", "only about this object")
    .option("--since <age>", "only newer than this, for example 10m")
    .option("-w, --watch", "keep printing what happens")
    .option("--no-headers", "leave the header line out")
    .addOption(outputOption())
    .action(async (_: unknown, command: Command) => {
      const { showEvents } = await import("../actions/events.ts");
      cli.finish(await showEvents(cli.io, command.optsWithGlobals()));
    });
}

const EXAMPLES = {
  get: `
Examples:
  isthmus get nodes -o wide
  isthmus get nodes,sites -l location=cloud
  isthmus get node/do1 -o yaml
  isthmus get routes -w`,
  apply: `
Examples:
  isthmus apply -f egress.yaml
  isthmus apply -f manifests/ --dry-run
  cat all.yaml | isthmus apply -f -`,
  label: `
Examples:
  isthmus label node do1 egress=yes
  isthmus label node do1 egress- tier=gold --overwrite
  isthmus label nodes --all reviewed=2030`,
};
