/** What every command gets: the outside, and where its exit status goes. Imports nothing heavy: `--help` loads this. */
import { InvalidArgumentError, Option } from "commander";
import type { Io } from "./io.ts";

export interface Cli {
  readonly io: Io;
  /** The status that the process ends with, unless an error says otherwise. */
  readonly finish: (status: number) => void;
}

/** Flags that every command talking to a controller has. */
export interface GlobalFlags {
  readonly context?: string;
  readonly socket?: string;
}

export type Output = "table" | "wide" | "json" | "yaml" | "name";
const OUTPUTS = ["wide", "json", "yaml", "name"];

/** `-o wide|json|yaml|name`. */
export function outputOption(): Option {
  return new Option("-o, --output <format>", "how to print").choices(OUTPUTS);
}

export function selectorOption(): Option {
  return new Option("-l, --selector <selector>", "only objects with these labels: k=v, k!=v, k, !k, 'k in (a,b)', joined by commas");
}

/** `--dry-run` as kubectl writes it: alone, or `=server`, `=client`, `=none`. */
export function dryRunOption(): Option {
  return new Option("--dry-run [where]", "check everything and say what would happen, change nothing")
    .choices(["server", "client", "none"])
    .preset("server");
}

export function isDryRun(value: string | undefined): boolean {
  return value !== undefined && value !== "none";
}

/** For options that may be given several times. */
export function collect(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), ...value.split(",").filter((part) => part !== "")];
}

/** As `collect`, for values that may hold a comma. */
export function collectWhole(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), value];
}

/** `k=v`, several times. */
export function collectLabel(value: string, before: Readonly<Record<string, string>> | undefined): Record<string, string> {
  const labels: Record<string, string> = { ...before };
  for (const part of value.split(",")) {
    const equals = part.indexOf("=");
    if (equals < 1) throw new InvalidArgumentError("write KEY=VALUE.");
    const [key, given] = [part.slice(0, equals), part.slice(equals + 1)];
    if ((labels[key] ?? given) !== given) throw new InvalidArgumentError(`${key} is given twice: ${labels[key]} and ${given}.`);
    labels[key] = given;
  }
  return labels;
}

export function wholeNumber(value: string): number {
  if (!/^\d{1,15}$/.test(value)) throw new InvalidArgumentError("write a whole number.");
  return Number(value);
}

/** What a command's action reads of `--dry-run`. */
export interface DryRunFlag {
  readonly dryRun?: string;
}
