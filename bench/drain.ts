/**
 * Planned moves under traffic: packets lost and TCP connections broken, for datacenter1's own traffic and for what it forwards
 * for a machine of its LAN, both through two SNATs. The two gateways are drained in turns.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { enterNetwork } from "../lab/enter.ts";
import { REPOSITORY } from "../lab/names.ts";
import { loadTopology } from "../lab/topology-file.ts";
import type { Topology } from "../lab/topology.ts";
import type { FlowReport } from "./flows.ts";
import type { BenchOptions } from "./main.ts";
import { type BenchMesh, INTERNET, pathView, until, withMesh } from "./mesh.ts";
import type { Row } from "./stats.ts";

const TIMES = 50;
const CLIENT = "datacenter1";
/** A machine without an agent whose way to the internet host is datacenter1. */
const BEHIND = "lanhost";
const PATH = "egress/bench";
const BEFORE_MS = 300;
const AFTER_MS = 600;
const FLOWS = fileURLToPath(new URL("flows.ts", import.meta.url));

const INTENT = {
  apiVersion: "isthmus.dev/v1alpha1",
  kind: "EgressGateway",
  metadata: { name: "bench" },
  spec: {
    destinations: [INTERNET],
    sources: { nodeSelector: { location: "onprem" } },
    gateways: [{ nodeSelector: { egress: "true" } }],
    failback: { type: "Manual" },
    drainTimeout: "60s",
  },
};

export async function drain(options: BenchOptions): Promise<Row[]> {
  const times = options.n ?? TIMES;
  const topology = await loadTopology(`${REPOSITORY}/lab/topology/default.yaml`);
  return withMesh(forwarding(topology), options, async (mesh) => {
    await mesh.call("POST", "/v1/apply", { documents: [INTENT] });
    const runs: Run[] = [];
    for (let i = 0; i < times; i++) {
      options.signal.throwIfAborted();
      runs.push(await one(mesh, options.signal));
      if ((i + 1) % 10 === 0) options.log(`${i + 1} of ${times} drains`);
    }
    const row = (what: string, of: (run: Run) => number): Row => ({ what, unit: "per drain", samples: runs.map(of), judge: "max", target: 0 });
    const told = (what: string, of: (run: Run) => number): Row => ({ what, unit: "per drain", samples: runs.map(of), judge: "median" });
    return [
      row("packets lost, local", ({ local }) => local.packets.lost),
      row("packets lost, forwarded", ({ forwarded }) => forwarded.packets.lost),
      row("open TCP connections broken, local", ({ local }) => local.long.broken),
      row("open TCP connections broken, forwarded", ({ forwarded }) => forwarded.long.broken),
      row("new TCP connections failed, local", ({ local }) => local.short.failed),
      row("new TCP connections failed, forwarded", ({ forwarded }) => forwarded.short.failed),
      told("of packets", ({ local, forwarded }) => local.packets.sent + forwarded.packets.sent),
      told("of open connections", ({ local, forwarded }) => local.long.opened + forwarded.long.opened),
      told("of new connections", ({ local, forwarded }) => local.short.tried + forwarded.short.tried),
      { what: "drain until the client uses the other gateway", unit: "ms", samples: runs.map(({ movedMs }) => movedMs), judge: "median" },
    ];
  });
}

interface Run {
  readonly local: FlowReport;
  readonly forwarded: FlowReport;
  readonly movedMs: number;
}

async function one({ lab, status, call }: BenchMesh, signal: AbortSignal): Promise<Run> {
  const active = await until(
    "both gateways are ready",
    async () => {
      const seen = pathView(await status(CLIENT), PATH);
      return seen.ready.size >= 2 ? seen.active : undefined;
    },
    { signal, withinMs: 60_000, everyMs: 50 },
  );
  const flows = await Promise.all([startFlows(lab.name, CLIENT), startFlows(lab.name, BEHIND)]);
  await delay(BEFORE_MS);
  const begun = performance.now();
  await call("POST", `/v1/nodes/${active}/drain`, {});
  await until("the other gateway is used", async () => (pathView(await status(CLIENT), PATH).active !== active ? true : undefined), {
    signal,
    everyMs: 20,
  });
  const movedMs = performance.now() - begun;
  await delay(AFTER_MS);
  const [local, forwarded] = await Promise.all(flows.map((flow) => flow.stop()));
  await call("POST", `/v1/nodes/${active}/uncordon`, {});
  // What it counted is worth nothing unless the traffic did move.
  if (local!.short.sources.length < 2) throw new Error(`new connections did not move: the internet saw ${local!.short.sources.join(", ")} only`);
  return { local: local!, forwarded: forwarded!, movedMs };
}

interface Flows {
  stop(): Promise<FlowReport>;
}

async function startFlows(lab: string, host: string): Promise<Flows> {
  const [file, args] = await enterNetwork(lab, host, [process.execPath, FLOWS, INTERNET]);
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = linesOf(child);
  const first = await lines.next();
  if (first !== "ready") throw new Error(`the flows from ${host} did not start: ${first ?? "no answer"}`);
  return {
    stop: async () => {
      child.stdin.end();
      return JSON.parse((await lines.next()) ?? "") as FlowReport;
    },
  };
}

function linesOf(child: ChildProcess): { next(): Promise<string | undefined> } {
  let text = "";
  let ended = false;
  let wake: () => void = () => undefined;
  child.stdout?.setEncoding("utf8").on("data", (part: string) => {
    text += part;
    wake();
  });
  child.on("close", () => {
    ended = true;
    wake();
  });
  return {
    async next() {
      for (;;) {
        const at = text.indexOf("\n");
        if (at >= 0) {
          const line = text.slice(0, at);
          text = text.slice(at + 1);
          return line;
        }
        if (ended) return undefined;
        await new Promise<void>((done) => {
          wake = done;
        });
      }
    },
  };
}

/** The machine of the LAN goes to the internet host by datacenter1. */
function forwarding(topology: Topology): Topology {
  const via = topology.hosts.find(({ name }) => name === CLIENT)?.nics[0]?.address ?? "";
  const hosts = topology.hosts.map((host) => (host.name === BEHIND ? { ...host, routes: [...host.routes, { to: `${INTERNET}/32`, via }] } : host));
  return { ...topology, hosts };
}
