/** Polls until no expectation inside throws. */
import { expect } from "vitest";

export const eventually = (what: () => void, withinMs = 10_000): Promise<void> =>
  expect
    .poll(
      () => {
        what();
        return true;
      },
      { timeout: withinMs, interval: 5 },
    )
    .toBe(true);
