/** Contexts: which controller to talk to, and as whom. */
import type { Command } from "commander";
import type { Cli } from "../cli.ts";

export function registerConfig(program: Command, cli: Cli): void {
  const config = program.command("config").description("Choose and change contexts: which controller, and as whom");
  const act = async (
    name: "useContext" | "getContexts" | "setContext" | "currentContext" | "deleteContext",
    argument: string,
    command: Command,
  ): Promise<void> => {
    const actions = await import("../actions/config.ts");
    cli.finish(await actions[name](cli.io, argument, command.optsWithGlobals()));
  };

  config
    .command("use-context")
    .description("Use this context from now on")
    .argument("<name>")
    .action((name: string, _: unknown, command: Command) => act("useContext", name, command));
  config
    .command("get-contexts")
    .description("Show the contexts; * marks the current one")
    .option("--no-headers", "leave the header line out")
    .option("-o, --output <format>", "name, or a table when absent")
    .action((_: unknown, command: Command) => act("getContexts", "", command));
  config
    .command("current-context")
    .description("Print the name of the current context")
    .action((_: unknown, command: Command) => act("currentContext", "", command));
  config
    .command("set-context")
    .description("Make or change a context")
    .argument("<name>")
    .option("--server <https://host:port>", "address of the controller")
    .option("--at-socket <path>", "unix socket of a controller on this machine")
    .option("--ca-file <file>", "PEM of the trusted roots")
    .option("--cert-file <file>", "PEM of the admin's certificate")
    .option("--key-file <file>", "PEM of the admin's key")
    .action((name: string, _: unknown, command: Command) => act("setContext", name, command));
  config
    .command("delete-context")
    .description("Forget a context")
    .argument("<name>")
    .action((name: string, _: unknown, command: Command) => act("deleteContext", name, command));
}
