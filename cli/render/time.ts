/** Ages as kubectl writes them: two units while small, one when large. */
const S = 1_000;
const M = 60 * S;
const H = 60 * M;
const D = 24 * H;

/** `5s`, `3m10s`, `12m`, `5h30m`, `17h`, `2d3h`, `40d`, `3y12d`. Negative lengths (a clock that is off) are `0s`. */
export function ageText(ms: number): string {
  if (ms < 2 * M) return `${Math.max(0, Math.floor(ms / S))}s`;
  if (ms < 10 * M) return two(ms, M, "m", S, "s");
  if (ms < 3 * H) return `${Math.floor(ms / M)}m`;
  if (ms < 8 * H) return two(ms, H, "h", M, "m");
  if (ms < 2 * D) return `${Math.floor(ms / H)}h`;
  if (ms < 8 * D) return two(ms, D, "d", H, "h");
  if (ms < 730 * D) return `${Math.floor(ms / D)}d`;
  return two(ms, 365 * D, "y", D, "d");
}

/** Age of an RFC 3339 time or of milliseconds since 1970; `<unknown>` where there is none. */
export function ageSince(at: string | number | undefined, now: number): string {
  const ms = typeof at === "number" ? at : Date.parse(at ?? "");
  return Number.isNaN(ms) ? "<unknown>" : ageText(now - ms);
}

function two(ms: number, big: number, bigName: string, small: number, smallName: string): string {
  const rest = Math.floor((ms % big) / small);
  return `${Math.floor(ms / big)}${bigName}${rest === 0 ? "" : `${rest}${smallName}`}`;
}
