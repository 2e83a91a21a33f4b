import { describe, expect, it } from "vitest";
import { countTests } from "../../tools/count-tests.ts";

const report = (passed: number, failed: number, files: object[] = [], pending = 0): string =>
  JSON.stringify({ numPassedTests: passed, numFailedTests: failed, numPendingTests: pending, testResults: files });

describe("the last line of a test run", () => {
  it("counts what passed, failed and was skipped", () => {
    expect(countTests(report(12, 0), true)).toBe("12 passed, 0 failed");
    expect(countTests(report(11, 1, [{ status: "failed", assertionResults: [{ status: "failed" }] }]), false)).toBe("11 passed, 1 failed");
    expect(countTests(report(10, 0, [], 2), true)).toBe("10 passed, 0 failed, 2 skipped");
  });

  it("counts a file that failed outside of its tests", () => {
    expect(countTests(report(12, 0, [{ status: "failed", assertionResults: [{ status: "passed" }] }]), false)).toBe("12 passed, 1 failed");
  });

  it("says nothing when the report and the exit status disagree, or there is no report", () => {
    expect(countTests(report(12, 0), false)).toBeUndefined();
    expect(countTests(undefined, true)).toBeUndefined();
  });
});
