import type { FieldFault } from "../../errors.ts";
import type { MeshNodeSpec } from "../mesh-node.ts";
import { fault } from "../faults.ts";
import { Duration } from "../scalars.ts";
import { notOfSite, notReserved } from "./rules.ts";

export function validateMeshNode(spec: MeshNodeSpec): FieldFault[] {
  const timeout = spec.drainTimeout;
  const wrong = timeout !== undefined && !Duration.safeParse(timeout).success;
  return [
    ...notOfSite(spec.labels, ["spec", "labels"]),
    ...notReserved(spec.advertise ?? [], ["spec", "advertise"]),
    ...(wrong ? [fault(["spec", "drainTimeout"], "must be a number with a unit: ms, s, m or h (for example 60s)", timeout)] : []),
  ];
}
