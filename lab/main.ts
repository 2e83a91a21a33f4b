/** `isthmus lab …`: the command line of the lab. */
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { execa } from "execa";
import { fileURLToPath } from "node:url";
import { readContexts } from "../cli/context.ts";
import { renderError } from "../cli/errors.ts";
import { processIo } from "../cli/io.ts";
import { step as progressStep } from "../cli/progress.ts";
import { asIsthmusError, IsthmusError } from "../mesh/errors.ts";
import { durationMs } from "../mesh/model/scalars.ts";
import { enter } from "./enter.ts";
import { expectedBack } from "./expected.ts";
import { describeFault, FAULT_KINDS, type FaultKind } from "./faults.ts";
import type { Fault } from "./blueprint.ts";
import { type Lab, openLab } from "./lab.ts";
import { waitForReconnection } from "./mesh.ts";
import { DEFAULT_LAB } from "./names.ts";
import { renderGap, renderHint, renderStatus } from "./render.ts";
import { serviceLog } from "./build.ts";
import { pickLab } from "./state.ts";
import { hostNamed } from "./topology.ts";
import { loadTopology } from "./topology-file.ts";
import { contextName, labDown, labUp } from "./up.ts";

const DEFAULT_TOPOLOGY = fileURLToPath(new URL("topology/default.yaml", import.meta.url));

/** Runs `isthmus lab ARGV…`; gives back the exit status. */
export async function labCommand(argv: string[]): Promise<number> {
  let status = 0;
  const program = labProgram((code) => {
    status = code;
  });
  try {
    await program.parseAsync(argv, { from: "user" });
    return status;
  } catch (thrown) {
    // Commander has said what is wrong already.
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? 0 : 2;
    const error = asIsthmusError(thrown);
    process.stderr.write(renderError(error));
    return error.exit;
  }
}

/** The commands; also read by the generator of the CLI reference. */
export function labProgram(exit: (code: number) => void): Command {
  const lab = new Command("isthmus lab")
    .description("A multi-site network on this machine, in network namespaces")
    .exitOverride()
    .showSuggestionAfterError();
  // Otherwise `lab exec HOST CMD --flag` would take CMD's flags for its own.
  lab.enablePositionalOptions();
  const named = (command: Command): Command => command.option("--name <lab>", "which lab (default: ISTHMUS_LAB, demo, or the only one)");
  const output = (): Option => new Option("-o, --output <format>", "text or json").choices(["text", "json"]).default("text");

  lab
    .command("up")
    .description("Build the lab, start the controller, join the nodes, apply the examples")
    .addOption(new Option("-f, --file <file>", "topology file").default(DEFAULT_TOPOLOGY, "lab/topology/default.yaml"))
    .option("--name <lab>", "name of the lab", DEFAULT_LAB)
    .option("--no-join", "hosts and networks only: no controller, no agents")
    .option("--no-manifests", "do not apply the topology's manifests")
    .option("--keep", "leave a lab that failed half-way as it is, to look at it")
    .action(up);

  named(lab.command("down").description("Remove the lab: processes, namespaces, files. One that your contexts do not know must be named")).action(
    async (options: { name?: string }) => {
      const name = options.name ?? (await ownLab());
      process.stdout.write((await labDown(name)) ? `lab ${name} removed\n` : `there is no lab ${name}\n`);
    },
  );

  named(lab.command("fail").description("Break something, without a goodbye"))
    .addArgument(lab.createArgument("<kind>", FAULT_KINDS.join(", ")).choices(FAULT_KINDS))
    .argument("[names...]", "host; two hosts for link; node and interface for wireguard")
    .addHelpText("after", FAIL_HELP)
    .action(async (kind: FaultKind, names: string[], options: { name?: string }) => {
      await (await openLab(options.name)).fail(kind, ...names);
      process.stdout.write(`failed: ${[kind, ...names].join(" ")}\n`);
    });

  named(lab.command("heal").description("Put right what was broken: all, or what is named"))
    .argument("[what...]", "a kind, a host, or both")
    .action(async (words: string[], options: { name?: string }) => {
      const lab = await openLab(options.name);
      const healed = await lab.heal(...words);
      await settle(lab, healed);
      process.stdout.write(healed.length === 0 ? "nothing to heal\n" : `healed: ${healed.map(describeFault).join(", ")}\n`);
    });

  named(lab.command("status").description("Hosts, their power and services, and what is broken"))
    .addOption(output())
    .action(async (options: { name?: string; output: string }) => {
      const status = await (await openLab(options.name)).status();
      process.stdout.write(options.output === "json" ? `${JSON.stringify(status, null, 2)}\n` : renderStatus(status));
    });

  named(lab.command("exec").description("Run a command on a host"))
    .argument("<host>")
    .argument("<command...>", "after --")
    .passThroughOptions()
    .action(async (host: string, argv: string[], options: { name?: string }) => {
      const state = await pickLab(options.name);
      // Commander leaves the "--" in when options are passed through.
      const command = argv[0] === "--" ? argv.slice(1) : argv;
      const [file, args] = await enter(state.name, hostNamed(state.topology, host).name, command);
      const result = await execa(file, args, { stdio: "inherit", reject: false });
      exit(result.exitCode ?? 137);
    });

  named(lab.command("logs").description("Log of a host's agent, controller or services"))
    .argument("<host>")
    .option("-f, --follow", "go on printing")
    .action(async (host: string, options: { name?: string; follow?: boolean }) => {
      const file = serviceLog(await pickLab(options.name), host);
      const result = await execa(options.follow === true ? "tail" : "cat", [...(options.follow === true ? ["-n", "+1", "-F"] : []), file], {
        stdio: "inherit",
        reject: false,
      });
      exit(result.exitCode ?? 0);
    });

  named(lab.command("ping").description("A steady stream of packets: how many were lost, and the longest gap"))
    .argument("<from>", "host")
    .argument("<to>", "host or address; a node is meant by its overlay address")
    .addOption(new Option("--interval <time>", "time between packets").argParser(duration).default(10, "10ms"))
    .addOption(new Option("--for <time>", "length of the stream").argParser(duration).default(5_000, "5s"))
    .option("--underlay", "to a node's address outside of the overlay")
    .addOption(new Option("--protocol <name>", "default: udp to internet hosts, icmp to all others").choices(["udp", "icmp"]))
    .addOption(output())
    .action(async (from: string, to: string, options: PingFlags) => {
      const report = await (
        await openLab(options.name)
      ).gapStream({
        from,
        to,
        intervalMs: options.interval,
        forMs: options.for,
        ...(options.underlay === undefined ? {} : { underlay: options.underlay }),
        ...(options.protocol === undefined ? {} : { protocol: options.protocol }),
      });
      process.stdout.write(options.output === "json" ? `${JSON.stringify({ from, to, ...report })}\n` : renderGap(report));
      exit(report.sent === 0 || report.lost === report.sent ? 1 : 0);
    });
  return lab;
}

