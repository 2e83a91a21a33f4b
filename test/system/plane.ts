/** What the tests of the data plane share: a lab of the guides' topology, its controller and agents by their sockets, and real connections. */
import { execa } from "execa";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { type Client, clientFor } from "../../cli/client.ts";
import { removeLab } from "../../lab/build.ts";
import { enter } from "../../lab/enter.ts";
import type { Lab } from "../../lab/lab.ts";
import { hostPaths, netnsName, REPOSITORY, WORLD } from "../../lab/names.ts";
import { eventually, netnsScript, run } from "../../lab/shell.ts";
import { hostNamed, publicAddress } from "../../lab/topology.ts";
import { loadTopology, parseTopology } from "../../lab/topology-file.ts";
import { labUp } from "../../lab/up.ts";
import type { Condition } from "../../mesh/model/meta.ts";
import type { Explanation } from "../../mesh/model/answers.ts";
import type { AgentStatus } from "../../node-agent/status.ts";

export const INTERNET = "34.160.111.145";
const FLOW = fileURLToPath(new URL("tcp-flow.ts", import.meta.url));

export interface Plane {
  readonly lab: Lab;
  readonly controller: Client;
  /** Public address of a host, as the internet sees it. */
  addressOf(host: string): string;
  status(node: string): Promise<AgentStatus>;
  explain(node: string, destination: string): Promise<Explanation>;
  /** Observes the node's kernel and makes it what the plan says; how many operations that took. */
  reconcile(node: string): Promise<{ readonly operations: number; readonly failures: number }>;
  apply(...documents: readonly unknown[]): Promise<void>;
  remove(plural: string, name: string): Promise<void>;
  object(plural: string, name: string): Promise<Stored>;
  /** The command line, as on the machine of the lab. */
  cli(...argv: readonly string[]): Promise<string>;
  /** Source address that an internet host sees; empty without an answer. */
  seenFrom(host: string, url?: string): Promise<string>;
  becomes(what: string, host: string, expected: string | readonly string[], url?: string): Promise<void>;
  sh(host: string, script: string): Promise<string>;
  /** A TCP connection that sends a numbered line every 20 ms and counts the echoes. */
  flow(from: string, to: string, port: number, options?: { readonly source?: string }): Promise<Flow>;
  down(): Promise<void>;
}

export interface Stored {
  readonly metadata: { readonly name: string; readonly generation?: number };
  readonly status?: { readonly conditions?: readonly Condition[]; readonly [more: string]: unknown };
}

export interface FlowReport {
  readonly sent: number;
  readonly echoed: number;
  readonly error?: string;
  readonly longestSilenceMs: number;
}

export interface Flow {
  /** Ends the connection after its last echo. */
  stop(): Promise<FlowReport>;
}

