/** Tables as kubectl prints them: left-aligned columns, three spaces between, no lines. */
import { oneLine } from "../../mesh/model/words.ts";

export interface Column<T> {
  readonly header: string;
  /** Only with `-o wide`. */
  readonly wide?: boolean;
  readonly value: (row: T) => string;
}

export interface TableOptions {
  readonly headers: boolean;
  readonly wide: boolean;
  /** Colours one cell; absent means no colour. */
  readonly paint?: ((header: string, cell: string) => string) | undefined;
  /** Widths to keep, for rows that come later (`-w`). */
  readonly widths?: readonly number[] | undefined;
}

const GAP = 3;

export interface RenderedTable {
  readonly text: string;
  readonly widths: readonly number[];
}

export function renderTable<T>(columns: readonly Column<T>[], rows: readonly T[], options: TableOptions): RenderedTable {
  const shown = columns.filter((column) => options.wide || column.wide !== true);
  const cells = rows.map((row) => shown.map((column) => cellOf(column.value(row))));
  const headers = shown.map((column) => column.header);
  const widths = shown.map((_, i) => Math.max(options.widths?.[i] ?? 0, headers[i]?.length ?? 0, ...cells.map((line) => line[i]?.length ?? 0)));
  const render = (line: readonly string[], paint: TableOptions["paint"]): string =>
    line
      .map((cell, i) => {
        const last = i === line.length - 1;
        const text = paint === undefined ? cell : paint(headers[i] ?? "", cell);
        return last ? text : text + " ".repeat((widths[i] ?? 0) - cell.length + GAP);
      })
      .join("")
      .trimEnd();
  const lines = [...(options.headers ? [render(headers, undefined)] : []), ...cells.map((line) => render(line, options.paint))];
  return { text: lines.map((line) => `${line}\n`).join(""), widths };
}

/** `<none>` for nothing; a cell never breaks its line or carries a control character from afar to the terminal. */
function cellOf(text: string): string {
  return text === "" ? "<none>" : oneLine(text);
}
