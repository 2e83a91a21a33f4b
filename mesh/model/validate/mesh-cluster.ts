import type { z } from "zod";
import type { FieldFault } from "../../errors.ts";
import { fault } from "../faults.ts";
import type { MeshClusterSpec } from "../mesh-cluster.ts";
import { exactlyOne, notReserved } from "./rules.ts";

export function validateMeshCluster(spec: z.infer<typeof MeshClusterSpec>): FieldFault[] {
  return [
    ...exactlyOne(spec.kubeconfig, ["secretName", "path"], ["spec", "kubeconfig"]),
    ...(spec.servers ?? []).flatMap((server, i) =>
      /^https:\/\/[^/\s]+$/.test(server) ? [] : [fault(["spec", "servers", i], "must be https://HOST:PORT", server)],
    ),
    ...(spec.sites ?? []).flatMap((site, i) => exactlyOne(site, ["nodes", "nodeSelector"], ["spec", "sites", i])),
    ...notReserved(spec.grants?.advertise ?? [], ["spec", "grants", "advertise"]),
  ];
}
