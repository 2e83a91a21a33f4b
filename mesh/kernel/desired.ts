/** The kernel state that a plan asks of this node. Pure; the same input gives the same bytes. */
import { EMPTY_KERNEL } from "./operations.ts";
import type { Desired, DesiredInput } from "./types.ts";

export function desiredKernel(_input: DesiredInput): Desired {
  return { state: EMPTY_KERNEL, refusals: [] };
}
