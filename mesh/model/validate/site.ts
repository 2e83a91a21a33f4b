import type { FieldFault } from "../../errors.ts";
import { overlaps, parseCidr } from "../../net/ip.ts";
import { fault } from "../faults.ts";
import type { SiteSpec } from "../site.ts";
import { notOfSite, notReserved } from "./rules.ts";

export function validateSite(spec: SiteSpec): FieldFault[] {
  const path = ["spec", "subnets"];
  const subnets = spec.subnets ?? [];
  return [
    ...notOfSite(spec.labels, ["spec", "labels"]),
    ...notReserved(subnets, path),
    ...defaultRoute(subnets),
    ...doubled(subnets),
    ...grants(spec),
  ];
}

/** A subnet is a LAN. Carrying everything is an egress gateway's work, with its own safeguards. */
function defaultRoute(subnets: readonly string[]): FieldFault[] {
  return subnets.flatMap((text, i) =>
    parseCidr(text).bits > 1 ? [] : [fault(["spec", "subnets", i], "is not a LAN; use an EgressGateway for the default route", text)],
  );
}

function doubled(subnets: readonly string[]): FieldFault[] {
  return subnets.flatMap((text, i) => {
    const other = subnets.slice(0, i).find((earlier) => overlaps(parseCidr(earlier), parseCidr(text)));
    return other === undefined ? [] : [fault(["spec", "subnets", i], `overlaps ${other}, which is listed before it`, text)];
  });
}

function grants(spec: SiteSpec): FieldFault[] {
  return notReserved(spec.grants?.advertise ?? [], ["spec", "grants", "advertise"]);
}
