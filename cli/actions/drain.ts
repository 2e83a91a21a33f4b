/** `drain` and `uncordon`. */
import { IsthmusError } from "../../mesh/errors.ts";
import { Duration } from "../../mesh/model/scalars.ts";
import { getObject, listObjects } from "../api.ts";
import type { GlobalFlags } from "../cli.ts";
import { apiPath, type Client } from "../client.ts";
import { connect } from "../connect.ts";
import type { Io } from "../io.ts";
import { step } from "../progress.ts";
import { type AnyObject, condition, text } from "../render/objects.ts";
import { ageText } from "../render/time.ts";
import { interruptible } from "../signals.ts";
import { spanMs } from "../span.ts";

const POLL_MS = 250;
const DEFAULT_TIMEOUT = "60s";
/** How much longer than the drain timeout the wait may take before it gives up. */
const GRACE_MS = 15_000;
/** Where connected nodes say that they use it: they would have moved at once, and say so within a second. */
const IN_USE_GRACE_MS = 4_000;

export async function drain(
  io: Io,
  nodes: readonly string[],
  flags: GlobalFlags & { readonly timeout?: string; readonly wait: boolean },
): Promise<number> {
  checkTimeout(flags.timeout);
  const client = await connect(io, flags);
  for (const node of await existing(client, nodes)) {
    await startDrain(io, client, node, flags.timeout);
    if (flags.wait) await untilDrained(io, client, node, flags.timeout);
  }
  return 0;
}

/** The names, once it is known that there are such nodes: nothing is begun where one of them is misspelt. @throws IsthmusError `NotFound` */
export async function existing(client: Client, nodes: readonly string[]): Promise<string[]> {
  const names = [...new Set(nodes.map(bare))];
  for (const name of names) await getObject(client, "MeshNode", name);
  return names;
}

/** @throws IsthmusError `BadRequest` */
export function checkTimeout(timeout: string | undefined): void {
  if (timeout === undefined || Duration.safeParse(timeout).success) return;
  throw new IsthmusError("BadRequest", `--timeout ${JSON.stringify(timeout)} is not a length of time`, {
    remedy: "Write a number with ms, s, m or h, for example 60s.",
  });
}

export async function startDrain(io: Io, client: Client, node: string, timeout: string | undefined): Promise<void> {
  await client.call("POST", apiPath(["nodes", node, "drain"]), timeout === undefined ? {} : { timeout });
  io.out(`node ${node} draining\n`);
}

export async function uncordon(io: Io, nodes: readonly string[], flags: GlobalFlags): Promise<number> {
  const client = await connect(io, flags);
  for (const node of await existing(client, nodes)) {
    await client.call("POST", apiPath(["nodes", node, "uncordon"]), {});
    io.out(`node ${node} uncordoned\n`);
  }
  return 0;
}

/**
 * New flows leave at once; old ones have until the drain timeout, or until the node sees none any more. The controller knows
 * when that is: its word is the condition `Drained`. Whoever interrupts hears that the drain is not called off by that.
 */
export async function untilDrained(io: Io, client: Client, node: string, given: string | undefined): Promise<void> {
  using progress = step(io, `draining ${node}`);
  using interrupt = interruptible(io);
  const begun = io.now();
  while (!interrupt.signal.aborted) {
    const [object, egress] = await Promise.all([getObject(client, "MeshNode", node), listObjects(client, "EgressGateway")]);
    const drained = condition(object, "Drained");
    if (drained?.status === "True") return progress.done(`${node} is drained; it can be rebooted`);
    const why = drained?.message ?? "the controller has not said anything of it yet";
    const timeout = spanMs(given ?? (text(object, "spec", "drainTimeout") || longest(egress.items)), "--timeout");
    if (io.now() - begun > timeout + (drained?.reason === "InUse" ? IN_USE_GRACE_MS : GRACE_MS))
      throw new IsthmusError("Timeout", `${node} is not drained: ${why}`, {
        remedy: `Is there another healthy gateway, and are those nodes connected? See \`isthmus describe node ${node}\`. The node stays cordoned; \`isthmus uncordon ${node}\` takes that back.`,
      });
    const left = begun + timeout - io.now();
    if (drained?.reason !== "FlowsLeft") progress.say(`draining ${node}: ${why}`);
    else progress.say(`draining ${node}: new flows use other gateways; old ones have ${ageText(Math.max(0, left))} left`, "quiet");
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
  throw new IsthmusError("Internal", `interrupted; ${node} stays cordoned, and goes on draining`, {
    remedy: `\`isthmus uncordon ${node}\` takes that back; \`isthmus drain ${node}\` waits again.`,
  });
}

function longest(egress: readonly AnyObject[]): string {
  const timeouts = egress.map((each) => text(each, "spec", "drainTimeout")).filter((each) => each !== "");
  return timeouts.reduce((most, each) => (spanMs(each, "drainTimeout") > spanMs(most, "drainTimeout") ? each : most), timeouts[0] ?? DEFAULT_TIMEOUT);
}

export function bare(node: string): string {
  return node.replace(/^(mesh)?nodes?\//, "");
}
