/** The kernel as the agent sees it: observe, apply, watch. Only these drivers touch it. */
import type { Operation } from "../../mesh/kernel/operations.ts";
import type { HostFacts, KernelState } from "../../mesh/kernel/types.ts";
import type { Endpoint, WgPublicKey } from "../../mesh/model/scalars.ts";
import type { ErrorCode } from "../../mesh/errors.ts";

export interface KernelOptions {
  readonly dataDir: string;
  readonly runDir: string;
  /** File with the WireGuard private key in base64, mode 0600. */
  readonly privateKeyFile: string;
  readonly log?: (message: string) => void;
}

export interface ApplyResult {
  readonly op: Operation;
  readonly ok: boolean;
  /** What the tool said. */
  readonly error?: string;
  readonly code?: ErrorCode;
}

export interface PeerStatus {
  readonly endpoint?: Endpoint;
  /** Seconds since 1970, 0 for never. */
  readonly latestHandshake: number;
  readonly rxBytes: number;
  readonly txBytes: number;
}

export interface Kernel {
  observe(): Promise<KernelState>;
  /** Applies in order, without observing first; an operation that fails does not stop those after it. */
  apply(ops: readonly Operation[], signal?: AbortSignal): Promise<ApplyResult[]>;
  /** Calls back when someone may have changed something; no more than a hint, observe tells the truth. */
  watch(onWake: (what: string) => void, signal: AbortSignal): void;
  hostFacts(): Promise<HostFacts>;
  wireguardStatus(): Promise<ReadonlyMap<string, ReadonlyMap<WgPublicKey, PeerStatus>>>;
  /** Writes what DATAPLANE §6 asks of networkd, NetworkManager, firewalld and Docker, recorded for cleanup; says what it did. */
  configureHost(udpPorts: readonly number[]): Promise<string[]>;
  /** Tables and chains of others that drop forwarded packets (condition `ForwardingBlocked`). */
  forwardingBlockers(): Promise<string[]>;
  /** Removes exactly what is ours and restores what was recorded; says what it did. */
  cleanup(): Promise<string[]>;
}

export declare function createKernel(options: KernelOptions): Kernel;
