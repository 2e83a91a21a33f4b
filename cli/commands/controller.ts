/** Commands of the controller's own machine: run, backup, restore, recovery. */
import { type Command, Option } from "commander";
import { type Cli, collect } from "../cli.ts";

export function registerController(program: Command, cli: Cli): void {
  const controller = program.command("controller").description("The controller");
  controller
    .command("run")
    .description("Run a controller; its store is inside, nothing else is needed")
    .addOption(new Option("--data <dir>", "data directory").env("ISTHMUS_DATA").default("/var/lib/isthmus-controller"))
    .addOption(new Option("--listen <addr:port>", "where agents and admins connect").env("ISTHMUS_LISTEN").default("0.0.0.0:8443"))
    .addOption(
      new Option("--advertise <host:port>", "how machines reach it, as tokens say; may be repeated").argParser(collect).env("ISTHMUS_ADVERTISE"),
    )
    .addOption(new Option("--socket <path>", "admin socket; root only").env("ISTHMUS_SOCKET").default("/run/isthmus/controller.sock"))
    .addOption(new Option("--overlay <cidr>", "mesh addresses, at the first start; 10.101.0.0/16 when absent").env("ISTHMUS_OVERLAY"))
    .addOption(
      new Option("--overlay6 <cidr>", "unique local /48 of the mesh, at the first start; made at random when absent").env("ISTHMUS_OVERLAY6"),
    )
    .addOption(new Option("--links <cidr>", "link addresses, at the first start; 10.102.0.0/15 when absent").env("ISTHMUS_LINKS"))
    .addOption(new Option("--log-level <level>").choices(["debug", "info", "warn", "error"]).default("info").env("ISTHMUS_LOG_LEVEL"))
    .addOption(new Option("--config <file>", "YAML file with these flags as fields").env("ISTHMUS_CONFIG_FILE"))
    .action(async (_: unknown, command: Command) => {
      const { runControllerCommand } = await import("../actions/controller.ts");
      cli.finish(await runControllerCommand(cli.io, command));
    });

  program
    .command("backup")
    .description("Save the store and the keys of the controller; the file is as secret as the controller itself")
    .argument("[file]", "file to write, or - for standard output; isthmus-backup-TIME when absent")
    .option("--force", "replace a file that is there")
    .action(async (file: string | undefined, _: unknown, command: Command) => {
      const { backup } = await import("../actions/controller.ts");
      cli.finish(await backup(cli.io, file, command.optsWithGlobals()));
    });

  program
    .command("restore")
    .description("Set up a controller from a backup, on this machine; start it with `controller run` afterwards")
    .argument("<file>")
    .addOption(
      new Option("--data <dir>", "data directory of the new controller; a store and keys that are there are kept aside")
        .env("ISTHMUS_DATA")
        .default("/var/lib/isthmus-controller"),
    )
    .action(async (file: string, _: unknown, command: Command) => {
      const { restore } = await import("../actions/controller.ts");
      cli.finish(await restore(cli.io, file, command.optsWithGlobals()));
    });

  const recovery = program.command("recovery").description("A controller that knows less than its agents waits in Recovery");
  recovery
    .command("confirm")
    .description("End Recovery now: what the agents have not re-reported by then is given up")
    .action(async (_: unknown, command: Command) => {
      const { confirmRecovery } = await import("../actions/controller.ts");
      cli.finish(await confirmRecovery(cli.io, command.optsWithGlobals()));
    });
}
