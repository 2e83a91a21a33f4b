/** What zod found wrong, in the words of this project: path, what is wrong, what stands there, what was meant. */
import type { z } from "zod";
import type { FieldFault } from "../errors.ts";
import { fieldOf, type StructuralSchema } from "./structural.ts";
import { nearest } from "./suggest.ts";
import { count } from "./words.ts";

export type Path = readonly (string | number)[];

/** Fields whose value never stands in an error. */
const SECRET = /^(authPass|secret|token|privateKey)$/;

/** `spec.destinations[3]`, `metadata.labels["example.org/x"]`. */
export function formatPath(path: Path): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === "number") return `${text}[${part}]`;
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(part)) return `${text}[${JSON.stringify(part)}]`;
    return text === "" ? part : `${text}.${part}`;
  }, "");
}

/** A fault at a path; the value is left out when it is missing or secret. */
export function fault(path: Path, message: string, value?: unknown, suggestion?: string): FieldFault {
  const secret = path.some((part) => typeof part === "string" && SECRET.test(part));
  return {
    path: formatPath(path),
    message,
    ...(value === undefined || secret ? {} : { value }),
    ...(suggestion === undefined ? {} : { suggestion }),
  };
}

/** Faults of the issues of one schema; `root` stands before their paths, `schema` names the valid fields. */
export function toFaults(issues: readonly z.core.$ZodIssue[], raw: unknown, schema: StructuralSchema, root: Path): FieldFault[] {
  return issues.flatMap((issue) => {
    const inside = issue.path.filter((part) => typeof part !== "symbol");
    const path = [...root, ...inside];
    const value = valueAt(raw, inside);
    if (issue.code === "unrecognized_keys") {
      const known = Object.keys(schemaAt(schema, inside)?.properties ?? {});
      const values = isRecord(value) ? value : {};
      return issue.keys.map((key) => unknownField(key, values[key], known, path));
    }
    // A key that is wrong is itself what stands there, not what it leads to.
    const shown = issue.code === "custom" && issue.params?.["about"] === "key" ? inside.at(-1) : value;
    return [fault(path, explainIssue(issue, value), shown, suggestionFor(issue, value))];
  });
}

/** Faults of the keys of `object` that are not `known`. */
export function unknownFields(object: Record<string, unknown>, known: readonly string[], root: Path): FieldFault[] {
  return Object.keys(object)
    .filter((key) => !known.includes(key))
    .map((key) => unknownField(key, object[key], known, root));
}

function unknownField(key: string, value: unknown, known: readonly string[], parent: Path): FieldFault {
  const suggestion = nearest(key, known);
  const message = suggestion === undefined ? `unknown field; known here: ${[...known].sort().join(", ") || "none"}` : "unknown field";
  return fault([...parent, key], message, value, suggestion);
}

function explainIssue(issue: z.core.$ZodIssue, value: unknown): string {
  switch (issue.code) {
    case "invalid_type":
      if (value === undefined) return "is required";
      return `must be ${article(issue.expected)}, not ${typeOf(value)}`;
    case "invalid_value":
      if (value === undefined) return `is required: one of ${issue.values.join(", ")}`;
      return issue.values.length === 1 ? `must be ${String(issue.values[0])}` : `must be one of ${issue.values.join(", ")}`;
    case "too_small":
      return `must ${atLeast(issue.origin, Number(issue.minimum))}`;
    case "too_big":
      return `must ${atMost(issue.origin, Number(issue.maximum))}`;
    case "custom":
    case "invalid_element":
    case "invalid_format":
    case "invalid_key":
    case "invalid_union":
    case "not_multiple_of":
    case "unrecognized_keys":
      break;
  }
  return issue.message;
}

function suggestionFor(issue: z.core.$ZodIssue, value: unknown): string | undefined {
  if (issue.code === "invalid_value" && typeof value === "string") return nearest(value, issue.values.map(String));
  if (issue.code === "invalid_type" && typeof value === "string" && (issue.expected === "number" || issue.expected === "int") && /^\d+$/.test(value))
    return `${value} without quotes`;
  return undefined;
}

function atLeast(origin: string, minimum: number): string {
  if (origin === "array") return `have at least ${count(minimum, "item")}`;
  if (origin === "string") return minimum === 1 ? "not be empty" : `have at least ${count(minimum, "character")}`;
  return `be at least ${minimum}`;
}

function atMost(origin: string, maximum: number): string {
  if (origin === "array") return `have at most ${count(maximum, "item")}`;
  if (origin === "string") return `have at most ${count(maximum, "character")}`;
  return `be at most ${maximum}`;
}

function article(expected: string): string {
  if (expected === "int") return "a whole number";
  if (expected === "array") return "a list";
  if (expected === "object" || expected === "record") return "an object (fields and values)";
  if (expected === "boolean") return "true or false";
  return `a ${expected}`;
}

function typeOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "an object";
  return `a ${typeof value}`;
}

function valueAt(raw: unknown, path: Path): unknown {
  return path.reduce<unknown>((value, part) => {
    if (Array.isArray(value) && typeof part === "number") return value[part];
    return isRecord(value) ? value[String(part)] : undefined;
  }, raw);
}

function schemaAt(schema: StructuralSchema, path: Path): StructuralSchema | undefined {
  return path.reduce<StructuralSchema | undefined>(
    (at, part) => (typeof part === "number" ? at?.items : (fieldOf(at, part) ?? at?.additionalProperties)),
    schema,
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
