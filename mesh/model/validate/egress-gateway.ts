import type { FieldFault } from "../../errors.ts";
import { familyOf } from "../../net/ip.ts";
import type { EgressGatewaySpec } from "../egress-gateway.ts";
import { fault } from "../faults.ts";
import { linkHealth } from "./health.ts";
import { durationWithin, exactlyOne, hasFamily, notReserved, somethingLeft, tagged, unicast } from "./rules.ts";

export function validateEgressGateway(spec: EgressGatewaySpec): FieldFault[] {
  return [
    ...notReserved(spec.destinations, ["spec", "destinations"]),
    ...somethingLeft(spec.destinations, spec.excludedDestinations, ["spec", "excludedDestinations"]),
    ...spec.gateways.flatMap((gateway, i) => exactlyOne(gateway, ["nodeSelector", "site"], ["spec", "gateways", i])),
    ...spec.gateways.flatMap((gateway, i) => emptySelector(gateway.nodeSelector, i)),
    ...snat(spec),
    ...linkHealth(spec.health, ["spec", "health"]),
    ...durationWithin(spec.failback.delay, "0s", "24h", ["spec", "failback", "delay"]),
    ...durationWithin(spec.drainTimeout, "0s", "24h", ["spec", "drainTimeout"]),
  ];
}

/** An empty selector matches every node: each would be a gateway for all others, which nobody means. */
function emptySelector(selector: Readonly<Record<string, string>> | undefined, i: number): FieldFault[] {
  if (selector === undefined || Object.keys(selector).length > 0) return [];
  return [fault(["spec", "gateways", i, "nodeSelector"], "is empty and would make every node a gateway; name at least one label", selector)];
}

function snat(spec: EgressGatewaySpec): FieldFault[] {
  const path = ["spec", "snat"];
  const faults = tagged(spec.snat, "type", { Address: { member: "address", required: true } }, path);
  const address = spec.snat.address;
  if (faults.length > 0 || address === undefined) return faults;
  const family = familyOf(address);
  if (!hasFamily(spec.destinations, family)) return [fault([...path, "address"], `is IPv${family}, but no destination is`, address)];
  return unicast(address, [...path, "address"]);
}
