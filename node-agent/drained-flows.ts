/** While this gateway is drained: whether clients still have flows here, so that a drain need not wait for its timeout. */
import { clientMarks } from "../mesh/kernel/pairs.ts";
import { isGateway } from "../mesh/kernel/wireguard.ts";
import type { Plan } from "../mesh/model/plan.ts";
import { pause } from "./backoff.ts";
import type { SetCondition } from "./conditions.ts";
import type { Kernel } from "./drivers/index.ts";
import type { Pass } from "./reconcile.ts";

/** Between two looks, and how many must find none: clients move within one. */
const LOOK_MS = 1_000;
const QUIET_LOOKS = 3;

export interface DrainedFlowsPorts {
  readonly kernel: Pick<Kernel, "clientFlows">;
  readonly condition: SetCondition;
  plan(): Plan | undefined;
  lastPass(): Pass | undefined;
}

/** Looks until the signal aborts. */
export async function watchDrainedFlows({ kernel, condition, plan, lastPass }: DrainedFlowsPorts, signal: AbortSignal): Promise<void> {
  let quiet = 0;
  while (!signal.aborted) {
    await pause(LOOK_MS, signal);
    const current = plan();
    const drained = current?.self.drain !== undefined && isGateway({ plan: current }) ? current : undefined;
    const marks = drained === undefined ? [] : clientMarks({ plan: drained, links: lastPass()?.input.links ?? new Map() });
    const own = new Set([...(lastPass()?.desired.state.addresses ?? [])].map((one) => one.split("/")[0] ?? ""));
    const flows = drained === undefined ? undefined : await kernel.clientFlows(marks, own);
    // A look that failed says nothing.
    if (drained === undefined || (flows ?? 0) > 0) quiet = 0;
    else if (flows === 0) quiet++;
    condition("NoFlows", "NoFlows", quiet < QUIET_LOOKS ? undefined : "no flow of a client goes through this node");
  }
}
