/** `create …`, `token …` and `admin …`: what is made by flags rather than by a file. */
import { type Command, Option } from "commander";
import type { EgressFlags, RouteFlags, SiteFlags } from "../actions/create.ts";
import { type Cli, type DryRunFlag, collect, collectLabel, collectWhole, dryRunOption, isDryRun, outputOption, wholeNumber } from "../cli.ts";

export function registerCreate(program: Command, cli: Cli): void {
  const create = program.command("create").description("Make a site, a token, an admin, a route or an egress gateway");

  withOutput(create.command("site").description("Make a site: a datacenter or a cloud region").argument("<name>"))
    .addOption(new Option("--kind <kind>", "what it is").choices(["onprem", "cloud"]).makeOptionMandatory())
    .option("--region <region>")
    .option("--zone <zone>")
    .option("--subnet <cidr>", "a LAN that other sites reach through this one; may be repeated", collect)
    .option("--gateway <k=v>", "labels of the nodes that carry the subnets; the four that joined first when absent", collectLabel)
    .option("--label <k=v>", "given to every node of the site; may be repeated", collectLabel)
    .option("--priority <number>", "order for disaster recovery, higher first", wholeNumber)
    .option("--grant-advertise <cidr>", "nodes of the site may advertise prefixes inside it; may be repeated", collect)
    .action(async (name: string, _: unknown, command: Command) => {
      const { createSite } = await import("../actions/create.ts");
      cli.finish(await createSite(cli.io, name, withDryRun(command.optsWithGlobals<Omit<SiteFlags, "dryRun"> & DryRunFlag>())));
    });

  withOutput(create.command("route").description("Make a static route (MeshRoute)").argument("<name>"))
    .requiredOption("--to <cidr>", "destination; may be repeated", collect)
    .requiredOption("--via <gateway>", "address of a router on the LAN, or name of a node; may be repeated, best first", collect)
    .option("--except <cidr>", "destination to leave out; may be repeated", collect)
    .option("--node-selector <k=v>", "nodes that get the route; all when absent", collectLabel)
    .addOption(new Option("--health <type>", "how the gateways are checked").choices(["icmp", "tcp", "http", "agent", "none"]))
    .addOption(new Option("--strategy <strategy>").choices(["Failover", "Spread"]))
    .action(async (name: string, _: unknown, command: Command) => {
      const { createRoute } = await import("../actions/create.ts");
      cli.finish(await createRoute(cli.io, name, withDryRun(command.optsWithGlobals<Omit<RouteFlags, "dryRun"> & DryRunFlag>())));
    });

  withOutput(create.command("egress").description("Make an egress gateway").argument("<name>"))
    .requiredOption("--to <cidr>", "destination; may be repeated", collect)
    .option("--except <cidr>", "destination to leave out; may be repeated", collect)
    .option("--gateway <k=v>", "labels of the gateway nodes; may be repeated, best first", collectWhole)
    .option("--gateway-site <site>", "all nodes of this site are gateways; may be repeated, best first", collect)
    .option("--snat <how>", "Masquerade, None, or the source address to use")
    .action(async (name: string, _: unknown, command: Command) => {
      const { createEgress } = await import("../actions/create.ts");
      cli.finish(await createEgress(cli.io, name, withDryRun(command.optsWithGlobals<Omit<EgressFlags, "dryRun"> & DryRunFlag>())));
    });

  tokenFlags(
    create.command("token").description("Make a token that lets machines join; it is printed once").argument("[name]", "made up when absent"),
  ).action(async (name: string | undefined, _: unknown, command: Command) => {
    const { createToken } = await import("../actions/token.ts");
    cli.finish(await createToken(cli.io, name, command.optsWithGlobals()));
  });

  create
    .command("admin")
    .description("Let a person use the API: makes a key here, has it certified, and writes a context")
    .argument("<name>")
    .addOption(new Option("--role <role>", "what the admin may do").choices(["viewer", "operator", "admin"]).default("viewer"))
    .option("--server <https://host:port>", "address of the controller for the context; what the controller advertises when absent")
    .option("--out <file>", "write a contexts file of its own, to be given to the person, instead of adding to yours")
    .option("--context-name <name>", "name of the context; the admin's name when absent")
    .action(async (name: string, _: unknown, command: Command) => {
      const { createAdmin } = await import("../actions/admin.ts");
      cli.finish(await createAdmin(cli.io, name, command.optsWithGlobals()));
    });
}

