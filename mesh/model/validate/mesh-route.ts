import type { FieldFault } from "../../errors.ts";
import { familyOf } from "../../net/ip.ts";
import { fault } from "../faults.ts";
import type { MeshRouteSpec } from "../mesh-route.ts";
import { gatewayHealth } from "./health.ts";
import { exactlyOne, gatewayOutside, hasFamily, notReserved, somethingLeft, unicast } from "./rules.ts";

/** Tables of ours: overlay, one per client link, and the way back (`mesh/kernel/types.ts`). */
const OWN_TABLES = { first: 157, last: 221 };
const LOCAL_TABLE = 255;

export function validateMeshRoute(spec: MeshRouteSpec): FieldFault[] {
  const gateways = spec.gateways.flatMap((gateway, i) => exactlyOne(gateway, ["address", "node"], ["spec", "gateways", i]));
  if (gateways.length > 0) return [...gateways, ...destinations(spec)];
  const kinds = new Set(spec.gateways.map((gateway) => (gateway.address === undefined ? "node" : "address")));
  if (kinds.size > 1) {
    return [fault(["spec", "gateways"], "must be all addresses (routers on a LAN) or all nodes of the mesh; make two routes"), ...destinations(spec)];
  }
  return [
    ...destinations(spec),
    ...twice(spec),
    ...(kinds.has("address") ? lan(spec) : overlay(spec)),
    ...gatewayHealth(spec.health, ["spec", "health"]),
  ];
}

function destinations(spec: MeshRouteSpec): FieldFault[] {
  return [
    ...notReserved(spec.destinations, ["spec", "destinations"]),
    ...somethingLeft(spec.destinations, spec.excludedDestinations, ["spec", "excludedDestinations"]),
  ];
}

function twice(spec: MeshRouteSpec): FieldFault[] {
  const names = spec.gateways.map((gateway) => gateway.address ?? gateway.node);
  return names.flatMap((name, i) => (names.indexOf(name) < i ? [fault(["spec", "gateways", i], "is listed twice", name)] : []));
}

function lan(spec: MeshRouteSpec): FieldFault[] {
  const addresses = spec.gateways.map((gateway) => gateway.address ?? "");
  const faults = addresses.flatMap((address, i) => [
    ...unicast(address, ["spec", "gateways", i, "address"]),
    ...gatewayOutside(address, spec.destinations, spec.excludedDestinations, ["spec", "gateways", i, "address"]),
    ...(hasFamily(spec.destinations, familyOf(address))
      ? []
      : [fault(["spec", "gateways", i, "address"], `is IPv${familyOf(address)}, but no destination is`, address)]),
  ]);
  for (const family of [4, 6] as const) {
    const i = spec.destinations.findIndex((text) => familyOf(text) === family);
    if (i >= 0 && !hasFamily(addresses, family))
      faults.push(fault(["spec", "destinations", i], `is IPv${family}, but no gateway is; add an IPv${family} gateway`, spec.destinations[i]));
  }
  if (spec.health.type === "agent")
    faults.push(fault(["spec", "health", "type"], "agent works only where the gateways are nodes of the mesh; use icmp, tcp or http", "agent"));
  return [...faults, ...table(spec.table)];
}

function overlay(spec: MeshRouteSpec): FieldFault[] {
  const why = "applies to gateways on a LAN only; routes through nodes of the mesh live in Isthmus' own table. Remove it";
  return (["table", "metric"] as const).flatMap((name) => (spec[name] === undefined ? [] : [fault(["spec", name], why, spec[name])]));
}

function table(number: number | undefined): FieldFault[] {
  if (number === undefined) return [];
  if (number >= OWN_TABLES.first && number <= OWN_TABLES.last)
    return [fault(["spec", "table"], `tables ${OWN_TABLES.first} to ${OWN_TABLES.last} are Isthmus' own; choose another`, number)];
  return number === LOCAL_TABLE ? [fault(["spec", "table"], "is the kernel's table of local addresses; choose another", number)] : [];
}
