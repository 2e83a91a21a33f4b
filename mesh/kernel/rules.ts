/** Policy rules at fixed priorities, both families (DATAPLANE §2). */
import { MAIN_TABLE } from "../model/plan.ts";
import type { IpAddress } from "../model/scalars.ts";
import { familyOf, hostCidr } from "../net/ip.ts";
import { hasV6 } from "./addresses.ts";
import { MARK_OWN_LAN, MARK_RETURN, MARK_UNDERLAY, MARK_WIREGUARD, marksOf, PRIORITY } from "./layout.ts";
import { keptLan } from "./pairs.ts";
import { isPaired } from "./topology.ts";
import { OVERLAY_TABLE, RETURN_TABLE, ruleKey, type DesiredInput, type Rule } from "./types.ts";
import { isGateway } from "./wireguard.ts";

export function desiredRules(input: DesiredInput): Map<string, Rule> {
  const marks = marksOf(input.plan.network);
  const marked = (value: number): Pick<Rule, "fwmark" | "fwmask"> => ({ fwmark: marks.bits(value), fwmask: marks.mask });
  const rules: Rule[] = [];
  for (const family of hasV6(input.host) ? ([4, 6] as const) : ([4] as const)) {
    rules.push({ family, priority: PRIORITY.wireguard, ...marked(MARK_WIREGUARD), table: MAIN_TABLE });
    if (isGateway(input)) rules.push({ family, priority: PRIORITY.return, ...marked(MARK_RETURN), table: RETURN_TABLE });
    if (keptLan(input.plan) !== undefined) rules.push({ family, priority: PRIORITY.ownLan, ...marked(MARK_OWN_LAN), table: OVERLAY_TABLE });
    for (const address of underlayAddresses(input)) {
      if (familyOf(address) === family) rules.push({ family, priority: PRIORITY.underlay, from: hostCidr(address), table: MAIN_TABLE });
    }
    rules.push({ family, priority: PRIORITY.inbound, ...marked(MARK_UNDERLAY), table: MAIN_TABLE });
    for (const [name, k] of [...input.links].sort(([, a], [, b]) => a - b)) {
      if (!input.plan.peers.has(name)) continue;
      const paired = isPaired(input.plan, name);
      rules.push({ family, priority: paired ? PRIORITY.pair : PRIORITY.flows + k, ...marked(k), table: OVERLAY_TABLE + k });
      if (paired) rules.push({ family, priority: PRIORITY.pairElse, ...marked(k), table: OVERLAY_TABLE });
    }
    rules.push({ family, priority: PRIORITY.overlay, table: OVERLAY_TABLE });
  }
  return new Map(rules.map((rule) => [ruleKey(rule), rule]));
}

function underlayAddresses({ host }: DesiredInput): IpAddress[] {
  return [...new Set(host.underlay.map(({ address }) => address))].sort();
}
