/** Documentation of fields from the schemas, as `kubectl explain` prints it. */
import { IsthmusError } from "../errors.ts";
import { KIND_SUMMARIES } from "./summaries.ts";
import { kindNamed, nearestKind } from "./parse.ts";
import { KINDS, type Kind } from "./resources.ts";
import { fieldOf, structuralObject, type StructuralSchema } from "./structural.ts";
import { nearest } from "./suggest.ts";

export interface ExplainOptions {
  /** All fields below, not only the next level. */
  readonly recursive?: boolean;
}

/** `egressgateway.spec.failback` → text. @throws {IsthmusError} UnknownKind, NotFound with the nearest name */
export function explainSchema(path: string, options: ExplainOptions = {}): string {
  const [head = "", ...names] = path.split(".").filter((part) => part !== "");
  if (head === "") return kindList();
  const kind = kindNamed(head);
  if (kind === undefined) {
    const near = nearestKind(head);
    throw new IsthmusError(
      "UnknownKind",
      `there is no kind ${JSON.stringify(head)}${near === undefined ? "" : `; did you mean ${near.toLowerCase()}?`}`,
      {
        remedy: `The kinds are ${Object.keys(KINDS)
          .map((each) => each.toLowerCase())
          .join(", ")}.`,
      },
    );
  }
  const { schema, required } = descend(kind, names);
  const field = names.length === 0 ? [] : [`FIELD:    ${names.at(-1)} <${typeText(schema)}>${required ? " -required-" : ""}`, ""];
  const about = names.length === 0 ? KIND_SUMMARIES[kind] : (schema.description ?? "(no description)");
  const facts = factsOf(schema);
  const inner = fieldsOf(schema);
  return [
    `KIND:     ${kind}`,
    `VERSION:  ${KINDS[kind].apiVersion}`,
    "",
    ...field,
    "DESCRIPTION:",
    ...wrap(about, 4),
    ...(facts.length === 0 ? [] : ["", ...facts.map((fact) => `    ${fact}`)]),
    ...(inner === undefined ? [] : ["", "FIELDS:", ...fieldLines(inner, 2, options.recursive === true)]),
    "",
  ].join("\n");
}

/** A type as people read it: `string`, `[]object`, `map[string]string`. */
export function typeText(schema: StructuralSchema): string {
  if (schema.type === "array") return `[]${schema.items === undefined ? "object" : typeText(schema.items)}`;
  if (schema.additionalProperties !== undefined) return `map[string]${typeText(schema.additionalProperties)}`;
  return schema.type;
}

/** Default, allowed values and bounds, one sentence each. */
export function factsOf(schema: StructuralSchema): string[] {
  const from = schema.type === "array" && schema.items?.type !== "object" ? schema.items : undefined;
  return [
    ...(schema.default === undefined || typeof schema.default === "object"
      ? []
      : [`Default: ${JSON.stringify(schema.default).replace(/^"|"$/g, "")}`]),
    ...((schema.enum ?? from?.enum) === undefined ? [] : [`One of: ${(schema.enum ?? from?.enum ?? []).join(", ")}`]),
    ...bounds(schema.minimum, schema.maximum, ""),
    ...bounds(schema.minItems, schema.maxItems, " items"),
  ];
}

function bounds(least: number | undefined, most: number | undefined, unit: string): string[] {
  if (least === undefined && most === undefined) return [];
  if (least === undefined) return [`At most ${most}${unit}`];
  return most === undefined ? [`At least ${least}${unit}`] : [`${least} to ${most}${unit}`];
}

function descend(kind: Kind, names: readonly string[]): { schema: StructuralSchema; required: boolean } {
  let schema = structuralObject(kind);
  let required = false;
  let path = kind.toLowerCase();
  for (const name of names) {
    const fields = fieldsOf(schema);
    const next = fieldOf(fields, name);
    if (fields === undefined || next === undefined) {
      const known = Object.keys(fields?.properties ?? {});
      const near = nearest(name, known);
      const meant = near === undefined ? "" : `; did you mean ${JSON.stringify(near)}?`;
      throw new IsthmusError("NotFound", `${path} has no field ${JSON.stringify(name)}${meant}`, {
        remedy: known.length === 0 ? `${path} has no fields.` : `Its fields are ${known.join(", ")}.`,
      });
    }
    required = fields.required?.includes(name) === true;
    schema = next;
    path += `.${name}`;
  }
  return { schema, required };
}

/** The object whose fields a path goes on to: itself, or the items of a list. */
function fieldsOf(schema: StructuralSchema): StructuralSchema | undefined {
  if (schema.properties !== undefined) return schema;
  return schema.items === undefined ? undefined : fieldsOf(schema.items);
}

function fieldLines(schema: StructuralSchema, indent: number, recursive: boolean): string[] {
  const pad = " ".repeat(indent);
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const head = `${pad}${name}\t<${typeText(field)}>${schema.required?.includes(name) === true ? " -required-" : ""}`;
    const inner = fieldsOf(field);
    if (recursive) return [head, ...(inner === undefined ? [] : fieldLines(inner, indent + 2, true))];
    const facts = factsOf(field);
    return [head, ...wrap(field.description ?? "(no description)", indent + 2), ...(facts.length === 0 ? [] : [`${pad}  ${facts.join(". ")}.`]), ""];
  });
}

function kindList(): string {
  return (Object.keys(KINDS) as Kind[]).map((kind) => `${kind.padEnd(16)}${KIND_SUMMARIES[kind]}\n`).join("");
}

const WIDTH = 80;

function wrap(text: string, indent: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line !== "" && line.length + word.length + 1 > WIDTH - indent) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line].map((each) => " ".repeat(indent) + each);
}
