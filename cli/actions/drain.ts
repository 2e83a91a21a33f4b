/** `drain` and `uncordon`. */
import { IsthmusError } from "../../mesh/errors.ts";
import { Duration } from "../../mesh/model/scalars.ts";
import { getObject } from "../api.ts";
import type { GlobalFlags } from "../cli.ts";
import { apiPath, type Client } from "../client.ts";
import { connect } from "../connect.ts";
import type { Io } from "../io.ts";
import { step } from "../progress.ts";
import { at, condition, text } from "../render/objects.ts";
import { spanMs } from "../span.ts";

const POLL_MS = 250;
const DEFAULT_TIMEOUT = "60s";
/** How much longer than the drain timeout the wait may take before it gives up. */
const GRACE_MS = 15_000;

export async function drain(io: Io, nodes: readonly string[], flags: GlobalFlags & { readonly timeout?: string; readonly wait: boolean }): Promise<number> {
  if (flags.timeout !== undefined && !Duration.safeParse(flags.timeout).success) throw new IsthmusError("BadRequest", `--timeout ${JSON.stringify(flags.timeout)} is not a length of time`, { remedy: "Write a number with ms, s, m or h, for example 60s." });
  const client = await connect(io, flags);
  for (const node of nodes) {
    const answer = await client.call("POST", apiPath(["nodes", bare(node), "drain"]), flags.timeout === undefined ? {} : { timeout: flags.timeout });
    io.out(`node ${bare(node)} draining\n`);
    if (flags.wait) await untilDrained(io, client, bare(node), flags.timeout ?? (text(answer, "spec", "drainTimeout") || text(answer, "object", "spec", "drainTimeout") || DEFAULT_TIMEOUT));
  }
  return 0;
}

export async function uncordon(io: Io, nodes: readonly string[], flags: GlobalFlags): Promise<number> {
  const client = await connect(io, flags);
  for (const node of nodes) {
    await client.call("POST", apiPath(["nodes", bare(node), "uncordon"]), {});
    io.out(`node ${bare(node)} uncordoned\n`);
  }
  return 0;
}

/** The agent says when its last flows have gone; a node that is away says nothing and is not waited for. */
async function untilDrained(io: Io, client: Client, node: string, timeout: string): Promise<void> {
  using progress = step(io, `waiting for the last flows through ${node}`);
  const deadline = io.now() + spanMs(timeout, "--timeout") + GRACE_MS;
  while (!io.signal.aborted) {
    const object = await getObject(client, "MeshNode", node);
    const drained = condition(object, "Drained");
    if (drained?.status === "True") return progress.done(`${node} is drained; it can be rebooted`);
    if (at(object, "status", "connected") === false) return progress.done(`${node} is not connected: its flows moved when its links went down`);
    if (drained?.message !== undefined) progress.say(drained.message);
    if (io.now() > deadline) throw new IsthmusError("Timeout", `${node} has not reported that it is drained`, { remedy: `See \`isthmus describe node ${node}\`.` });
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
}

function bare(node: string): string {
  return node.replace(/^(mesh)?nodes?\//, "");
}
