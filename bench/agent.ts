/**
 * One real agent at rest: 50 peers, 2,000 routes, three gateways that it probes. The gateways are real agents; the other
 * peers answer WireGuard and do nothing else. The agent runs as a service does, `agent run`, not in the foreground of a join.
 */
import { spawn } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { initOf } from "../lab/state.ts";
import { processesUnder } from "../lab/process.ts";
import { parseTopology } from "../lab/topology-file.ts";
import type { BenchOptions } from "./main.ts";
import { type BenchMesh, until, withMesh } from "./mesh.ts";
import { cpuSeconds, memory } from "./process.ts";
import type { Row } from "./stats.ts";

const TIMES = 5;
const CLIENT = "client1";
const PEERS = 50;
const REAL = 4;
const DESTINATIONS = 2_000;
const SETTLE_MS = 15_000;
const IDLE_SECONDS = 20;
const JOIN_MANY = fileURLToPath(new URL("join-many.ts", import.meta.url));

const TOPOLOGY = `
internet: [{ name: inet, address: 34.160.111.145 }]
controller: { name: ctl, address: 198.51.100.10 }
sites:
  - name: dc1
    kind: onprem
    lan: { subnet: 192.168.88.0/24, router: { name: dc-router, address: 192.0.2.10 } }
    nodes: [{ name: ${CLIENT}, address: 192.168.88.11 }]
  - name: cloud
    kind: cloud
    nodes: [{ name: gw, count: 3, labels: { egress: "true" } }]
`;

const INTENT = {
  apiVersion: "isthmus.dev/v1alpha1",
  kind: "EgressGateway",
  metadata: { name: "bench" },
  spec: {
    destinations: Array.from({ length: DESTINATIONS }, (_, i) => `100.64.${i >> 8}.${i & 255}`),
    sources: { nodeSelector: { location: "onprem" } },
    gateways: [{ nodeSelector: { egress: "true" } }],
  },
};

export async function agent(options: BenchOptions): Promise<Row[]> {
  const times = options.n ?? TIMES;
  const bare = await bareNode();
  return withMesh(parseTopology(TOPOLOGY), options, async (mesh) => {
    await mesh.call("POST", "/v1/apply", { documents: [INTENT] });
    options.log(`${PEERS - REAL + 1} more peers join`);
    const expires = new Date(Date.now() + 3_600_000).toISOString();
    const { token } = (await mesh.call("POST", "/v1/tokens", { spec: { site: "cloud", uses: PEERS, expires } })) as { token: string };
    const { spec } = (await mesh.call("GET", `/v1/resources/meshnodes/${CLIENT}`)) as { spec: { publicKey: string } };
    await mesh.lab.exec("ctl", [process.execPath, JOIN_MANY, token, String(PEERS - REAL + 1), spec.publicKey], { timeoutMs: 60_000 });
    await mesh.lab.crash(CLIENT);
    await until("the agent has its peers and routes", () => settled(mesh), { signal: options.signal, withinMs: 60_000, everyMs: 500 });
    await delay(SETTLE_MS);
    const cpu: number[] = [];
    const rss: number[] = [];
    const pss: number[] = [];
    const allRss: number[] = [];
    const allPss: number[] = [];
    for (let i = 0; i < times; i++) {
      options.signal.throwIfAborted();
      const pid = await agentPid(mesh);
      const before = await agentSeconds(mesh, pid);
      const from = performance.now();
      await delay(IDLE_SECONDS * 1_000, undefined, { signal: options.signal });
      cpu.push((((await agentSeconds(mesh, pid)) - before) / (performance.now() - from)) * 100_000);
      rss.push(memory(pid, "Rss"));
      pss.push(memory(pid, "Pss"));
      const tools = await toolsOf(mesh, pid);
      allRss.push(rss.at(-1)! + total(tools, (tool) => memory(tool, "Rss")));
      allPss.push(pss.at(-1)! + total(tools, (tool) => memory(tool, "Pss")));
      options.log(`CPU ${cpu.at(-1)?.toFixed(2)} %, RSS ${rss.at(-1)?.toFixed(0)} MiB, PSS ${pss.at(-1)?.toFixed(0)} MiB`);
    }
    const over = (samples: readonly number[], less: number): number[] => samples.map((one) => one - less);
    return [
      { what: "agent idle CPU, its tools included", unit: "% of a core", samples: cpu, judge: "median", target: 1 },
      { what: "agent memory over bare Node, RSS", unit: "MiB", samples: over(rss, bare.rss), judge: "max", target: 64 },
      { what: "agent memory over bare Node, PSS", unit: "MiB", samples: over(pss, bare.pss), judge: "max" },
      { what: "the same with the tools that it keeps running, RSS", unit: "MiB", samples: over(allRss, bare.rss), judge: "max" },
      { what: "the same with the tools that it keeps running, PSS", unit: "MiB", samples: over(allPss, bare.pss), judge: "max" },
      { what: "agent memory, RSS", unit: "MiB", samples: rss, judge: "max" },
      { what: "bare Node, RSS", unit: "MiB", samples: [bare.rss], judge: "max" },
      { what: "bare Node, PSS", unit: "MiB", samples: [bare.pss], judge: "max" },
    ];
  });
}

async function settled({ status, lab }: BenchMesh): Promise<true | undefined> {
  const now = await status(CLIENT);
  const routes = await lab.exec(CLIENT, ["sh", "-c", "ip route show table 157 proto 157 | grep -c nhid"], { mayFail: true });
  const up = now.links.filter(({ verdict }) => verdict === "Up").length;
  const answer = now.peers.filter(({ handshakeAgeMs }) => handshakeAgeMs !== undefined).length;
  return answer >= PEERS && up === 3 && Number(routes.stdout) >= DESTINATIONS ? true : undefined;
}

async function agentPid({ lab }: BenchMesh): Promise<number> {
  const init = await initOf(lab.name, CLIENT);
  const all = init === undefined ? [] : processesUnder(init);
  const found = all.find(({ argv }) => argv.some((word) => word.endsWith("cli/main.ts")) && (argv.includes("join") || argv.includes("run")));
  if (found === undefined) throw new Error(`no agent runs on ${CLIENT}`);
  return found.pid;
}

/** What the agent keeps running: its shells and monitors. WireGuard's own processes belong to nobody. */
async function toolsOf({ lab }: BenchMesh, agent: number): Promise<number[]> {
  const init = await initOf(lab.name, CLIENT);
  const all = init === undefined ? [] : processesUnder(init);
  return all.filter(({ parent, argv }) => parent === agent && argv[0]?.endsWith("wireguard-go") !== true).map(({ pid }) => pid);
}

/** The agent's time, and that of its tools, with those that they started. */
async function agentSeconds(mesh: BenchMesh, agent: number): Promise<number> {
  return total(await toolsOf(mesh, agent), cpuSeconds) + cpuSeconds(agent);
}

/** A tool that has ended meanwhile counts nothing: its time is in its parent's, which is read after. */
function total(tools: readonly number[], measure: (pid: number) => number): number {
  return tools.reduce((sum, pid) => {
    try {
      return sum + measure(pid);
    } catch {
      return sum;
    }
  }, 0);
}

/** The same Node with nothing but a timer. */
async function bareNode(): Promise<{ rss: number; pss: number }> {
  const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "ignore" });
  try {
    await delay(2_000);
    return { rss: memory(child.pid ?? 0, "Rss"), pss: memory(child.pid ?? 0, "Pss") };
  } finally {
    child.kill("SIGKILL");
  }
}
