/** Cross-field rules: what a schema cannot say, one pure function per kind. */
import type { FieldFault } from "../../errors.ts";
import type { Kind, Resource } from "../resources.ts";
import { validateEgressGateway } from "./egress-gateway.ts";
import { validateJoinToken } from "./join-token.ts";
import { validateMeshCluster } from "./mesh-cluster.ts";
import { validateMeshNetwork } from "./mesh-network.ts";
import { validateMeshNode } from "./mesh-node.ts";
import { validateMeshRoute } from "./mesh-route.ts";
import type { RuleContext } from "./rules.ts";
import { validateSite } from "./site.ts";
import { validateStaticRoute } from "./static-route.ts";
import { validateVirtualIP } from "./virtual-ip.ts";

type Validators = { readonly [K in Kind]: (spec: Resource<K>["spec"], context: RuleContext) => FieldFault[] };

const VALIDATORS: Validators = {
  MeshNetwork: validateMeshNetwork,
  Site: validateSite,
  MeshNode: validateMeshNode,
  JoinToken: validateJoinToken,
  MeshRoute: validateMeshRoute,
  StaticRoute: validateStaticRoute,
  EgressGateway: validateEgressGateway,
  VirtualIP: validateVirtualIP,
  MeshCluster: validateMeshCluster,
};

/** Faults of a spec that its schema accepted. Paths start with `spec`. */
export function validateSpec<K extends Kind>(kind: K, spec: Resource<K>["spec"], context: RuleContext): FieldFault[] {
  return VALIDATORS[kind](spec, context);
}
