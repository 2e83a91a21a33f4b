import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { adoptedLanChoice, electLan, type LanChoice, type LanHealthView } from "../../../mesh/elect/lan.ts";
import { GatewayHealth } from "../../../mesh/model/health.ts";
import type { LanRoutePlan } from "../../../mesh/model/plan.ts";
import type { IpAddress } from "../../../mesh/model/scalars.ts";

const [a, b, c] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"] as IpAddress[] as [IpAddress, IpAddress, IpAddress];
const id = "lanroute/r";
const lan = (change: Partial<LanRoutePlan> = {}): LanRoutePlan => ({
  created: 0,
  gateways: [a, b],
  table: 254,
  strategy: "Failover",
  health: GatewayHealth.parse({}),
  ...change,
});

type Short = "Up" | "Down" | "Unknown" | "Hold";
const view = (short: Short): LanHealthView => (short === "Hold" ? { verdict: "Down", since: 0, holdDownUntil: 9_000 } : { verdict: short, since: 0 });
const health = (...shorts: Short[]): Map<IpAddress, LanHealthView> => new Map(shorts.map((short, i) => [[a, b, c][i]!, view(short)]));

function story(plan: LanRoutePlan): (now: number, shorts: Short[], stalled?: boolean) => LanChoice {
  let previous: LanChoice | undefined;
  return (now, shorts, stalled = false) => (previous = electLan({ id, lan: plan, health: health(...shorts), previous, stalled, now }));
}

describe("LAN gateways", () => {
  test("the first one that answers carries; it comes back as soon as its check says Up", () => {
    const at = story(lan());
    expect(at(0, ["Up", "Up"])).toMatchObject({ gateways: [a], reason: "Preferred", rejected: [{ gateway: b, why: "LowerPreference" }] });
    expect(at(1, ["Down", "Up"])).toMatchObject({ gateways: [b], reason: "GatewayDown", since: 1 });
    expect(at(2, ["Hold", "Up"])).toMatchObject({ gateways: [b], rejected: [{ gateway: a, why: "HoldDown" }] });
    expect(at(3, ["Up", "Up"])).toMatchObject({ gateways: [a], reason: "Preferred", since: 3 });
  });

  test("nobody answers: the last one stays; nobody ever did: the first one, as a plain route would", () => {
    const at = story(lan());
    expect(at(0, ["Unknown", "Unknown"])).toMatchObject({ gateways: [a], reason: "NotHeardYet" });
    expect(at(1, ["Down", "Unknown"])).toMatchObject({ gateways: [a], reason: "NotHeardYet" });
    expect(at(1, ["Down", "Down"])).toMatchObject({ gateways: [a], reason: "NoneEverAlive" });
    expect(at(2, ["Down", "Up"]).gateways).toEqual([b]);
    expect(at(3, ["Down", "Down"])).toMatchObject({ gateways: [b], reason: "LastKnown" });
    expect(at(4, ["Hold", "Down"]).gateways).toEqual([a]);
  });

  test("what the kernel held at start stays until its check has spoken", () => {
    const first = electLan({ id, lan: lan(), health: health("Up", "Unknown"), previous: adoptedLanChoice([b], 0), stalled: false, now: 0 });
    expect(first.gateways).toEqual([b]);
    expect(electLan({ id, lan: lan(), health: health("Up", "Up"), previous: first, stalled: false, now: 5 }).gateways).toEqual([a]);
  });

  test("what the kernel held at start did carry once: where it is found dead, it is the last known and not one that was never alive", () => {
    let previous = adoptedLanChoice([b], 0);
    const at = (now: number, ...shorts: Short[]): LanChoice =>
      (previous = electLan({ id, lan: lan(), health: health(...shorts), previous, stalled: false, now }));
    expect(at(1, "Unknown", "Unknown")).toMatchObject({ gateways: [b], reason: "NotHeardYet" });
    expect(at(2, "Down", "Unknown")).toMatchObject({ gateways: [b], reason: "NotHeardYet" });
    expect(at(3, "Down", "Down")).toMatchObject({ gateways: [b], reason: "LastKnown" });
  });

  test("a standstill of the own probing is no sign of life: the choice remembers that nobody was believed alive", () => {
    const at = story(lan());
    at(0, ["Up", "Up"]);
    expect(at(1, ["Down", "Down"])).toMatchObject({ gateways: [a], reason: "LastKnown" });
    expect(at(2, ["Down", "Up"], true)).toMatchObject({ gateways: [a], reason: "OwnStall", forlorn: true });
    expect(at(3, ["Hold", "Up"], true)).toMatchObject({ gateways: [a], reason: "OwnStall", forlorn: true });
    expect(at(4, ["Up", "Up"])).toMatchObject({ gateways: [a], reason: "Preferred" });
    expect(at(5, ["Up", "Up"])).not.toHaveProperty("forlorn");
  });

  test("without checks the first one carries", () => {
    const plan = lan({ health: GatewayHealth.parse({ type: "none" }) });
    expect(electLan({ id, lan: plan, health: new Map(), previous: undefined, stalled: false, now: 0 })).toMatchObject({
      gateways: [a],
      reason: "Preferred",
    });
  });

  test("changing the gateway in place moves at once", () => {
    const before = electLan({ id, lan: lan(), health: health("Up", "Up"), previous: undefined, stalled: false, now: 0 });
    const plan = lan({ gateways: [c] });
    expect(electLan({ id, lan: plan, health: new Map([[c, view("Unknown")]]), previous: before, stalled: false, now: 1 }).gateways).toEqual([c]);
  });

  test("spread uses all that answer", () => {
    const at = story(lan({ gateways: [a, b, c], strategy: "Spread" }));
    expect(at(0, ["Up", "Down", "Up"])).toMatchObject({ gateways: [a, c], reason: "Spread" });
    expect(at(1, ["Down", "Down", "Down"])).toMatchObject({ gateways: [a, c], reason: "LastKnown" });
  });

  test("never a gateway believed dead while another is believed alive; the same input twice changes nothing", () => {
    const short = fc.constantFrom<Short[]>("Up", "Down", "Unknown", "Hold");
    fc.assert(
      fc.property(
        fc.constantFrom("Failover" as const, "Spread" as const),
        fc.array(fc.tuple(short, short, short, fc.boolean()), { maxLength: 20 }),
        (strategy, steps) => {
          const plan = lan({ gateways: [a, b, c], strategy });
          let previous: LanChoice | undefined;
          for (const [now, [x, y, z, stalled]] of steps.entries()) {
            const seen = health(x, y, z);
            const input = { id, lan: plan, health: seen, previous, stalled, now };
            const choice = electLan(input);
            const someUp = [x, y, z].includes("Up");
            if (someUp && !(stalled && previous !== undefined))
              for (const gateway of choice.gateways) expect(["Up", "Unknown"]).toContain(seen.get(gateway)?.verdict);
            expect(choice.gateways.length).toBeGreaterThan(0);
            expect(electLan({ ...input, previous: choice })).toBe(choice);
            previous = choice;
          }
        },
      ),
    );
  });
});
