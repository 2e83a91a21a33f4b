/**
 * One controller process and 1,000 simulated agents on the same machine (real TLS, real stream): how fast one join reaches
 * everybody, what it costs in bytes and memory, and how long a restart takes.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { Agent as HttpsAgent, get } from "node:https";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseJoinToken } from "../mesh/model/token.ts";
import { type SimulatedAgent, connect, hearFirst, join, newAgent, prepare, redeem } from "./fanout-agents.ts";
import type { BenchOptions } from "./main.ts";
import { cpuSeconds, highestMemory } from "./process.ts";
import type { Row } from "./stats.ts";

const AGENTS = 1_000;
const JOINS = 50;
/** Another one for each process, so that two benches do not meet. */
const PORT = 18_000 + (process.pid % 10_000);
const SERVER = { host: "127.0.0.1", port: PORT };
const IDLE_SECONDS = 20;

export async function fanout(options: BenchOptions): Promise<Row[]> {
  const size = options.n ?? AGENTS;
  const data = mkdtempSync(joinPath(tmpdir(), "isthmus-bench-"));
  let controller = await startController(data);
  const pool = new HttpsAgent({ keepAlive: true, maxSockets: 32 });
  try {
    const secret = await makeToken(data, size + JOINS);
    options.log(`joining ${size} agents`);
    const agents = await inBatches(size, 32, async (i) => newAgent(await join(SERVER, secret, `n${i}`, pool)));

    const waiting = new Map<string, { left: number; last: number; done: (last: number) => void }>();
    const onDelta = (keys: readonly string[], at: number): void => {
      for (const key of keys) {
        const wait = waiting.get(key);
        if (wait === undefined) continue;
        wait.last = Math.max(wait.last, at);
        if (--wait.left === 0) wait.done(wait.last);
      }
    };

    options.log(`bringing ${size} agents online`);
    const online = await timed(() => Promise.all(agents.map((agent) => connect(SERVER, agent, onDelta))));
    await quiet(agents);

    options.log(`${JOINS} joins, one by one`);
    const spread: number[] = [];
    const bytes: number[] = [];
    const payload: number[] = [];
    for (let i = 0; i < JOINS; i++) {
      const made = await prepare(`new${i}`);
      const before = total(agents, (agent) => agent.bytes());
      const payloadBefore = total(agents, (agent) => agent.payload);
      const all = new Promise<number>((done) => waiting.set(`peer/${made.name}`, { left: size, last: 0, done }));
      hearFirst(size);
      const started = performance.now();
      const [last] = await Promise.all([all, redeem(SERVER, secret, made, pool)]);
      spread.push(last - started);
      await quiet(agents);
      bytes.push((total(agents, (agent) => agent.bytes()) - before) / size);
      payload.push((total(agents, (agent) => agent.payload) - payloadBefore) / size);
    }

    const rss = highestMemory(controller.pid ?? 0);
    options.log(`idle for ${IDLE_SECONDS} s`);
    const cpuBefore = cpuSeconds(controller.pid ?? 0);
    await delay(IDLE_SECONDS * 1_000);
    const idle = ((cpuSeconds(controller.pid ?? 0) - cpuBefore) / IDLE_SECONDS) * 100;

    options.log("SIGKILL, start again, resume");
    const closed = Promise.all(agents.map((agent) => new Promise((done) => agent.socket?.once("close", done))));
    controller.kill("SIGKILL");
    await closed;
    const payloadBefore = total(agents, (agent) => agent.payload);
    const started = performance.now();
    controller = await startController(data);
    const up = performance.now() - started;
    await Promise.all(agents.map((agent) => connect(SERVER, agent, onDelta)));
    const resumed = performance.now() - started;
    const resumeBytes = (total(agents, (agent) => agent.payload) - payloadBefore) / size;

    for (const agent of agents) agent.socket?.terminate();
    return atSize(size, [
      {
        what: `one join until all ${size} have the peer`,
        unit: "ms",
        samples: spread,
        judge: "p99",
        target: 50,
        compared: "headscale 9,000, NetBird 3,800",
      },
      {
        what: "bytes per agent for one join, on the wire with TLS",
        unit: "B",
        samples: bytes,
        judge: "max",
        target: 256,
        compared: "headscale 136,000, NetBird 338,000",
      },
      { what: "bytes per agent for one join, stream message", unit: "B", samples: payload, judge: "max" },
      { what: "controller memory, highest RSS", unit: "MiB", samples: [rss], judge: "max", target: 224, compared: "headscale 592, NetBird 1,400" },
      { what: "controller idle CPU", unit: "% of a core", samples: [idle], judge: "max", target: 2 },
      { what: `all ${size} brought online`, unit: "s", samples: [online / 1_000], judge: "max", target: 3, compared: "headscale 189, NetBird 32" },
      { what: "SIGKILL until all resumed", unit: "s", samples: [resumed / 1_000], judge: "max", target: 3, compared: "headscale 13, NetBird 8" },
      { what: "of that: controller started", unit: "s", samples: [up / 1_000], judge: "max" },
      { what: "bytes per agent to resume, stream messages", unit: "B", samples: [resumeBytes], judge: "max" },
    ]);
  } finally {
    controller.kill("SIGKILL");
    pool.destroy();
    rmSync(data, { recursive: true, force: true });
  }
}

