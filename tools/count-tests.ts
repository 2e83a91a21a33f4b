/** The line that continuous integration reads at the end of a run. */

interface Results {
  readonly numPassedTests?: number;
  readonly numFailedTests?: number;
  readonly numPendingTests?: number;
  readonly numTodoTests?: number;
  readonly testResults?: readonly { readonly status?: string; readonly assertionResults?: readonly { readonly status?: string }[] }[];
}

/**
 * `N passed, N failed`, from vitest's JSON report. A file that failed outside of its tests counts as one failure.
 * @param green whether vitest itself was content
 * @returns undefined where the report does not agree with that: then no number would be true
 */
export function countTests(json: string | undefined, green: boolean): string | undefined {
  if (json === undefined) return undefined;
  const results = JSON.parse(json) as Results;
  const passed = results.numPassedTests ?? 0;
  const files = (results.testResults ?? []).filter(
    (file) => file.status === "failed" && !file.assertionResults?.some((one) => one.status === "failed"),
  );
  const failed = (results.numFailedTests ?? 0) + files.length;
  if (green !== (failed === 0)) return undefined;
  const skipped = (results.numPendingTests ?? 0) + (results.numTodoTests ?? 0);
  return `${passed} passed, ${failed} failed${skipped === 0 ? "" : `, ${skipped} skipped`}`;
}
