/** Policy rules with our protocol. */
import { asIsthmusError } from "../../mesh/errors.ts";
import type { Cidr } from "../../mesh/model/scalars.ts";
import { PROTOCOL, ruleKey, type Rule } from "../../mesh/kernel/types.ts";
import { ABSENT, ipJson, type IpFamily, type IpLine, PRESENT } from "./ip.ts";

interface RuleRow {
  readonly priority: number;
  readonly src?: string;
  readonly srclen?: number;
  readonly dst?: string;
  readonly dstlen?: number;
  readonly fwmark?: string;
  readonly fwmask?: string;
  readonly iif?: string;
  readonly table?: string;
  readonly protocol?: string;
}

export async function observeRules(): Promise<Map<string, Rule>> {
  const [v4, v6] = await Promise.all([
    ipJson<RuleRow>(["-d", "-4", "rule", "show"]),
    ipJson<RuleRow>(["-d", "-6", "rule", "show"]).catch(withoutIpv6),
  ]);
  const rules = [...v4.map((row) => ruleOf(row, 4)), ...v6.map((row) => ruleOf(row, 6))].filter((rule) => rule !== undefined);
  return new Map(rules.map((rule) => [ruleKey(rule), rule]));
}

/** A kernel may know no rules for IPv6. A question without an answer says nothing about them. */
function withoutIpv6(thrown: unknown): [] {
  if (/not supported/i.test(asIsthmusError(thrown).message)) return [];
  throw thrown;
}

function ruleOf(row: RuleRow, family: 4 | 6): Rule | undefined {
  if (row.protocol !== String(PROTOCOL)) return undefined;
  const full = family === 4 ? 32 : 128;
  return {
    family,
    priority: row.priority,
    ...(row.src === undefined || row.src === "all" ? {} : { from: `${row.src}/${row.srclen ?? full}` as Cidr }),
    ...(row.dst === undefined || row.dst === "all" ? {} : { to: `${row.dst}/${row.dstlen ?? full}` as Cidr }),
    ...(row.fwmark === undefined ? {} : { fwmark: Number(row.fwmark), fwmask: Number(row.fwmask ?? "0xffffffff") }),
    ...(row.iif === undefined ? {} : { iif: row.iif }),
    table: Number(row.table ?? 0),
  };
}

/** A rule that names no address takes its family from the command. */
export function ruleFamily(rule: Rule): IpFamily {
  return rule.family === 6 ? "6" : "any";
}

export function ruleLine(action: "add" | "remove", rule: Rule): IpLine {
  const parts = ["rule", action === "add" ? "add" : "del", "priority", String(rule.priority)];
  if (rule.from !== undefined) parts.push("from", rule.from);
  if (rule.to !== undefined) parts.push("to", rule.to);
  if (rule.fwmark !== undefined) parts.push("fwmark", `0x${rule.fwmark.toString(16)}/0x${(rule.fwmask ?? 0xffffffff).toString(16)}`);
  if (rule.iif !== undefined) parts.push("iif", rule.iif);
  parts.push("lookup", String(rule.table), "protocol", String(PROTOCOL));
  return { line: parts.join(" "), fine: action === "add" ? PRESENT : ABSENT };
}