/** Targets, and what others need, speak of 1,000 agents: a smaller run is held against neither. */
function atSize(size: number, rows: readonly Row[]): Row[] {
  if (size >= AGENTS) return [...rows];
  return rows.map(({ what, unit, samples, judge }) => ({ what, unit, samples, judge }));
}

/** Starts `isthmus controller run` and waits until it is ready. */
async function startController(data: string): Promise<ChildProcess> {
  const argv = ["controller", "run", "--data", data, "--listen", `127.0.0.1:${PORT}`, "--advertise", `127.0.0.1:${PORT}`, "--socket", socketOf(data)];
  const child = spawn(joinPath(import.meta.dirname, "../isthmus"), argv, { stdio: ["ignore", "ignore", "inherit"] });
  const deadline = performance.now() + 30_000;
  while (performance.now() < deadline) {
    if (child.exitCode !== null) throw new Error(`the controller ended with exit status ${child.exitCode}`);
    // The listener may be there before the socket of the administrator.
    if (existsSync(socketOf(data)) && (await ready())) return child;
    await delay(20);
  }
  child.kill("SIGKILL");
  throw new Error("the controller was not ready within 30 s");
}

function ready(): Promise<boolean> {
  return new Promise((resolve) => {
    const asked = get({ ...SERVER, path: "/readyz", rejectUnauthorized: false, agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode === 200);
    });
    asked.on("error", () => resolve(false));
  });
}

function socketOf(data: string): string {
  return joinPath(data, "controller.sock");
}

/** Makes a site and a token over the admin socket; returns the token's secret. */
async function makeToken(data: string, uses: number): Promise<string> {
  await admin(data, "/v1/apply", {
    documents: [{ apiVersion: "isthmus.dev/v1alpha1", kind: "Site", metadata: { name: "bench" }, spec: { kind: "cloud" } }],
  });
  const expires = new Date(Date.now() + 3_600_000).toISOString();
  const made = (await admin(data, "/v1/tokens", { spec: { site: "bench", uses, expires } })) as { token: string };
  return parseJoinToken(made.token).secret;
}

function admin(data: string, path: string, body: unknown): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const text = JSON.stringify(body);
    const sent = request(
      {
        socketPath: socketOf(data),
        path,
        method: "POST",
        headers: { "content-type": "application/json", "content-length": Buffer.byteLength(text) },
      },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk));
        answer.on("end", () => {
          const got = Buffer.concat(chunks).toString();
          if ((answer.statusCode ?? 500) < 300) resolve(JSON.parse(got));
          else reject(new Error(`${path}: ${answer.statusCode} ${got}`));
        });
      },
    );
    sent.on("error", reject);
    sent.end(text);
  });
}

/** Waits until no agent got a message for half a second. */
async function quiet(agents: readonly SimulatedAgent[]): Promise<void> {
  for (let last = -1, now = 0; last !== now;) {
    last = now;
    await delay(500);
    now = total(agents, (agent) => agent.payload);
  }
}

async function inBatches<T>(count: number, width: number, make: (i: number) => Promise<T>): Promise<T[]> {
  const made: T[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      const i = next++;
      made[i] = await make(i);
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  return made;
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

function total(agents: readonly SimulatedAgent[], of: (agent: SimulatedAgent) => number): number {
  return agents.reduce((sum, agent) => sum + of(agent), 0);
}
