/** Lengths of time as flags take them. */
import { IsthmusError } from "../mesh/errors.ts";

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds of `90s`, `24h`, `7d`, `1h30m`. @throws {IsthmusError} BadRequest naming the flag, and what it takes `otherwise` */
export function spanMs(text: string, flag: string, otherwise?: string): number {
  const parts = [...text.matchAll(/(\d{1,9})(ms|s|m|h|d)/g)];
  if (text === "" || parts.map((part) => part[0]).join("") !== text) {
    throw new IsthmusError("BadRequest", `${flag} ${JSON.stringify(text)} is not a length of time`, {
      remedy: `Write a number with ms, s, m, h or d, for example 24h or 1h30m${otherwise === undefined ? "" : `, ${otherwise}`}.`,
    });
  }
  return parts.reduce((sum, part) => sum + Number(part[1]) * (UNITS[part[2] ?? ""] ?? 0), 0);
}
