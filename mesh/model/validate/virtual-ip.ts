import type { z } from "zod";
import type { FieldFault } from "../../errors.ts";
import { familyOf } from "../../net/ip.ts";
import { fault, type Path } from "../faults.ts";
import type { VirtualIPSpec } from "../virtual-ip.ts";
import { durationWithin, exactlyOne, tagged, unicast } from "./rules.ts";

type Spec = z.infer<typeof VirtualIPSpec>;
type Check = NonNullable<Spec["checks"]>[number];

export function validateVirtualIP(spec: Spec): FieldFault[] {
  return [
    ...unicast(spec.address, ["spec", "address"]),
    ...(spec.addresses ?? []).flatMap((address, i) => unicast(address, ["spec", "addresses", i])),
    ...(spec.checks ?? []).flatMap((check, i) => checks(check, ["spec", "checks", i])),
    ...(spec.ports ?? []).flatMap((server, i) => ports(server, ["spec", "ports", i])),
    ...durationWithin(spec.preempt.delay, "0s", "24h", ["spec", "preempt", "delay"]),
    ...vrrp(spec),
  ];
}

function checks(check: Check, path: Path): FieldFault[] {
  return [
    ...tagged(
      check,
      "type",
      { tcp: { member: "tcp", required: true }, http: { member: "http", required: true }, exec: { member: "exec", required: true } },
      path,
    ),
    ...durationWithin(check.interval, "10ms", "1h", [...path, "interval"]),
  ];
}

function ports(server: NonNullable<Spec["ports"]>[number], path: Path): FieldFault[] {
  return [
    ...exactlyOne(server, ["backends", "backendSelector"], path),
    ...(server.check === undefined ? [] : checks(server.check, [...path, "check"])),
  ];
}

function vrrp(spec: Spec): FieldFault[] {
  const own = spec.vrrp;
  if (own === undefined) return [];
  const path = ["spec", "vrrp"];
  if (spec.scope === "Overlay") return [fault(path, "has no meaning with scope Overlay; VRRP is for scope Lan")];
  const faults = durationWithin(own.advertInterval, "10ms", "40s", [...path, "advertInterval"]);
  if (own.version === 3 && own.authPass !== undefined)
    faults.push(fault([...path, "authPass"], "VRRP version 3 has no authentication (RFC 5798); use version 2 or remove it"));
  if (own.version === 2 && familyOf(spec.address) === 6) faults.push(fault([...path, "version"], "VRRP version 2 has no IPv6; use version 3", 2));
  return faults;
}
