/** A running lab, for tests, benches and the command line. */
import { execa } from "execa";
import { isIP } from "node:net";
import { IsthmusError } from "../mesh/errors.ts";
import type { Fault } from "./blueprint.ts";
import { enter } from "./enter.ts";
import { type FaultKind, healFaults, inject, matchesWords, parseFaults, serviceRuns } from "./faults.ts";
import type { GapReport } from "./gap.ts";
import { crashService, signalService } from "./machine.ts";
import { hostPaths, netnsName } from "./names.ts";
import type { RunResult } from "./shell.ts";
import { initOf, type LabState, listFaults, pickLab } from "./state.ts";
import { type GapStream, startStream } from "./stream.ts";
import { type Host, hostNamed, publicAddress, type Topology } from "./topology.ts";

export interface ExecOptions {
  readonly input?: string;
  /** Default 30 s; the command is killed then, and the exit status is 137. */
  readonly timeoutMs?: number;
  /** Give a failure back instead of throwing. */
  readonly mayFail?: boolean;
}

export interface GapOptions {
  readonly from: string;
  /** A host's name or an address. */
  readonly to: string;
  readonly intervalMs?: number;
  readonly forMs?: number;
  /** Default: UDP to internet hosts, ICMP to all others. */
  readonly protocol?: "udp" | "icmp";
  /** To a node by its address outside of the overlay. */
  readonly underlay?: boolean;
}

export interface HostStatus {
  readonly name: string;
  readonly role: Host["role"];
  readonly site?: string;
  readonly power: "on" | "off";
  /** Its one service: agent, controller or internet services; absent where it has none. */
  readonly service?: "running" | "stopped";
  readonly addresses: readonly string[];
  readonly publicAddress?: string;
  readonly netns: string;
}

export interface LabStatus {
  readonly name: string;
  readonly createdAt: string;
  readonly joined: boolean;
  readonly hosts: readonly HostStatus[];
  readonly faults: readonly Fault[];
  /** Unix socket of the controller, on the machine. */
  readonly controllerSocket?: string;
}

export interface Lab {
  readonly name: string;
  readonly topology: Topology;
  readonly state: LabState;
  /** Runs a command inside a host and gives back what it printed. @throws IsthmusError unless it succeeds. */
  exec(host: string, argv: readonly string[], options?: ExecOptions): Promise<RunResult>;
  fail(kind: FaultKind, ...names: string[]): Promise<void>;
  /** Heals all, or what the words name (`heal("node", "do1")`). */
  heal(...words: string[]): Promise<Fault[]>;
  /** Kills a node's agent (or the controller) with its whole control group; its service manager starts it again. */
  crash(host: string): Promise<void>;
  /** Sends a signal to all of a host's service: `SIGSTOP` and `SIGCONT` make an agent stall. */
  signal(host: string, signal: NodeJS.Signals): Promise<void>;
  /** Streams packets for `forMs` and reports. */
  gapStream(options: GapOptions & { readonly forMs: number }): Promise<GapReport>;
  /** Starts a stream; packets flow when this settles. Break things, then `stop()`. */
  startGapStream(options: GapOptions): Promise<GapStream>;
  status(): Promise<LabStatus>;
  /** Overlay address of a node, undefined before it has joined. */
  overlayAddress(node: string): Promise<string | undefined>;
  /** Unix socket of the controller, on the machine. */
  readonly controllerSocket: string | undefined;
}

/** Opens a lab that is up. @throws IsthmusError `NotFound`. */
export async function openLab(name?: string): Promise<Lab> {
  return labOf(await pickLab(name));
}

