/**
 * What the host must be told about us and must have for us (DATAPLANE §6). Looked at when the plan changes, and again and
 * again: a firewall, a network manager or a tool may come or go after the agent's start.
 */
import { asIsthmusError } from "../mesh/errors.ts";
import { isGateway } from "../mesh/kernel/wireguard.ts";
import type { Plan } from "../mesh/model/plan.ts";
import { pause } from "./backoff.ts";
import type { SetCondition } from "./conditions.ts";
import type { Kernel } from "./drivers/index.ts";
import type { Links } from "./links.ts";
import { missingHelp } from "./requirements.ts";

const LOOK_MS = 30_000;
/** What one program does to nft comes in several steps. */
const LOOK_AFTER_MS = 300;
/**
 * On a host whose rules change all the time (kube-proxy, Docker) looks are so far apart, and a look at ten thousand rules, which stops
 * the loop that probes gateways, takes at most one part in twenty of its time.
 */
const LOOK_SPACING_MS = 2_000;
const LOOK_SHARE = 20;
/** nft rules may change all the time (kube-proxy), and each telling asks several tools. */
const TELL_MS = 5_000;

export interface HostCarePorts {
  readonly kernel: Pick<Kernel, "configureHost" | "forwardingBlockers">;
  readonly condition: SetCondition;
  log(line: string): void;
  /** Monotonic milliseconds. */
  now(): number;
  readonly missing?: (plan: Plan) => string | undefined;
}

export interface HostCare {
  /** What the data plane uses from now on; the host is told at once where that is news. */
  setPlan(plan: Plan, links: Links): void;
  /** Looks at everything. Never throws. */
  look(): Promise<void>;
  /** Someone changed nft rules (a firewall started, Docker): the host is looked at soon, not at the next regular time. */
  nftChanged(): void;
  /** Looks again and again until the signal aborts, while it `may`. */
  run(may: () => boolean, signal: AbortSignal): Promise<void>;
}

export function createHostCare({ kernel, condition, log, now, missing = missingHelp }: HostCarePorts): HostCare {
  let plan: Plan | undefined;
  let ports: readonly number[] = [];
  let toldAt = -Infinity;
  let changed = new AbortController();
  const tell = async (): Promise<void> => {
    toldAt = now();
    try {
      for (const line of await kernel.configureHost(ports)) log(line);
      condition("HostNotConfigured", "", undefined);
    } catch (thrown) {
      condition("HostNotConfigured", "Failed", `this host's network managers could not be told about us: ${asIsthmusError(thrown).message}`);
    }
  };
  const look = async (): Promise<void> => {
    if (plan === undefined) return;
    condition("ToolMissing", "ToolMissing", missing(plan));
    if (now() - toldAt >= TELL_MS) await tell();
    const blockers = isGateway({ plan }) ? await kernel.forwardingBlockers().catch(() => []) : [];
    condition("ForwardingBlocked", "ForeignRule", blockers.length === 0 ? undefined : `forwarded packets are dropped by ${blockers.join(", ")}`);
  };
  return {
    look,
    setPlan(next, links) {
      plan = next;
      condition("ToolMissing", "ToolMissing", missing(next));
      const wanted = udpPorts(next, links);
      if (wanted.join() === ports.join()) return;
      ports = wanted;
      void tell();
    },
    nftChanged: () => changed.abort(),
    async run(may, signal) {
      let last = { endedAt: -Infinity, tookMs: 0 };
      while (!signal.aborted) {
        await pause(LOOK_MS, signal, changed.signal);
        changed = new AbortController();
        await pause(afterChangeMs(now(), last), signal);
        if (signal.aborted || !may()) continue;
        const began = now();
        await look();
        last = { endedAt: now(), tookMs: now() - began };
      }
    },
  };
}

/** How long after a change to look: soon when all was quiet, seldom while changes do not end. */
export function afterChangeMs(now: number, last: { readonly endedAt: number; readonly tookMs: number }): number {
  return Math.max(LOOK_AFTER_MS, last.endedAt + Math.min(LOOK_MS, Math.max(LOOK_SPACING_MS, last.tookMs * LOOK_SHARE)) - now);
}

function udpPorts({ network: { ports } }: Plan, links: Links): number[] {
  return [ports.mesh, ports.gateway, ...[...links.values()].map((k) => ports.links + k)].toSorted((a, b) => a - b);
}