/** @param manifests apply the topology's own @param topology text of a topology file; the guides' one when absent */
export async function planeUp(name: string, options: { readonly manifests?: boolean; readonly topology?: string } = {}): Promise<Plane> {
  const topology =
    options.topology === undefined
      ? await loadTopology(`${REPOSITORY}/lab/topology/default.yaml`)
      : parseTopology(options.topology, "the test's topology");
  const lab = await labUp({ name, topology, join: true, manifests: options.manifests ?? true });
  const socket = lab.controllerSocket ?? "";
  const controller = clientFor({ name, socket });
  const agent = (node: string): Client => clientFor({ name: node, socket: `${hostPaths(name, node).run}/isthmus/agent.sock` });
  const seenFrom: Plane["seenFrom"] = async (host, url = INTERNET) =>
    (await lab.exec(host, ["curl", "-s", "--max-time", "2", `http://${url}`], { mayFail: true })).stdout.trim();
  return {
    lab,
    controller,
    addressOf: (host) => publicAddress(topology, hostNamed(topology, host)) ?? "",
    status: async (node) => (await agent(node).call("GET", "/status")) as AgentStatus,
    explain: async (node, destination) => (await agent(node).call("GET", `/explain?destination=${destination}`)) as Explanation,
    reconcile: async (node) => (await agent(node).call("POST", "/reconcile")) as { operations: number; failures: number },
    apply: async (...documents) => void (await controller.call("POST", "/v1/apply", { documents })),
    remove: async (plural, one) => void (await controller.call("DELETE", `/v1/resources/${plural}/${one}`)),
    object: async (plural, one) => (await controller.call("GET", `/v1/resources/${plural}/${one}`)) as Stored,
    cli: async (...argv) => (await run([process.execPath, `${REPOSITORY}/cli/main.ts`, ...argv, "--socket", socket], { timeoutMs: 60_000 })).stdout,
    seenFrom,
    async becomes(what, host, expected, url) {
      const accepted = [expected].flat();
      let last = "";
      await eventually(what, 40_000, async () => (accepted.includes((last = await seenFrom(host, url))) ? true : undefined), { everyMs: 100 }).catch(
        (error: unknown) => {
          throw new Error(`${what}: seen as ${last || "nobody"}, not ${accepted.join(" or ")}`, { cause: error });
        },
      );
    },
    sh: async (host, script) => (await lab.exec(host, ["sh", "-c", script])).stdout,
    flow: (from, to, port, more) => startFlow(name, from, { address: to, port, ...more }),
    down: async () => void (await removeLab(name)),
  };
}

async function startFlow(lab: string, from: string, options: object): Promise<Flow> {
  const [file, args] = await enter(lab, from, [process.execPath, FLOW, JSON.stringify(options)]);
  const child = execa(file, args, { reject: false, stdin: "pipe", buffer: true });
  const ended = child.then(() => {
    throw new Error(`the connection from ${from} ended before it began`);
  });
  const first = new Promise<string>((ready) => void child.stdout.once("data", (chunk: Buffer) => ready(chunk.toString())));
  const said = await Promise.race([first, ended]);
  if (!said.startsWith("ready")) throw new Error(`no connection from ${from}: ${said}`);
  ended.catch(() => {});
  return {
    async stop() {
      child.stdin.end("stop\n");
      const { stdout, stderr } = await child;
      const last = stdout.trim().split("\n").at(-1) ?? "";
      if (!last.startsWith("{")) throw new Error(`the connection from ${from} left no report: ${stderr}`);
      return JSON.parse(last) as FlowReport;
    },
  };
}

/** Starts a command on a host that goes on until `stop`, or the host's end. */
export async function background(lab: string, host: string, argv: readonly string[]): Promise<{ stop(): Promise<void> }> {
  const [file, args] = await enter(lab, host, argv);
  const child = execa(file, args, { reject: false, stdin: "ignore", buffer: false });
  return {
    async stop() {
      // The command is a child of nsenter in the host's own pid namespace: a signal to nsenter alone would orphan it.
      if (child.pid !== undefined) await run(["pkill", "-KILL", "-P", String(child.pid)], { mayFail: true });
      child.kill("SIGKILL");
      await child;
    },
  };
}

/** Packets in the clear that cross the world, with a destination that belongs to the overlay. WireGuard's own go to nodes' addresses. */
export async function watchLeaks(lab: string, destinations: readonly string[], from: readonly string[]): Promise<() => Promise<number>> {
  const world = netnsName(lab, WORLD);
  const set = `{ ${destinations.join(", ")} }`;
  const ways = `{ ${from.map((name) => `"${name}"`).join(", ")} }`;
  const rule = `iifname ${ways} ip daddr ${set} counter name leaks`;
  await netnsScript(
    world,
    `nft -f - <<'END'\nadd table inet watch\ndelete table inet watch\ntable inet watch {\n  counter leaks { }\n  chain early { type filter hook prerouting priority -300; ${rule}; }\n}\nEND\n`,
  );
  return async () => {
    const listed = await netnsScript(world, "nft -j list counter inet watch leaks");
    return Number(/"packets": ?([0-9]+)/.exec(listed.stdout)?.[1] ?? Number.NaN);
  };
}

