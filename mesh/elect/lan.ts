/**
 * Which LAN gateway carries a static route. The checks' own hysteresis is all the calm there is: a better gateway that is Up
 * again takes over at once. A static route without any gateway that answers still points at its first one: that is what a
 * plain route would do, and a router that ignores pings is common.
 */
import type { LanRoutePlan } from "../model/plan.ts";
import type { IpAddress } from "../model/scalars.ts";
import { isForlorn, type LinkVerdict, type Reason, type Rejected, wasForlorn } from "./types.ts";

export interface LanHealthView {
  readonly verdict: LinkVerdict;
  readonly since: number;
  /** As in `LinkView`. */
  readonly holdDownUntil?: number;
}

export interface LanChoice {
  readonly gateways: readonly IpAddress[];
  readonly reason: Reason;
  readonly since: number;
  readonly rejected: readonly { readonly gateway: IpAddress; readonly why: Rejected["why"]; readonly since: number }[];
  readonly wakeAt: number | undefined;
  /** As in `Choice`. */
  readonly forlorn?: true;
  /** With `NotHeardYet`: a process before this one had chosen it, so that it did carry once. */
  readonly adopted?: true;
}

export interface LanInput {
  readonly id: string;
  readonly lan: LanRoutePlan;
  readonly health: ReadonlyMap<IpAddress, LanHealthView>;
  readonly previous: LanChoice | undefined;
  readonly stalled: boolean;
  readonly now: number;
}

/** What the kernel already held at start (I2). */
export function adoptedLanChoice(gateways: readonly IpAddress[], now: number): LanChoice {
  return { gateways, reason: "NotHeardYet", since: now, rejected: [], wakeAt: undefined, adopted: true };
}

/** Elects. Returns `previous` itself when nothing changed. */
export function electLan(input: LanInput): LanChoice {
  const { lan, previous, now } = input;
  const current = lan.gateways.filter((gateway) => previous?.gateways.includes(gateway));
  const wanted = choose(input, current);
  const held = input.stalled && current.length > 0 && !sameList(wanted.gateways, current);
  const { gateways, reason } = held ? { gateways: current, reason: "OwnStall" as const } : wanted;
  const same = previous !== undefined && previous.reason === reason && sameList(previous.gateways, gateways);
  const choice: LanChoice = {
    gateways,
    reason,
    since: same ? previous.since : now,
    rejected: rejectedBy(input, gateways),
    wakeAt: undefined,
    ...(reason === "OwnStall" && wasForlorn(previous) ? { forlorn: true } : {}),
    ...(same && reason === "NotHeardYet" && previous.adopted === true ? { adopted: true } : {}),
  };
  return previous !== undefined && JSON.stringify(previous) === JSON.stringify(choice) ? previous : choice;
}

function choose(input: LanInput, current: readonly IpAddress[]): Pick<LanChoice, "gateways" | "reason"> {
  const { lan, previous } = input;
  const verdict = (gateway: IpAddress): LinkVerdict => input.health.get(gateway)?.verdict ?? (lan.health.type === "none" ? "Up" : "Unknown");
  const up = lan.gateways.filter((gateway) => verdict(gateway) === "Up");
  // Within its quiet period a gateway serves only where none is better (`TIER.LastResort`).
  const alive = up.length > 0 ? up : lan.gateways.filter((gateway) => input.health.get(gateway)?.holdDownUntil !== undefined);
  // Not heard since the start is not dead: what carried before goes on until its checks have spoken (I2).
  const kept = current.filter((gateway) => verdict(gateway) === "Unknown" || (up.length === 0 && alive.includes(gateway)));
  if (alive.length === 0) return nobodyAlive(lan, verdict, previous, current);
  if (lan.strategy === "Failover" && kept.length > 0) return { gateways: current, reason: carrying(lan, previous, current) };
  if (lan.strategy === "Spread") {
    const gateways = lan.gateways.filter((gateway) => alive.includes(gateway) || kept.includes(gateway));
    return { gateways, reason: "Spread" };
  }
  const best = alive[0] ?? lan.gateways[0];
  if (best === undefined) return { gateways: [], reason: "NoneEverAlive" };
  if (best === lan.gateways[0]) return { gateways: [best], reason: "Preferred" };
  if (sameList(current, [best]))
    return { gateways: [best], reason: previous?.reason === "GatewayDown" || previous?.reason === "PlanChanged" ? previous.reason : "OnlyHealthy" };
  const replaced = previous !== undefined && previous.gateways.length > 0 && current.length === 0;
  return { gateways: [best], reason: replaced ? "PlanChanged" : current.length > 0 ? "GatewayDown" : "OnlyHealthy" };
}

function nobodyAlive(
  lan: LanRoutePlan,
  verdict: (gateway: IpAddress) => LinkVerdict,
  previous: LanChoice | undefined,
  current: readonly IpAddress[],
): Pick<LanChoice, "gateways" | "reason"> {
  const isUnheard = (gateway: IpAddress): boolean => verdict(gateway) === "Unknown";
  const first = previous === undefined || current.length === 0;
  const gateways = first ? (lan.strategy === "Spread" ? lan.gateways : lan.gateways.slice(0, 1)) : current;
  const reason = first ? "NotHeardYet" : previous.reason;
  if (reason === "NotHeardYet") {
    const dead = !first && previous.adopted === true ? "LastKnown" : "NoneEverAlive";
    return { gateways, reason: lan.gateways.some(isUnheard) ? "NotHeardYet" : dead };
  }
  if (reason === "NoneEverAlive" || current.some(isUnheard)) return { gateways, reason };
  return { gateways, reason: "LastKnown" };
}

/** How it came to be used stays visible, unless that was despair: it answers again. */
function carrying(lan: LanRoutePlan, previous: LanChoice | undefined, current: readonly IpAddress[]): Reason {
  if (previous !== undefined && !isForlorn(previous.reason)) return previous.reason;
  return current[0] === lan.gateways[0] ? "Preferred" : "OnlyHealthy";
}

function rejectedBy({ lan, health, previous, now }: LanInput, gateways: readonly IpAddress[]): LanChoice["rejected"] {
  return lan.gateways
    .filter((gateway) => !gateways.includes(gateway))
    .map((gateway) => {
      const seen = health.get(gateway);
      const verdict = seen?.verdict ?? (lan.health.type === "none" ? "Up" : "Unknown");
      const why: Rejected["why"] =
        verdict === "Up" ? "LowerPreference" : verdict === "Unknown" ? "Unknown" : seen?.holdDownUntil === undefined ? "Down" : "HoldDown";
      const before = previous?.rejected.find((one) => one.gateway === gateway && one.why === why);
      return { gateway, why, since: before?.since ?? (verdict === "Up" ? now : (seen?.since ?? now)) };
    });
}

function sameList(a: readonly IpAddress[], b: readonly IpAddress[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}
