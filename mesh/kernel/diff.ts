/** What turns the observed kernel state into the desired one, make before break. */
import type { Operation } from "./operations.ts";
import type { KernelState } from "./types.ts";

export type { ChangeRow, Operation } from "./operations.ts";

/** Empty for equal states. */
export function diffKernel(_desired: KernelState, _observed: KernelState): Operation[] {
  return [];
}
