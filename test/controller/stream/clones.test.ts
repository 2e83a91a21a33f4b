import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NO_BOOTS, judgeBoot, type BootHistory } from "../../../controller/stream/clones.ts";

function contacts(joined: string, boots: readonly string[]): { history: BootHistory; accepted: boolean[]; evicted: (string | undefined)[] } {
  let history = NO_BOOTS;
  const verdicts = boots.map((boot) => {
    const verdict = judgeBoot(history, boot, joined);
    history = verdict.history;
    return verdict;
  });
  return { history, accepted: verdicts.map((one) => one.accept), evicted: verdicts.map((one) => one.evict) };
}

describe("two machines with one identity", () => {
  test("any number of reboots and reconnects of one machine is accepted", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 60 }), (reconnects) => {
        const boots = reconnects.flatMap((count, reboot) => Array.from({ length: count }, () => `boot-${reboot}`));
        expect(contacts("boot-0", boots).accepted.every(Boolean)).toBe(true);
      }),
    );
  });

  test("the clone is refused for good as soon as the machine that joined calls again", () => {
    const { accepted, evicted } = contacts("real", ["real", "clone", "real", "clone", "real"]);
    expect(accepted).toEqual([true, true, true, false, true]);
    expect(evicted[2]).toBe("clone");
  });

  test("a clone that called first is refused once the machine that joined has called", () => {
    expect(contacts("real", ["clone", "real", "clone", "real"]).accepted).toEqual([true, true, false, true]);
  });

  test("when neither is the boot of the join, the one that was there first stays", () => {
    expect(contacts("earlier", ["real", "clone", "real", "clone"]).accepted).toEqual([true, true, true, false]);
  });

  test("of two that alternate at most one goes on being accepted", () => {
    fc.assert(
      fc.property(fc.constantFrom("a", "b", "c"), fc.array(fc.constantFrom("a", "b"), { minLength: 4, maxLength: 30 }), (joined, order) => {
        const { accepted } = contacts(joined, [...order, "a", "b", "a", "b"]);
        const last = accepted.slice(-2);
        expect(last.filter(Boolean)).toHaveLength(1);
      }),
    );
  });
});