/** `token list|revoke`, `admin revoke`, `node revoke`. */
export function registerTokens(program: Command, cli: Cli): void {
  registerNode(program, cli);
  const token = program.command("token").description("List, make and revoke join tokens");
  token
    .command("list")
    .description("Show the tokens; their secrets are stored nowhere")
    .addOption(outputOption())
    .option("--no-headers", "leave the header line out")
    .action(async (_: unknown, command: Command) => {
      const { getObjects } = await import("../actions/get.ts");
      cli.finish(await getObjects(cli.io, ["tokens"], command.optsWithGlobals()));
    });
  tokenFlags(token.command("create").description("As `isthmus create token`").argument("[name]", "made up when absent")).action(
    async (name: string | undefined, _: unknown, command: Command) => {
      const { createToken } = await import("../actions/token.ts");
      cli.finish(await createToken(cli.io, name, command.optsWithGlobals()));
    },
  );
  token
    .command("revoke")
    .description("Nobody joins with these tokens any more; nodes that joined stay")
    .argument("<name...>")
    .action(async (names: string[], _: unknown, command: Command) => {
      const { revoke } = await import("../actions/token.ts");
      cli.finish(await revoke(cli.io, "tokens", names, command.optsWithGlobals()));
    });

  const admin = program.command("admin").description("Take an admin's access away");
  admin
    .command("revoke")
    .description("The certificates of these admins are refused from now on")
    .argument("<name...>")
    .action(async (names: string[], _: unknown, command: Command) => {
      const { revoke } = await import("../actions/token.ts");
      cli.finish(await revoke(cli.io, "admins", names, command.optsWithGlobals()));
    });
}

/** `node revoke` takes the access to the controller alone; a stolen machine, which is still a peer, needs `delete node`. */
function registerNode(program: Command, cli: Cli): void {
  const node = program.command("node").description("Take a node's access away, or start its wireguard-go anew");
  node
    .command("restart-wireguard")
    .description("Use a new version of wireguard-go: drain each node, start its WireGuard processes anew, uncordon it")
    .argument("<node...>")
    .option("--timeout <duration>", "how long old flows may take, for example 60s")
    .action(async (nodes: string[], _: unknown, command: Command) => {
      const { restartWireguard } = await import("../actions/restart-wireguard.ts");
      cli.finish(await restartWireguard(cli.io, nodes, command.optsWithGlobals()));
    });
  node
    .command("revoke")
    .description("The controller refuses these nodes from now on, but they stay peers of all others; a stolen machine needs `delete node`")
    .argument("<name...>")
    .action(async (names: string[], _: unknown, command: Command) => {
      const { revoke } = await import("../actions/token.ts");
      cli.finish(await revoke(cli.io, "nodes", names, command.optsWithGlobals()));
    });
}

function tokenFlags(command: Command): Command {
  return command
    .requiredOption("--site <site>", "site of the machines that join")
    .option("--uses <number>", "how many machines may join", wholeNumber, 1)
    .option("--expires <when>", "a length of time (24h, 30m, 7d) or a time (RFC 3339)", "24h")
    .option("--label <k=v>", "given to every machine that joins; may be repeated", collectLabel)
    .option("--name-pattern <pattern>", "names that may join, with * for any characters")
    .option("--grant-advertise <cidr>", "machines may advertise prefixes inside it; may be repeated", collect)
    .addOption(outputOption());
}

function withOutput(command: Command): Command {
  return command.addOption(dryRunOption()).addOption(outputOption());
}

/** The flags with `--dry-run` as yes or no. */
function withDryRun<T extends object>(flags: T & DryRunFlag): T & { readonly dryRun: boolean } {
  return { ...flags, dryRun: isDryRun(flags.dryRun) };
}
