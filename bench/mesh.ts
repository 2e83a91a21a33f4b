/** A lab for a bench: built, used, and taken away whatever happens. */
import { request } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import type { Lab } from "../lab/lab.ts";
import { controllerClient } from "../lab/mesh.ts";
import { hostPaths } from "../lab/names.ts";
import type { Topology } from "../lab/topology.ts";
import { labDown, labUp } from "../lab/up.ts";
import type { AgentStatus } from "../node-agent/status.ts";
import type { BenchOptions } from "./main.ts";

export const INTERNET = "34.160.111.145";

export interface BenchMesh {
  readonly lab: Lab;
  /** The controller's API. */
  call(method: string, path: string, body?: unknown): Promise<unknown>;
  /** What a node's agent says of itself. */
  status(node: string): Promise<AgentStatus>;
}

export async function withMesh<T>(topology: Topology, options: BenchOptions, work: (mesh: BenchMesh) => Promise<T>): Promise<T> {
  const name = `bench-${process.pid}`;
  options.log("building a lab");
  const lab = await labUp({ name, topology: { ...topology, manifests: [] }, join: true, signal: options.signal });
  try {
    const client = controllerClient(lab.controllerSocket ?? "");
    return await work({
      lab,
      call: (method, path, body) => client.call(method as "GET", path, body),
      status: (node) => askAgent(`${hostPaths(name, node).run}/isthmus/agent.sock`),
    });
  } finally {
    await labDown(name);
  }
}

/** Asks until there is an answer other than undefined; a question that fails is asked again. @throws Error when the time is over */
export async function until<T>(
  what: string,
  ask: () => Promise<T | undefined> | T | undefined,
  options: { readonly signal: AbortSignal; readonly withinMs?: number; readonly everyMs?: number },
): Promise<T> {
  const deadline = performance.now() + (options.withinMs ?? 30_000);
  let last: unknown;
  while (performance.now() < deadline) {
    options.signal.throwIfAborted();
    try {
      const answer = await ask();
      if (answer !== undefined) return answer;
    } catch (error) {
      last = error;
    }
    await delay(options.everyMs ?? 30);
  }
  throw new Error(`${what}: not within ${(options.withinMs ?? 30_000) / 1_000} s`, { cause: last });
}

/** The gateway that a node uses for a path, and those that could take over at once. */
export interface PathView {
  readonly active: string | undefined;
  readonly ready: ReadonlySet<string>;
}

export function pathView(status: AgentStatus, path: string): PathView {
  const ready = status.links.filter(({ verdict, state, downPaths }) => verdict === "Up" && state === "Serving" && !downPaths.includes(path));
  return { active: status.paths.find(({ id }) => id === path)?.active[0], ready: new Set(ready.map(({ gateway }) => gateway)) };
}

function askAgent(socketPath: string): Promise<AgentStatus> {
  return new Promise((done, failed) => {
    const call = request({ socketPath, path: "/status", agent: false, timeout: 2_000 }, (answer) => {
      const parts: Buffer[] = [];
      answer.on("data", (part: Buffer) => parts.push(part));
      answer.on("end", () => {
        try {
          done(JSON.parse(Buffer.concat(parts).toString("utf8")) as AgentStatus);
        } catch (error) {
          failed(error instanceof Error ? error : new Error(String(error)));
        }
      });
    });
    call.on("timeout", () => call.destroy(new Error("the agent did not answer in time")));
    call.on("error", failed);
    call.end();
  });
}