/** The kernel is what the plan says: an own look finds nothing to do. */
export async function expectInSync(plane: Plane, node: string): Promise<void> {
  await eventually(
    `${node} has nothing left to do`,
    30_000,
    async () => {
      const found = await plane.reconcile(node).catch(() => undefined);
      return found?.operations === 0 && found.failures === 0 ? true : undefined;
    },
    { everyMs: 100 },
  );
}

/** All nodes Ready, and egress by the preferred gateway: where a test begins. */
export async function settled(plane: Plane, gateway?: string): Promise<void> {
  await plane.lab.heal();
  const nodes = plane.lab.topology.hosts.filter((host) => host.role === "node").map((host) => host.name);
  await eventually(
    "every node is ready",
    60_000,
    async () => {
      const listed = (await plane.controller.call("GET", "/v1/resources/meshnodes").catch(() => ({ items: [] }))) as { items: Stored[] };
      const ready = listed.items.filter((one) => one.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True"));
      return ready.length === nodes.length ? true : undefined;
    },
    { everyMs: 200 },
  );
  if (gateway !== undefined) await plane.becomes(`egress by ${gateway}`, "datacenter1", plane.addressOf(gateway));
}

/** The condition of an object once it says what is wanted. */
export async function conditionOf(plane: Plane, plural: string, name: string, type: string, wanted: (one: Condition) => boolean): Promise<Condition> {
  let last: Stored | undefined;
  try {
    return await eventually(
      `${plural}/${name}: ${type}`,
      30_000,
      async () => {
        last = await plane.object(plural, name);
        return last.status?.conditions?.find((one) => one.type === type && wanted(one));
      },
      { everyMs: 100 },
    );
  } catch (error) {
    expect.fail(`${error instanceof Error ? error.message : ""}; its status: ${JSON.stringify(last?.status)}`);
  }
}

/** Egress of the datacenter by do1, else do2; decides quickly, so that tests do. */
export function egress(spec: Readonly<Record<string, unknown>> = {}, name = "internet"): object {
  return {
    apiVersion: "isthmus.dev/v1alpha1",
    kind: "EgressGateway",
    metadata: { name },
    spec: {
      destinations: [INTERNET],
      sources: { nodeSelector: { location: "onprem" } },
      gateways: [{ nodeSelector: { egress: "true" } }],
      health: { holdDown: "1s" },
      failback: { type: "Immediate" },
      ...spec,
    },
  };
}

/** Starts the nodes' agents anew: quiet times that earlier tests' failures made long begin at their first length again. */
export async function forgetFlaps(plane: Plane, ...nodes: readonly string[]): Promise<void> {
  for (const node of nodes) {
    // It may be starting already: an earlier test's node that lost its power comes back after that test.
    const before = (await plane.status(node).catch(() => undefined))?.started;
    await plane.lab.crash(node);
    await eventually(
      `the agent of ${node} is back`,
      30_000,
      async () => {
        const status = await plane.status(node).catch(() => undefined);
        // Before its first pass it says nothing of its paths.
        return status !== undefined && status.started !== before && status.lastPass !== undefined ? true : undefined;
      },
      { everyMs: 100 },
    );
  }
}

/** Waits until the node uses the gateway for the path, with every link up: from here on a move has a cause. */
export async function steady(plane: Plane, node: string, gateway: string, path = "egress/internet"): Promise<AgentStatus["paths"][number]> {
  let last: AgentStatus | undefined;
  return eventually(
    `${node} uses ${gateway} for ${path}, with every link up`,
    60_000,
    async () => {
      last = await plane.status(node).catch(() => undefined);
      const chosen = last?.paths.find(({ id }) => id === path);
      return chosen?.active.join() === gateway && last?.links.every(({ verdict }) => verdict === "Up") === true ? chosen : undefined;
    },
    { everyMs: 100 },
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${JSON.stringify([last?.paths, last?.links])}`, { cause: error });
  });
}
