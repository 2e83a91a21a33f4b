/** Rules of health checks. */
import type { FieldFault } from "../../errors.ts";
import { fault, type Path } from "../faults.ts";
import type { GatewayHealth, LinkHealth, UplinkCheck } from "../health.ts";
import { durationWithin, tagged, unicast } from "./rules.ts";

const LEAST_INTERVAL = "10ms";
const MOST_INTERVAL = "1h";
const MOST_HOLD = "24h";

export function linkHealth(health: LinkHealth, path: Path): FieldFault[] {
  return [
    ...durationWithin(health.interval, LEAST_INTERVAL, MOST_INTERVAL, [...path, "interval"]),
    ...durationWithin(health.uplinkInterval, LEAST_INTERVAL, MOST_INTERVAL, [...path, "uplinkInterval"]),
    ...durationWithin(health.holdDown, "0s", MOST_HOLD, [...path, "holdDown"]),
    ...(health.uplink ?? []).flatMap((check, i) => uplinkCheck(check, [...path, "uplink", i])),
  ];
}

export function gatewayHealth(health: GatewayHealth, path: Path): FieldFault[] {
  return [
    ...durationWithin(health.interval, LEAST_INTERVAL, MOST_INTERVAL, [...path, "interval"]),
    ...durationWithin(health.holdDown, "0s", MOST_HOLD, [...path, "holdDown"]),
    ...tagged(health, "type", { tcp: { member: "tcp", required: true }, http: { member: "http", required: true } }, path),
  ];
}

function uplinkCheck(check: UplinkCheck, path: Path): FieldFault[] {
  const faults = tagged(
    check,
    "type",
    { icmp: { member: "icmp", required: true }, tcp: { member: "tcp", required: true }, http: { member: "http", required: true } },
    path,
  );
  if (faults.length > 0) return faults;
  const member = check.type;
  const address = check[member]?.address;
  // A gateway's uplink check has no default target, unlike a check of a router on a LAN.
  if (address === undefined) return [fault([...path, member, "address"], "is required: an address beyond the uplink")];
  return unicast(address, [...path, member, "address"]);
}