/** The lab that `down` means without a name. The only one there is may be somebody else's: it is ours where our contexts know it. */
async function ownLab(): Promise<string> {
  const lab = (await pickLab(undefined).catch(() => undefined))?.name ?? DEFAULT_LAB;
  if (lab === DEFAULT_LAB || lab === process.env["ISTHMUS_LAB"]) return lab;
  const { contexts } = await readContexts({ env: process.env });
  if (contexts.some(({ name }) => name === contextName(lab))) return lab;
  throw new IsthmusError("BadRequest", `the only lab here is "${lab}", and your contexts do not know it: somebody else may use it`, {
    remedy: `If it is the one you mean: isthmus lab down --name ${lab}.`,
  });
}

/** Whoever healed the controller asks it next: it should be there. */
async function settle(lab: Lab, healed: readonly Fault[]): Promise<void> {
  const status = await lab.status();
  const { hosts, faults } = status;
  const controller = hosts.find((host) => host.role === "controller");
  const off = faults.some((fault) => (fault.kind === "controller" || fault.kind === "node") && fault.host === controller?.name);
  const back = healed.some((fault) => (fault.kind === "controller" || fault.kind === "node") && fault.host === controller?.name);
  if (!back || off || lab.controllerSocket === undefined) return;
  await waitForReconnection(lab.state, lab.controllerSocket, expectedBack(status));
}

interface PingFlags {
  readonly name?: string;
  readonly interval: number;
  readonly for: number;
  readonly underlay?: boolean;
  readonly protocol?: "udp" | "icmp";
  readonly output: string;
}

const FAIL_HELP = `
  node HOST          power off; its kernel state is gone, its disk stays
  uplink HOST        the way from a host to the internet; of a router or a site behind NAT, its whole WAN link
  link HOST HOST     the underlay between two hosts
  carrier HOST       the cables of a host
  agent NODE         kill -9 of the agent and its control group; it stays dead until healed
  controller         kill -9 of the controller
  wireguard NODE [INTERFACE]   kill -9 of the process behind an interface (default ism0;
                     "active": the link that egress goes by now)
`;

function duration(text: string): number {
  if (!/^[0-9]{1,9}(ms|s|m|h)$/.test(text)) throw new InvalidArgumentError("write a number with a unit: 10ms, 5s, 1m");
  const ms = durationMs(text);
  if (ms < 1) throw new InvalidArgumentError("must be at least 1ms");
  return ms;
}

async function up(options: { file: string; name: string; join: boolean; manifests: boolean; keep?: boolean }): Promise<void> {
  const io = processIo();
  const began = performance.now();
  const topology = await loadTopology(options.file);
  // Ctrl-C leaves nothing half-built behind.
  const stop = new AbortController();
  const interrupted = (): void => stop.abort(new IsthmusError("Internal", "interrupted; what was built is removed again"));
  process.once("SIGINT", interrupted).once("SIGTERM", interrupted);
  try {
    const lab = await labUp({
      name: options.name,
      topology,
      join: options.join,
      manifests: options.manifests,
      keep: options.keep === true,
      lasting: true,
      setContext: true,
      signal: stop.signal,
      warn: (text) => io.err(`warning: ${text}\n`),
      step: async (text, work) => {
        using shown = progressStep(io, text);
        const start = performance.now();
        const result = await work((detail) => shown.say(`${text}: ${detail}`));
        shown.done(`${text} (${((performance.now() - start) / 1000).toFixed(1)} s)`);
        return result;
      },
    });
    process.stdout.write(
      renderHint(lab, (performance.now() - began) / 1000, options.name === DEFAULT_LAB, process.env["ISTHMUS_CALLED"] ?? "isthmus"),
    );
  } finally {
    process.off("SIGINT", interrupted).off("SIGTERM", interrupted);
  }
}