export function labOf(state: LabState): Lab {
  const { name, topology } = state;
  const controller = topology.hosts.find((host) => host.role === "controller");
  const controllerSocket = state.joined && controller !== undefined ? `${hostPaths(name, controller.name).run}/isthmus/controller.sock` : undefined;

  const exec: Lab["exec"] = async (host, argv, options = {}) => {
    hostNamed(topology, host);
    // The deadline is kept inside: a signal to nsenter would not reach the command behind the pid namespace.
    const seconds = String((options.timeoutMs ?? 30_000) / 1000);
    const [file, args] = await enter(name, host, ["timeout", "--signal=KILL", seconds, ...argv]);
    const result = await execa(file, args, {
      reject: false,
      stripFinalNewline: false,
      ...(options.input === undefined ? { stdin: "ignore" } : { input: options.input }),
    });
    const done = { stdout: result.stdout, stderr: result.stderr, code: result.exitCode ?? 137 };
    if (done.code !== 0 && options.mayFail !== true) {
      throw new IsthmusError(
        "Internal",
        `${host}: ${argv.slice(0, 6).join(" ")}: exit status ${done.code}: ${done.stderr.trim() || done.stdout.trim()}`,
      );
    }
    return done;
  };

  const overlayAddress: Lab["overlayAddress"] = async (node) => {
    hostNamed(topology, node);
    const hosts = await exec(node, ["cat", "/etc/hosts"], { mayFail: true });
    return findOverlayAddress(hosts.stdout, node);
  };

  const startGapStream: Lab["startGapStream"] = async (options) => {
    hostNamed(topology, options.from);
    const target = isIP(options.to) === 0 ? hostNamed(topology, options.to) : undefined;
    const overlay =
      target?.role === "node" && options.underlay !== true && target.name !== options.from ? await overlayAddress(target.name) : undefined;
    const address = overlay ?? (target === undefined ? options.to : nearestAddress(topology, options.from, target));
    const internet = topology.hosts.some((host) => host.role === "internet" && host.nics.some((nic) => nic.address === address));
    const stream = await startStream({
      lab: name,
      from: options.from,
      address,
      protocol: options.protocol ?? (internet ? "udp" : "icmp"),
      intervalMs: options.intervalMs ?? 10,
      ...(options.forMs === undefined ? {} : { forMs: options.forMs }),
    });
    await stream.ready;
    return stream;
  };

  return {
    name,
    topology,
    state,
    controllerSocket,
    exec,
    overlayAddress,
    startGapStream,
    gapStream: async (options) => (await startGapStream(options)).report,
    fail: async (kind, ...names) => {
      for (const fault of parseFaults(topology, kind, names)) await inject(state, fault);
    },
    heal: async (...words) => healFaults(state, matchesWords(topology, words)),
    crash: async (host) => crashService(name, hostNamed(topology, host).name),
    signal: async (host, signal) => signalService(name, hostNamed(topology, host).name, signal),
    status: async () => ({
      name,
      createdAt: state.createdAt,
      joined: state.joined,
      ...(controllerSocket === undefined ? {} : { controllerSocket }),
      faults: await listFaults(name),
      hosts: await Promise.all(topology.hosts.map((host) => hostStatus(state, host))),
    }),
  };
}

async function hostStatus(state: LabState, host: Host): Promise<HostStatus> {
  const on = (await initOf(state.name, host.name)) !== undefined;
  const hasService = host.role === "internet" || (state.joined && (host.role === "node" || host.role === "controller"));
  const seen = publicAddress(state.topology, host);
  return {
    name: host.name,
    role: host.role,
    ...(host.site === undefined ? {} : { site: host.site }),
    power: on ? "on" : "off",
    ...(hasService ? { service: on && (await serviceRuns(state.name, host.name)) ? "running" : "stopped" } : {}),
    addresses: host.nics.map((nic) => nic.address),
    ...(seen === undefined ? {} : { publicAddress: seen }),
    netns: netnsName(state.name, host.name),
  };
}

/** The address of `target` that `from` would dial: on a segment that both share, else its first. */
function nearestAddress(topology: Topology, from: string, target: Host): string {
  const segments = new Set(hostNamed(topology, from).nics.map((nic) => nic.segment));
  return (target.nics.find((nic) => segments.has(nic.segment)) ?? target.nics[0]!).address;
}

/** A node finds itself and its peers as `<node>.<network>` in the block that the agent manages in the hosts file. */
export function findOverlayAddress(hosts: string, node: string): string | undefined {
  for (const line of hosts.split("\n")) {
    const [address, ...names] = line.replace(/#.*/, "").trim().split(/\s+/);
    if (address !== undefined && !address.includes(":") && !address.startsWith("127.") && names.some((name) => name.startsWith(`${node}.`)))
      return address;
  }
  return undefined;
}
