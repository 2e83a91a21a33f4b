/** Wake-ups from the kernel. They say that something changed, observe says what. `netconf` tells of forwarding and rp_filter. */
import { setTimeout as delay } from "node:timers/promises";
import { follow } from "./exec.ts";

const SOURCES = [
  ["ip", ["-o", "monitor", "link", "address", "route", "rule", "nexthop", "netconf"], "network"],
  ["nft", ["monitor"], "nft"],
] as const;

/** A monitor that dies is started again, after 0.2 s at first and 10 s at most. */
export function watchKernel(onWake: (what: string) => void, signal: AbortSignal, log: (message: string) => void): void {
  for (const [tool, args, what] of SOURCES) void keepFollowing(tool, args, () => onWake(what), signal, log);
}

async function keepFollowing(
  tool: string,
  args: readonly string[],
  wake: () => void,
  signal: AbortSignal,
  log: (message: string) => void,
): Promise<void> {
  for (let pause = 200; !signal.aborted; pause = Math.min(pause * 2, 10_000)) {
    const started = performance.now();
    try {
      await follow(tool, args, wake, signal);
    } catch (error) {
      log(`${tool} monitor: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (performance.now() - started > 60_000) pause = 200;
    // Something may have changed while nobody looked.
    if (!signal.aborted) wake();
    await delay(pause, undefined, { signal }).catch(() => undefined);
  }
}
