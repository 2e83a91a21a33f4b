/** Gates one after the other, each a command of its own; a signal to the run reaches the one that runs, and none comes after it. */
import { spawn } from "node:child_process";
import { once } from "node:events";

export interface Gate {
  readonly name: string;
  readonly argv: readonly string[];
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** From now on these signals end the gate that runs, and not this process, which has to clean up. Gives back whether one came. */
export function heedSignals(): () => boolean {
  let came = false;
  for (const signal of SIGNALS) process.on(signal, () => (came = true));
  return () => came;
}

/** Gives back the names of those that failed. @param stopped whether no more are to be started */
export async function runGates(gates: readonly Gate[], cwd: string, stopped: () => boolean): Promise<string[]> {
  const failed: string[] = [];
  for (const gate of gates) {
    const outcome = stopped() ? "stopped" : await run(gate, cwd);
    if (outcome === "ok" && !stopped()) continue;
    failed.push(gate.name);
    if (outcome === "stopped" || stopped()) break;
  }
  return failed;
}

async function run({ name, argv: [command = "", ...args] }: Gate, cwd: string): Promise<"ok" | "failed" | "stopped"> {
  console.log(`\n── ${name} ──`);
  const started = performance.now();
  const child = spawn(command, args, { cwd, stdio: ["ignore", "inherit", "inherit"] });
  const forward = (signal: NodeJS.Signals): void => {
    // From a terminal Ctrl-C has reached it already; a second one makes vitest drop what it would clean up.
    if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
  };
  for (const signal of SIGNALS) process.on(signal, forward);
  const [status, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  for (const one of SIGNALS) process.off(one, forward);
  const outcome = status === 0 ? "ok" : signal !== null || (status ?? 0) > 128 ? "stopped" : "failed";
  console.log(`${outcome === "ok" ? "ok" : "FAILED"}: ${name} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
  return outcome;
}
