/** completion, version, and what the other folders bring: lab, bench, sim. */
import { type Command, Option } from "commander";
import type { Cli } from "../cli.ts";

/** Commands whose arguments belong to another folder's own command line. */
export const DELEGATED = {
  lab: "A multi-site network on this machine: up, status, exec, fail, heal, ping, logs, down",
  bench: "Measure: failover, drain, routes, join, fanout, agent",
  sim: "Run the simulator with many seeds",
  test: "Run every check of the source tree: types, lint, unit, property and lab tests; `test kernel`: on a stock kernel, in a virtual machine",
} as const;
export type Delegated = keyof typeof DELEGATED;

export function registerTools(program: Command, cli: Cli): void {
  for (const [name, description] of Object.entries(DELEGATED)) {
    program
      .command(name)
      .description(description)
      .argument("[args...]")
      .helpOption(false)
      .allowUnknownOption()
      .action(async () => {
        // `main.ts` runs them by the first word; whoever comes by here wrote flags before it.
        const { IsthmusError } = await import("../../mesh/errors.ts");
        throw new IsthmusError("BadRequest", `flags before \`${name}\` mean nothing to it; nothing was done`, {
          remedy: `Write \`isthmus ${name} …\`, and its own flags behind that.`,
        });
      });
  }

  program
    .command("completion")
    .description("Print a script that completes commands, kinds and names in a shell")
    .argument("<shell>", "bash, zsh or fish")
    .addHelpText("after", COMPLETION_EXAMPLES)
    .action(async (shell: string) => {
      const { printCompletion } = await import("../actions/completion.ts");
      cli.finish(printCompletion(cli.io, shell));
    });

  program
    .command("__complete", { hidden: true })
    .argument("[words...]")
    .helpOption(false)
    .allowUnknownOption()
    .action(async (words: string[]) => {
      const { complete } = await import("../actions/completion.ts");
      cli.finish(await complete(cli.io, program, words));
    });

  program
    .command("version")
    .description("Print the version of this command and of the controller")
    .option("--client", "only of this command")
    .addOption(new Option("-o, --output <format>", "how to print").choices(["json", "yaml"]))
    .action(async (_: unknown, command: Command) => {
      const { showVersion } = await import("../actions/version.ts");
      cli.finish(await showVersion(cli.io, command.optsWithGlobals()));
    });
}

const COMPLETION_EXAMPLES = `
Examples:
  isthmus completion bash > /etc/bash_completion.d/isthmus
  isthmus completion zsh > "\${fpath[1]}/_isthmus"
  isthmus completion fish > ~/.config/fish/completions/isthmus.fish`;
