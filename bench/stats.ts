/** Summary statistics and tables of the benchmarks. */

export interface Summary {
  readonly n: number;
  readonly median: number;
  readonly p99: number;
  readonly min: number;
  readonly max: number;
  /** Interquartile range: the spread. */
  readonly iqr: number;
}

/** Nearest-rank percentile, `p` from 0 to 100. NaN for no samples. */
export function percentile(samples: readonly number[], p: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((p / 100) * sorted.length) - 1)] ?? Number.NaN;
}

export function summarise(samples: readonly number[]): Summary {
  return {
    n: samples.length,
    median: percentile(samples, 50),
    p99: percentile(samples, 99),
    min: percentile(samples, 0),
    max: percentile(samples, 100),
    iqr: percentile(samples, 75) - percentile(samples, 25),
  };
}

/** One line of a bench's table. `reached` compares the judged figure with the target. */
export interface Row {
  readonly what: string;
  readonly unit: string;
  readonly samples: readonly number[];
  /** Which figure the target speaks of. */
  readonly judge: "median" | "p99" | "max";
  readonly target?: number;
  /** What others need for the same, as text. */
  readonly compared?: string;
}

export function reached(row: Row): boolean | undefined {
  return row.target === undefined ? undefined : summarise(row.samples)[row.judge] <= row.target;
}

export function table(rows: readonly Row[]): string {
  const head = ["what", "unit", "n", "median", "p99", "min", "max", "IQR", "target", "reached", "compared with"];
  const body = rows.map((row) => {
    const s = summarise(row.samples);
    const ok = reached(row);
    return [
      row.what,
      row.unit,
      String(s.n),
      ...[s.median, s.p99, s.min, s.max, s.iqr].map(figure),
      row.target === undefined ? "" : `${row.judge} ≤ ${row.target}`,
      ok === undefined ? "" : ok ? "yes" : "NO",
      row.compared ?? "",
    ];
  });
  return markdown(head, body);
}

function markdown(head: readonly string[], body: readonly (readonly string[])[]): string {
  const widths = head.map((title, i) => Math.max(title.length, ...body.map((cells) => (cells[i] ?? "").length)));
  const line = (cells: readonly string[]): string => `| ${cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" | ")} |`;
  return [line(head), `| ${widths.map((w) => "-".repeat(w)).join(" | ")} |`, ...body.map(line)].join("\n");
}

function figure(value: number): string {
  if (!Number.isFinite(value)) return "–";
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(Math.abs(value) >= 10 ? 1 : 2);
}
