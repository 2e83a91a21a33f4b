import { describe, expect, test } from "vitest";
import type { Plant } from "./agent.ts";
import { runSeed } from "./world.ts";

/** More, or others: `isthmus sim --seeds N --from S`. */
const SEEDS = 1_000;

describe("the simulator", () => {
  // It computes for half a minute where nothing else does.
  test(`${SEEDS} seeds hold every invariant after every step`, { timeout: 600_000 }, () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { violation } = runSeed(seed);
      if (violation !== undefined) throw new Error(`seed ${seed}: ${violation}\n  replay: isthmus sim --seed ${seed} -v`);
    }
  });

  test("a seed replays exactly", () => {
    expect(runSeed(42, undefined, true)).toEqual(runSeed(42, undefined, true));
    expect(runSeed(43, undefined, true).log).not.toEqual(runSeed(42, undefined, true).log);
  });

  test.each<[Plant, RegExp]>([
    ["DeadGateway", /^I4/],
    ["NoHysteresis", /^hysteresis/],
    ["NoStallGuard", /^own fault/],
    ["ForgetsStandstill", /OwnStall/],
    ["BreakBeforeMake", /^(I5|quiet network)/],
    ["Leak", /^I4/],
    ["NoCompareAndSet", /^I6/],
    ["ForgetsDrain", /^I5/],
    ["RestartForgets", /^I2/],
  ])("a planted fault is found: %s", (plant, rule) => {
    for (let seed = 1; seed <= 200; seed++) {
      const { violation } = runSeed(seed, plant);
      if (violation !== undefined && rule.test(violation)) return;
    }
    throw new Error(`200 seeds did not show ${plant}`);
  });
});
