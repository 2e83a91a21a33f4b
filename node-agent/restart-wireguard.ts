/**
 * A new wireguard-go is used by a process that starts after it was installed: each interface is taken away and made anew, one
 * after the other. What goes over an interface meanwhile is lost, so the node was drained before (DATAPLANE §6).
 */
import { IsthmusError } from "../mesh/errors.ts";
import { linkInterface } from "../mesh/kernel/layout.ts";
import type { Operation } from "../mesh/kernel/operations.ts";
import type { WireguardRestart } from "../mesh/model/answers.ts";
import type { Reconciler } from "./reconcile.ts";

type Loop = Pick<Reconciler, "now" | "also" | "last">;

/** One at a time. @throws IsthmusError `Conflict` before the first pass or while one is under way, `KernelRefused` where an interface does not come back */
export function createWireguardRestart(reconciler: Loop): () => Promise<WireguardRestart> {
  let busy = false;
  return async () => {
    if (busy) throw new IsthmusError("Conflict", "wireguard-go is being started anew already", { remedy: "Wait until that is over." });
    busy = true;
    try {
      return await restart(reconciler);
    } finally {
      busy = false;
    }
  };
}

async function restart(reconciler: Loop): Promise<WireguardRestart> {
  const pass = reconciler.last;
  if (pass === undefined) throw new IsthmusError("Conflict", "the agent has not looked at its kernel yet", { remedy: "Try again in a moment." });
  if (pass.input.host.wireguard === "kernel") return { wireguard: "kernel", interfaces: [] };
  const active = new Set([...pass.elections.paths.values()].flatMap((choice) => choice.active));
  const inUse = new Set([...pass.input.links].flatMap(([node, k]) => (active.has(node) ? linkInterface(k) : [])));
  // Links in use last: a gateway that is better by then is one whose link is new already.
  const interfaces = [...pass.desired.state.wireguard.keys()].sort((a, b) => Number(inUse.has(a)) - Number(inUse.has(b)));
  // What the kernel refused before has nothing to do with it.
  const known = new Set(pass.failures.map(({ op }) => subjectOf(op)));
  for (const name of interfaces) {
    reconciler.also([{ op: "link.remove", name }]);
    // The first pass takes it away, the second one finds it missing.
    await reconciler.now();
    await reconciler.now();
    const refused = reconciler.last?.failures.find(({ op }) => !known.has(subjectOf(op)));
    if (refused !== undefined)
      throw new IsthmusError("KernelRefused", `${name} was taken away, and not all of it came back: ${refused.error ?? ""}`, {
        remedy: "The agent goes on trying; see `isthmus status` on the node.",
      });
  }
  return { wireguard: "userspace", interfaces };
}

/** The next attempt of an operation carries other counters, and may dial another endpoint. */
function subjectOf(op: Operation): string {
  if ("peer" in op) return `${op.op} ${op.link} ${op.peer.publicKey}`;
  if (op.op === "link.add" || op.op === "link.set") return `${op.op} ${op.link.name}`;
  return JSON.stringify({ ...op, before: undefined });
}
