/** Flags, environment and `--config FILE` of long-running commands say the same things; flags win, then the environment. */
import { readFile } from "node:fs/promises";
import type { Command, Option } from "commander";
import { IsthmusError, type FieldFault } from "../mesh/errors.ts";
import { nearest } from "../mesh/model/suggest.ts";

/** Values of a command's options by their camelCase names, from all sources. @throws {IsthmusError} Invalid for a wrong config file */
export async function settings<T>(command: Command): Promise<T> {
  // Options of the program itself (`--socket`) are read by the program wherever they stand.
  const values: Record<string, unknown> = { ...command.opts(), ...given(command.parent?.parent ?? command.parent ?? null, command) };
  const file = command.getOptionValue("config") as string | undefined;
  if (file === undefined) return values as T;
  const fromFile = await readConfig(file, command);
  for (const [name, value] of Object.entries(fromFile)) {
    const source = command.getOptionValueSource(name);
    const weak = source === undefined || source === "default";
    if (weak && !(name in given(command.parent?.parent ?? command.parent ?? null, command))) values[name] = value;
  }
  return values as T;
}

function given(program: Command | null, command: Command): Record<string, unknown> {
  if (program === null) return {};
  const own = new Set(command.options.map((option) => option.attributeName()));
  return Object.fromEntries(Object.entries(program.opts()).filter(([name]) => own.has(name)));
}

/** Fields of the file by camelCase names. Written as the flags are (`log-level`) or in camelCase. */
async function readConfig(file: string, command: Command): Promise<Record<string, unknown>> {
  let raw: unknown;
  try {
    const { parse } = await import("yaml");
    raw = parse(await readFile(file, "utf8")) ?? {};
  } catch (error) {
    throw new IsthmusError("Invalid", `--config ${file}: ${(error as Error).message}`, {
      cause: error,
      remedy: "Check the path and the YAML in it.",
    });
  }
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new IsthmusError("Invalid", `--config ${file}: must be an object with the flags as fields`, {
      remedy: "Write for example: data: /var/lib/isthmus",
    });
  const options = command.options.filter((option) => option.attributeName() !== "config");
  const values: Record<string, unknown> = {};
  const faults: FieldFault[] = [];
  for (const [key, value] of Object.entries(raw)) {
    const option = options.find((each) => [each.attributeName(), longName(each)].includes(key));
    if (option === undefined) {
      const suggestion = nearest(key, options.map(longName));
      faults.push({
        path: key,
        message: suggestion === undefined ? `unknown field; known here: ${options.map(longName).join(", ")}` : "unknown field",
        value,
        ...(suggestion === undefined ? {} : { suggestion }),
      });
      continue;
    }
    const checked = check(option, value);
    if ("fault" in checked) faults.push({ path: key, message: checked.fault, value });
    else values[option.attributeName()] = checked.value;
  }
  if (faults.length > 0)
    throw new IsthmusError("Invalid", `--config ${file} is not valid`, { faults, remedy: "Correct the file; `--help` lists the flags." });
  return values;
}

function longName(option: Option): string {
  return (option.long ?? "").replace(/^--/, "").replace(/^no-/, "");
}

function check(option: Option, value: unknown): { readonly value: unknown } | { readonly fault: string } {
  if (option.isBoolean() || option.negate) return typeof value === "boolean" ? { value } : { fault: "must be true or false" };
  // Options that may be repeated collect into a list; choices have a parser too.
  if (option.argChoices === undefined && option.parseArg !== undefined) {
    const list = Array.isArray(value) ? value : [value];
    return list.every((item) => typeof item === "string") ? { value: list } : { fault: "must be a list of strings" };
  }
  if (typeof value !== "string" && typeof value !== "number") return { fault: "must be a string" };
  if (option.argChoices !== undefined && !option.argChoices.includes(String(value)))
    return { fault: `must be one of ${option.argChoices.join(", ")}` };
  return { value: String(value) };
}
