import type { FieldFault } from "../../errors.ts";
import { fault } from "../faults.ts";
import type { JoinTokenSpec } from "../join-token.ts";
import { notOfSite, notReserved, type RuleContext } from "./rules.ts";

const RFC3339 = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})$/;

export function validateJoinToken(spec: JoinTokenSpec, context: RuleContext): FieldFault[] {
  return [
    ...expiry(spec.expires, context.now),
    ...notOfSite(spec.labels, ["spec", "labels"]),
    ...notReserved(spec.grants?.advertise ?? [], ["spec", "grants", "advertise"]),
  ];
}

function expiry(text: string, now: number | undefined): FieldFault[] {
  const path = ["spec", "expires"];
  const at = RFC3339.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(at)) return [fault(path, "must be a time such as 2030-01-31T12:00:00Z (RFC 3339)", text)];
  if (now !== undefined && at <= now)
    return [fault(path, `is in the past (it is now ${new Date(now).toISOString()}); nobody could use the token`, text)];
  return [];
}
