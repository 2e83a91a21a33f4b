/** The kernel as the agent sees it: observe, apply, watch. Only these drivers touch it. */
import { basename, dirname } from "node:path";
import type { ErrorCode } from "../../mesh/errors.ts";
import { describeOperation, diffKernel } from "../../mesh/kernel/diff.ts";
import { EMPTY_KERNEL, type Operation } from "../../mesh/kernel/operations.ts";
import type { HostFacts, KernelState } from "../../mesh/kernel/types.ts";
import type { SilentState } from "../../mesh/kernel/silent-drift.ts";
import { dropHalves } from "../whole-file.ts";
import { observeAddresses } from "./addresses.ts";
import { applyOperations, type ApplyContext } from "./apply.ts";
import { clientFlows } from "./conntrack.ts";
import { configureHost, forwardingBlockers, undoHostConfig } from "./host-config.ts";
import { observeHost } from "./host-facts.ts";
import { observeHosts } from "./hosts.ts";
import { watchKernel } from "./monitor.ts";
import { observeNexthops } from "./nexthops.ts";
import { observeNft } from "./nft.ts";
import { openRecords } from "./records.ts";
import { createRoutesLook } from "./routes.ts";
import { observeRules } from "./rules.ts";
import { observeSysctls } from "./sysctl.ts";
import { kernelHasWireguard, observeWireguard, rememberYes } from "./wireguard.ts";
import { boundLogs } from "./wireguard-go.ts";
import { createWireguardLook } from "./wireguard-look.ts";

export interface KernelOptions {
  readonly dataDir: string;
  readonly runDir: string;
  /** File with the WireGuard private key in base64, mode 0600. */
  readonly privateKeyFile: string;
  /** /etc/hosts when absent. */
  readonly hostsFile?: string;
  readonly log?: (message: string) => void;
}

export interface ApplyResult {
  readonly op: Operation;
  readonly ok: boolean;
  /** What the tool said. */
  readonly error?: string;
  readonly code?: ErrorCode;
}

export interface Kernel {
  observe(): Promise<KernelState>;
  /** Applies in order, without observing first; an operation that fails does not stop those after it. */
  apply(ops: readonly Operation[], signal?: AbortSignal): Promise<ApplyResult[]>;
  /** Calls back when someone may have changed something; no more than a hint, observe tells the truth. */
  watch(onWake: (what: string) => void, signal: AbortSignal): void;
  hostFacts(): Promise<HostFacts>;
  /** What changes without a word; cheap enough for every second. */
  observeSilent(): Promise<SilentState>;
  /** Writes what DATAPLANE §6 asks of networkd, NetworkManager, firewalld and Docker, recorded for cleanup; says what it did. */
  configureHost(udpPorts: readonly number[]): Promise<string[]>;
  /** Tables and chains of others that drop forwarded packets (condition `ForwardingBlocked`). */
  forwardingBlockers(): Promise<string[]>;
  /** Flows of clients that this gateway still forwards; unknown without the tool `conntrack`. @param marks value and mask of each that they carry */
  clientFlows(marks: readonly string[], own: ReadonlySet<string>): Promise<number | undefined>;
  /** Removes exactly what is ours and restores what was recorded; says what it did. */
  cleanup(): Promise<string[]>;
}

/** Opens the drivers; touches nothing yet. Calls never overlap in the kernel: they wait for each other. */
export function createKernel(options: KernelOptions): Kernel {
  const log = options.log ?? (() => undefined);
  const records = openRecords(options.dataDir, log);
  const hostsFile = options.hostsFile ?? "/etc/hosts";
  const inTurn = queue();
  // firewalld takes its time; a path must not wait for it.
  const inHostTurn = queue();
  const told = new Map<string, string>();
  const kernelWireguard = rememberYes(kernelHasWireguard, () => performance.now());
  const look = createWireguardLook();
  const lookAtRoutes = createRoutesLook();
  const context: ApplyContext = { privateKeyFile: options.privateKeyFile, runDir: options.runDir, hostsFile, records, kernelWireguard, look };
  const observe = async (): Promise<KernelState> => {
    boundLogs(options.runDir);
    const [wireguard, addresses, nexthops, routes, rules, nft] = await Promise.all([
      observeWireguard(look),
      observeAddresses(),
      observeNexthops(),
      lookAtRoutes(),
      observeRules(),
      observeNft(records),
    ]);
    return { wireguard, addresses, nexthops, routes, rules, nft, sysctls: observeSysctls(records), hosts: observeHosts(hostsFile) };
  };
  return {
    observe: () => inTurn(observe),
    apply: (ops, signal) =>
      inTurn(async () => {
        const errors = await applyOperations(ops, context, signal);
        return ops.map((op, i): ApplyResult => {
          const error = errors[i];
          return error === undefined ? { op, ok: true } : { op, ok: false, error: error.message, code: error.code };
        });
      }),
    watch: (onWake, signal) => watchKernel(onWake, signal, log),
    hostFacts: async () => {
      const [facts, inKernel] = await Promise.all([observeHost(), kernelWireguard()]);
      return { ...facts, wireguard: inKernel ? "kernel" : "userspace" };
    },
    observeSilent: async () => ({ wireguard: await look(), sysctls: observeSysctls(records) }),
    configureHost: (udpPorts) => inHostTurn(() => configureHost(records, udpPorts, told)),
    forwardingBlockers,
    clientFlows,
    cleanup: () => inHostTurn(() => inTurn(() => cleanup(observe, context))),
  };
}

/** The difference to nothing is what is ours; host files follow. */
async function cleanup(observe: () => Promise<KernelState>, context: ApplyContext): Promise<string[]> {
  const operations = diffKernel(EMPTY_KERNEL, await observe());
  const errors = await applyOperations(operations, context, undefined);
  dropHalves(dirname(context.hostsFile), basename(context.hostsFile));
  // An interface takes its sysctls with it: nothing is left to restore there.
  context.records.update((all) =>
    Object.keys(all.sysctls).length === 0 && all.nft === undefined ? all : { files: all.files, undo: all.undo, sysctls: {} },
  );
  const rows = operations.flatMap((operation, i) => {
    const error = errors[i];
    return inWords(operation).map((done) => (error === undefined ? done : `could not ${done}: ${error.message}`));
  });
  return [...rows, ...(await undoHostConfig(context.records))];
}

/** A row's area is where an administrator looks for it in a plan; here are names of what stands on the machine. */
function inWords(operation: Operation): string[] {
  const { op } = operation;
  if (op === "sysctl.restore") return [`restore sysctl ${operation.name}`];
  if (op === "nft.remove") return ["remove nft table inet isthmus"];
  if (op === "hosts.set") return [`remove ${[...operation.before.keys()].join(", ")} from the hosts file`];
  return describeOperation(operation).map(({ area, action, what }) => `${action} ${area} ${what}`);
}

/** One after the other; a failure is the caller's own and does not stop the next. */
function queue(): <T>(work: () => Promise<T>) => Promise<T> {
  let tail: Promise<unknown> = Promise.resolve();
  return (work) => {
    const next = tail.then(work, work);
    tail = next.catch(() => undefined);
    return next;
  };
}
