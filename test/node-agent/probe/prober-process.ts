/** A prober in a process of its own, that can be stopped, blocked and asked; it tells every change. */
import { createProber } from "../../../node-agent/probe/prober.ts";
import { monotonic } from "../../../node-agent/probe/clock.ts";
import type { IpAddress, NodeName } from "../../../mesh/model/scalars.ts";

const [, , port, bind, ...addresses] = process.argv;
const prober = createProber({ bind: bind as IpAddress, echoPort: Number(port), clock: monotonic });
const verdicts = (): Record<string, string> => Object.fromEntries([...prober.links()].map(([node, { verdict }]) => [node, verdict]));
prober.onChange(() => process.send?.({ changed: verdicts(), stalled: prober.stalled() }));
prober.setTargets(
  addresses.map((address, i) => ({
    node: `gw${i + 1}` as NodeName,
    address: address as IpAddress,
    intervalMs: 100,
    threshold: 3,
    holdDownMs: 1_000,
  })),
);
process.on("message", (order: { blockMs?: number; ask?: true }) => {
  if (order.blockMs !== undefined) {
    const until = performance.now() + order.blockMs;
    while (performance.now() < until) Math.sqrt(until);
  }
  if (order.ask) process.send?.({ cpu: process.cpuUsage(), verdicts: verdicts() });
});
process.on("disconnect", () => process.exit());
