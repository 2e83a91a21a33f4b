/** `ip -batch` for many changes in one process, `ip -N -j` for observation. */
import { refused, run, worked } from "./exec.ts";
import { read } from "./reading.ts";
import type { IsthmusError } from "../../mesh/errors.ts";

/** One line of a batch, with the words of the kernel that mean "already so". */
export interface IpLine {
  readonly line: string;
  readonly fine?: RegExp;
}

/** `-6` is needed where a line names no address (rules) or makes a v6 object (device nexthops); groups refuse it. */
export type IpFamily = "any" | "6";

/**
 * Runs all lines, also after a failure; the answer has an error at the index of each line that failed. Not atomic.
 * @throws {IsthmusError} when `ip` itself cannot be run
 */
export async function ipBatch(family: IpFamily, lines: readonly IpLine[], signal?: AbortSignal): Promise<(IsthmusError | undefined)[]> {
  const errors: (IsthmusError | undefined)[] = lines.map(() => undefined);
  if (lines.length === 0) return errors;
  const input = `${lines.map(({ line }) => line).join("\n")}\n`;
  const { ok, stderr } = await run("ip", [...(family === "6" ? ["-6"] : []), "-force", "-batch", "-"], {
    input,
    ...(signal === undefined ? {} : { signal }),
  });
  if (ok) return errors;
  let said: string[] = [];
  for (const text of stderr.split("\n")) {
    const at = /^Command failed -:(\d+)$/.exec(text)?.[1];
    if (at === undefined) {
      said.push(text);
      continue;
    }
    const index = Number(at) - 1;
    const line = lines[index];
    const words = said.join(" ").trim();
    said = [];
    if (line !== undefined && !(line.fine?.test(words) ?? false)) errors[index] = refused(`ip ${line.line}`, words);
  }
  return errors;
}

/** Parsed JSON of an `ip` listing; an empty listing is an empty list. */
export async function ipJson<T>(args: readonly string[]): Promise<T[]> {
  return rowsOf<T>(await ipText(args));
}

/** The JSON itself. */
export async function ipText(args: readonly string[]): Promise<string> {
  const words = ["-N", "-j", ...args];
  return worked("ip", words, await read("ip", words));
}

export function rowsOf<T>(text: string): T[] {
  return text.trim() === "" ? [] : (JSON.parse(text) as T[]);
}

/** Words of the kernel for "there is no such thing (any more)". */
export const ABSENT = /No such process|No such file|does not exist|Cannot find device|Cannot assign requested address|not found/i;
export const PRESENT = /File exists|already assigned/i;
