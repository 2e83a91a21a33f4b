/**
 * From the join command to the first answer over the overlay, one machine after the other: launcher, Node's start, keys, the
 * controller, the tunnel, the handshake. The machine is behind NAT; who answers is a node in a cloud.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { enter, enterNetwork } from "../lab/enter.ts";
import { makeTokens } from "../lab/mesh.ts";
import { hostPaths, REPOSITORY } from "../lab/names.ts";
import { loadTopology } from "../lab/topology-file.ts";
import type { Topology } from "../lab/topology.ts";
import type { BenchOptions } from "./main.ts";
import { type BenchMesh, until, withMesh } from "./mesh.ts";
import type { Row } from "./stats.ts";

const TIMES = 50;
/** Joins, leaves, joins again under another name. */
const JOINER = "lanhost";
const ANSWERS = "do1";
/** A new ping each time: one that runs on would keep the source address that it began with. */
const PING = 'until ping -n -q -c 1 -W 0.02 "$1" >/dev/null 2>&1; do sleep 0.002; done; echo answered';

export async function join(options: BenchOptions): Promise<Row[]> {
  const times = options.n ?? TIMES;
  const topology = withoutRoutes(await loadTopology(`${REPOSITORY}/lab/topology/default.yaml`));
  return withMesh(topology, options, async (mesh) => {
    const address = await until("the overlay address is known", () => mesh.lab.overlayAddress(ANSWERS), { signal: options.signal });
    await putToken(mesh, topology);
    const pinged: number[] = [];
    const joined: number[] = [];
    for (let i = 0; i < times; i++) {
      options.signal.throwIfAborted();
      const one = await joinOnce(mesh, `joiner${i}`, address, options.signal);
      pinged.push(one.pingedMs);
      joined.push(one.joinedMs);
      if ((i + 1) % 10 === 0) options.log(`${i + 1} of ${times} joins`);
    }
    return [
      { what: "join command until the first overlay ping", unit: "ms", samples: pinged, judge: "p99", target: 1_000 },
      { what: "of that: until the controller admitted it", unit: "ms", samples: joined, judge: "median" },
    ];
  });
}

async function putToken({ lab, call }: BenchMesh, topology: Topology): Promise<void> {
  const client = { call: (method: string, path: string, body?: unknown) => call(method, path, body) };
  const tokens = await makeTokens(client as never, { ...topology, hosts: topology.hosts.filter(({ name }) => name === "datacenter1") });
  await writeFile(`${hostPaths(lab.name, JOINER).lib}/token`, `${tokens.get("datacenter1")}\n`, { mode: 0o600 });
}

async function joinOnce({ lab }: BenchMesh, name: string, address: string, signal: AbortSignal): Promise<{ pingedMs: number; joinedMs: number }> {
  // Before it has joined, nothing may answer: it would be another node's tunnel that is measured.
  const early = await lab.exec(JOINER, ["ping", "-n", "-c", "1", "-W", "0.3", address], { mayFail: true });
  if (early.code === 0) throw new Error(`${address} answers ${JOINER} before it has joined`);
  // It sends from before the join on: nothing is lost on starting it.
  const ping = spawn(...(await enterNetwork(lab.name, JOINER, ["sh", "-c", PING, "sh", address])), { stdio: ["ignore", "pipe", "ignore"] });
  const argv = ["isthmus", "join", "--token-file", "/var/lib/token", "--name", name];
  const command = await enter(lab.name, JOINER, argv);
  const begun = performance.now();
  const agent = spawn(...command, { stdio: ["ignore", "ignore", "pipe"] });
  try {
    const [pingedMs, joinedMs] = await Promise.all([
      said(ping, /answered/, signal).then(() => performance.now() - begun),
      said(agent, /joined network/, signal).then(() => performance.now() - begun),
    ]);
    if (pingedMs < joinedMs) throw new Error(`a ping was answered ${(joinedMs - pingedMs).toFixed(0)} ms before ${name} had joined`);
    return { pingedMs, joinedMs };
  } finally {
    ping.kill("SIGKILL");
    await until("the agent leaves", async () => ((await lab.exec(JOINER, ["isthmus", "leave"], { mayFail: true })).code === 0 ? true : undefined), {
      signal,
    });
    await ended(agent);
  }
}

/** The machine's way into the overlay by another node of its LAN is taken away. */
function withoutRoutes(topology: Topology): Topology {
  return { ...topology, hosts: topology.hosts.map((host) => (host.name === JOINER ? { ...host, routes: [] } : host)) };
}

/** Resolves when the process has said it. @throws Error when it ends before, or after 30 s */
function said(child: ChildProcess, words: RegExp, signal: AbortSignal): Promise<void> {
  return new Promise((done, failed) => {
    let text = "";
    const limit = AbortSignal.any([signal, AbortSignal.timeout(30_000)]);
    const stop = (): void => failed(new Error(`waited in vain for ${String(words)}; it said: ${text.slice(-500)}`));
    limit.addEventListener("abort", stop, { once: true });
    child.on("close", stop);
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (part: string) => {
        text = (text + part).slice(-4_096);
        if (words.test(text)) done();
      });
    }
  });
}

function ended(child: ChildProcess): Promise<void> {
  return new Promise((done) => {
    if (child.exitCode !== null || child.signalCode !== null) done();
    else child.once("close", () => done());
  });
}
