/** Kinds whose schemas are settled and that this version only checks and stores: silence would look like success. Pure. */
import type { Kind } from "../../mesh/model/resources.ts";
import type { Plain } from "./conditions.ts";

export const IDLE = ["VirtualIP", "MeshCluster"] as const satisfies readonly Kind[];

export function idleCondition(kind: Kind): Plain | undefined {
  if (!IDLE.some((one) => one === kind)) return undefined;
  return { type: "Ready", status: "False", reason: "NotSupported", message: `this version checks and stores a ${kind}, and nothing acts on it yet` };
}
