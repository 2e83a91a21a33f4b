import { describe, expect, test } from "vitest";
import { createStarting } from "../../node-agent/starting.ts";
import { name } from "./plans.ts";

describe("an agent starts", () => {
  test("until every peer that could answer has, and is not starting again when one falls silent later", () => {
    const starting = createStarting();
    expect(starting.look([name("a"), name("b")], 0)).toBe("first handshakes are on their way: a, b");
    expect(starting.look([name("b")], 400)).toBe("first handshakes are on their way: b");
    expect(starting.look([], 700)).toBeUndefined();
    expect(starting.look([name("a")], 800)).toBeUndefined();
  });

  test("no longer than a few seconds after its plan is in the kernel, whoever is switched off", () => {
    const starting = createStarting();
    expect(starting.look([name("off")], 60_000)).toBeDefined();
    expect(starting.look([name("off")], 64_999)).toBeDefined();
    expect(starting.look([name("off")], 65_000)).toBeUndefined();
    expect(starting.look([name("off")], 65_001)).toBeUndefined();
  });
});
