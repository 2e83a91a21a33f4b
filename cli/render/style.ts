/** Colour says only what the word beside it says already. */
import { coloured, type Io } from "../io.ts";

const CODES = { red: 31, green: 32, yellow: 33, dim: 2, bold: 1 } as const;
export type Style = keyof typeof CODES;

/** A function that colours, or leaves as it is where there is no colour. */
export function styler(io: Io): (style: Style, text: string) => string {
  if (!coloured(io)) return (_, text) => text;
  return (style, text) => `\u001b[${CODES[style]}m${text}\u001b[0m`;
}

const GOOD = /^(Ready|True|Healthy|Normal|Up|Active)\b/;
const BAD = /^(NotReady|False|Lost|Conflict|Down|Expired|Revoked|Offline|Spent)\b/;
const CAREFUL = /^(Unknown|Pending|Warning|Suspect|.*,Draining|Draining)/;

/** Painter for table cells; undefined where there is no colour. */
export function cellPainter(io: Io): ((header: string, cell: string) => string) | undefined {
  if (!coloured(io)) return undefined;
  const style = styler(io);
  return (header, cell) => {
    if (header !== "STATUS" && header !== "TYPE" && header !== "HEALTH") return cell;
    if (CAREFUL.test(cell)) return style("yellow", cell);
    if (BAD.test(cell)) return style("red", cell);
    return GOOD.test(cell) ? style("green", cell) : cell;
  };
}
