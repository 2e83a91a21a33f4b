/** The tree of commands. Building it loads commander and nothing of the domain: `--help` is instant. */
import { Command } from "commander";
import manifest from "../package.json" with { type: "json" };
import type { Cli } from "./cli.ts";
import { registerConfig } from "./commands/config.ts";
import { registerController } from "./commands/controller.ts";
import { registerCreate, registerTokens } from "./commands/create.ts";
import { registerMachine, registerNodes } from "./commands/nodes.ts";
import { registerObjects } from "./commands/objects.ts";
import { registerTools } from "./commands/tools.ts";

export function buildProgram(cli: Cli): Command {
  const program = new Command("isthmus")
    .description("One WireGuard network over datacenters and clouds, with routes and egress gateways that fail over by themselves")
    .version(manifest.version, "-V, --version", "print the version of this command")
    .option("--context <name>", "the context to use instead of the current one (ISTHMUS_CONTEXT)")
    .option("--socket <path>", "the controller's unix socket, instead of a context (ISTHMUS_SOCKET)")
    .showSuggestionAfterError(true)
    .configureHelp({ showGlobalOptions: false })
    .helpCommand("help [command]", "Show help for a command");

  group(program, "Look:", () => registerObjects(program, cli));
  group(program, "Nodes and paths:", () => registerNodes(program, cli));
  group(program, "Make:", () => {
    registerCreate(program, cli);
    registerTokens(program, cli);
  });
  group(program, "This machine:", () => registerMachine(program, cli));
  group(program, "The controller:", () => registerController(program, cli));
  group(program, "Other:", () => {
    registerConfig(program, cli);
    registerTools(program, cli);
  });
  return quiet(program, cli);
}

function group(program: Command, heading: string, register: () => void): void {
  program.commandsGroup(heading);
  register();
}

/** Errors are thrown, not exited on, and text goes through the given outside; for every command of the tree. */
function quiet(command: Command, cli: Cli): Command {
  command.exitOverride().configureOutput({ writeOut: cli.io.out, writeErr: cli.io.err });
  for (const child of command.commands) quiet(child, cli);
  return command;
}
