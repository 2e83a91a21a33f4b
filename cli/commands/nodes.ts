/** Commands on a machine (join, leave, cleanup, status, agent run) and about nodes (drain, uncordon, explain). */
import { type Command, Option } from "commander";
import { type Cli, collectWhole } from "../cli.ts";

export function registerMachine(program: Command, cli: Cli): void {
  agentPlaces(program.command("join").description("Join this machine to the mesh, and keep it there"))
    .argument("[token]", "the token, or - for standard input; better kept out of the shell's history with --token-file")
    .addOption(new Option("--token-file <file>", "file with the token, or - for standard input").env("ISTHMUS_TOKEN_FILE"))
    .addOption(new Option("--name <name>", "name of the node; the host's name when absent").env("ISTHMUS_NAME"))
    .addOption(
      new Option("--endpoint <addr:port>", "address at which other nodes reach this one; may be repeated")
        .argParser(collectWhole)
        .env("ISTHMUS_ENDPOINT"),
    )
    .addOption(
      new Option("--advertise <cidr>", "prefix that this node would carry; takes effect where it was granted; may be repeated")
        .argParser(collectWhole)
        .env("ISTHMUS_ADVERTISE"),
    )
    .addOption(new Option("--foreground", "stay in the foreground, install no systemd unit").env("ISTHMUS_FOREGROUND"))
    .addHelpText("after", JOIN_EXAMPLES)
    .action(async (token: string | undefined, _: unknown, command: Command) => {
      const { joinMachine } = await import("../actions/agent.ts");
      cli.finish(await joinMachine(cli.io, token, command));
    });

  agentPlaces(
    program.command("leave").description("Leave the mesh for good: the controller forgets this node, everything of ours here is undone"),
  ).action(async (_: unknown, command: Command) => {
    const { leaveMachine } = await import("../actions/agent.ts");
    cli.finish(await leaveMachine(cli.io, command));
  });

  agentPlaces(
    program.command("cleanup").description("Remove exactly what Isthmus put on this machine and restore the rest, without asking anybody"),
  ).action(async (_: unknown, command: Command) => {
    const { cleanupMachine } = await import("../actions/agent.ts");
    cli.finish(await cleanupMachine(cli.io, command));
  });

  program
    .command("status")
    .description("Show this machine's own view: works with the controller dead")
    .addOption(new Option("--run <dir>", "run directory of the agent").env("ISTHMUS_RUN").default("/run/isthmus"))
    .addOption(new Option("-o, --output <format>", "how to print").choices(["json", "yaml"]))
    .action(async (_: unknown, command: Command) => {
      const { showStatus } = await import("../actions/status.ts");
      cli.finish(await showStatus(cli.io, command.optsWithGlobals()));
    });

  const agent = program.command("agent", { hidden: true }).description("The agent itself");
  agentPlaces(agent.command("run").description("Run the agent of a machine that has joined; the systemd unit does this")).action(
    async (_: unknown, command: Command) => {
      const { runAgentCommand } = await import("../actions/agent.ts");
      cli.finish(await runAgentCommand(cli.io, command));
    },
  );
}

export function registerNodes(program: Command, cli: Cli): void {
  program
    .command("explain")
    .description("Show which way a node's traffic to a destination takes and why; or, with --schema, what a field means")
    .argument("[node]", "name of the node; with --schema: KIND[.FIELD…]")
    .argument("[destination]", "an address")
    .option("--schema [path]", "explain a field: egressgateway.spec.failback")
    .option("--recursive", "with --schema: all fields below, too")
    .addOption(new Option("-o, --output <format>", "how to print").choices(["json", "yaml"]))
    .addHelpText("after", EXPLAIN_EXAMPLES)
    .action(async (node: string | undefined, destination: string | undefined, _: unknown, command: Command) => {
      const { explain } = await import("../actions/explain.ts");
      cli.finish(await explain(cli.io, node, destination, command.optsWithGlobals()));
    });

  program
    .command("drain")
    .description("Move gateways and routes away from nodes: new flows first, old ones finish or are moved at the timeout")
    .argument("<node...>")
    .option("--timeout <duration>", "how long old flows may take, for example 60s")
    .option("--no-wait", "do not wait until the node is drained")
    .action(async (nodes: string[], _: unknown, command: Command) => {
      const { drain } = await import("../actions/drain.ts");
      cli.finish(await drain(cli.io, nodes, command.optsWithGlobals()));
    });

  program
    .command("uncordon")
    .description("Let drained nodes carry traffic again")
    .argument("<node...>")
    .action(async (nodes: string[], _: unknown, command: Command) => {
      const { uncordon } = await import("../actions/drain.ts");
      cli.finish(await uncordon(cli.io, nodes, command.optsWithGlobals()));
    });
}

/** Where the agent keeps things; also from the environment and `--config`. */
function agentPlaces(command: Command): Command {
  return command
    .addOption(new Option("--data <dir>", "data directory").env("ISTHMUS_DATA").default("/var/lib/isthmus"))
    .addOption(new Option("--run <dir>", "run directory").env("ISTHMUS_RUN").default("/run/isthmus"))
    .addOption(new Option("--config <file>", "YAML file with these flags as fields").env("ISTHMUS_CONFIG_FILE"));
}

const JOIN_EXAMPLES = `
Examples:
  isthmus join ist1.eyJj…
  isthmus join --token-file /root/token --name do1 --endpoint 203.0.113.5:51820
  printf %s "$TOKEN" | isthmus join -`;

const EXPLAIN_EXAMPLES = `
Examples:
  isthmus explain datacenter1 34.160.111.145
  isthmus explain --schema egressgateway.spec.failback`;
