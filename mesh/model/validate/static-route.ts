import type { FieldFault } from "../../errors.ts";
import { familyOf } from "../../net/ip.ts";
import { fault } from "../faults.ts";
import type { StaticRouteSpec } from "../static-route.ts";
import { gatewayOutside, notReserved, unicast } from "./rules.ts";

export function validateStaticRoute(spec: StaticRouteSpec): FieldFault[] {
  const family = familyOf(spec.gateway);
  return [
    ...notReserved(spec.destinations, ["spec", "destinations"]),
    ...unicast(spec.gateway, ["spec", "gateway"]),
    ...gatewayOutside(
      spec.gateway,
      spec.destinations,
      undefined,
      ["spec", "gateway"],
      "make a MeshRoute with the gateway's LAN in excludedDestinations",
    ),
    ...spec.destinations.flatMap((text, i) =>
      familyOf(text) === family
        ? []
        : [fault(["spec", "destinations", i], `is IPv${familyOf(text)}, but the gateway ${spec.gateway} is IPv${family}`, text)],
    ),
  ];
}
