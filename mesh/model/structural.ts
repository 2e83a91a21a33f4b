/**
 * The schemas as OpenAPI v3 structural schemas, the subset that a CustomResourceDefinition takes: every node typed,
 * references inlined, no unions, tuples or `not`, patterns that RE2 understands. Closed objects are written without
 * `additionalProperties` (an API server refuses `false` there and prunes what it does not know instead).
 *
 * Source: Kubernetes documentation, "Specifying a structural schema".
 */
import { z } from "zod";
import { ObjectMeta } from "./meta.ts";
import { KINDS, type Kind } from "./resources.ts";

export interface StructuralSchema {
  readonly type: "object" | "array" | "string" | "integer" | "number" | "boolean";
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly unknown[];
  readonly format?: string;
  readonly pattern?: string;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly items?: StructuralSchema;
  readonly properties?: Readonly<Record<string, StructuralSchema>>;
  readonly required?: readonly string[];
  /** A map of values; never together with `properties`. */
  readonly additionalProperties?: StructuralSchema;
}

const KEPT = ["description", "default", "enum", "format", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"] as const;
const TYPES: readonly string[] = ["object", "array", "string", "integer", "number", "boolean"];
/** Keywords that say nothing once the rest is kept: the dialect, and the key schema of a map of strings. */
const DROPPED: readonly string[] = ["$schema", "propertyNames", "id"];

const specs = new Map<Kind, StructuralSchema>();
const statuses = new Map<Kind, StructuralSchema>();

/** Structural schema of a kind's spec, as users write it: fields with a default are optional. */
export function structuralSpec(kind: Kind): StructuralSchema {
  return cached(specs, kind, () => toStructural(KINDS[kind].spec));
}

export function structuralStatus(kind: Kind): StructuralSchema {
  return cached(statuses, kind, () => toStructural(KINDS[kind].status));
}

/** Schema of a whole object: `apiVersion`, `kind`, `metadata` (the API server's own in a CRD), `spec`, `status`. */
export function structuralObject(kind: Kind, metadata: "ours" | "kubernetes" = "ours"): StructuralSchema {
  return {
    type: "object",
    properties: {
      apiVersion: { type: "string", description: `Always ${KINDS[kind].apiVersion}.` },
      kind: { type: "string", description: `Always ${kind}.` },
      metadata: metadata === "ours" ? toStructural(ObjectMeta) : { type: "object" },
      spec: { ...structuralSpec(kind), description: structuralSpec(kind).description ?? "What is wanted." },
      status: { ...structuralStatus(kind), description: "What is; written by the controller." },
    },
    required: ["spec"],
  };
}

/** The schema of a field, by its own name only: `constructor` is no field of every object. */
export function fieldOf(schema: StructuralSchema | undefined, name: string): StructuralSchema | undefined {
  return schema?.properties !== undefined && Object.hasOwn(schema.properties, name) ? schema.properties[name] : undefined;
}

/** @throws {TypeError} with the path of the first part that has no structural form. */
export function toStructural(schema: z.ZodType): StructuralSchema {
  return convert(z.toJSONSchema(schema, { io: "input", target: "openapi-3.0" }), "");
}

/** What keeps a schema from being structural, one line each; empty when an API server would take it. */
export function structuralFaults(schema: StructuralSchema, path = ""): string[] {
  const faults: string[] = [];
  const fault = (text: string): void => void faults.push(`${path || "."}: ${text}`);
  if (!TYPES.includes(schema.type)) fault(`type ${JSON.stringify(schema.type)}`);
  for (const key of Object.keys(schema)) {
    if (!(KEPT as readonly string[]).includes(key) && !["type", "items", "properties", "required", "additionalProperties"].includes(key))
      fault(`keyword ${key}`);
  }
  if (schema.properties !== undefined && schema.additionalProperties !== undefined) fault("properties together with additionalProperties");
  if (schema.type === "object" && schema.properties === undefined && schema.additionalProperties === undefined && path !== ".metadata")
    fault("object without fields");
  if (schema.type === "array" && schema.items === undefined) fault("array without items");
  if (schema.type === "array" && schema.maxItems === undefined) fault("array without maxItems");
  if (schema.pattern !== undefined) faults.push(...patternFaults(schema.pattern).map((text) => `${path}: ${text}`));
  for (const name of schema.required ?? []) if (schema.properties?.[name] === undefined) fault(`required field ${name} is not described`);
  for (const [name, child] of Object.entries(schema.properties ?? {})) faults.push(...structuralFaults(child, `${path}.${name}`));
  if (schema.items !== undefined) faults.push(...structuralFaults(schema.items, `${path}[]`));
  if (schema.additionalProperties !== undefined) faults.push(...structuralFaults(schema.additionalProperties, `${path}{}`));
  return faults;
}

/** RE2 has no lookaround, no back-references, no possessive or atomic groups, and repeats up to 1,000. */
export function patternFaults(pattern: string): string[] {
  const faults: string[] = [];
  if (/\(\?(?:[=!>]|<[=!])/.test(pattern)) faults.push("pattern with lookaround or an atomic group");
  if (/\\[1-9]|\\k</.test(pattern)) faults.push("pattern with a back-reference");
  for (const repeat of pattern.matchAll(/\{(\d+)(?:,(\d*))?\}/g)) {
    if (Number(repeat[2] ?? repeat[1]) > 1000) faults.push(`pattern repeats more than 1000 times: ${repeat[0]}`);
  }
  return faults;
}

function cached(map: Map<Kind, StructuralSchema>, kind: Kind, make: () => StructuralSchema): StructuralSchema {
  const known = map.get(kind);
  if (known !== undefined) return known;
  const made = make();
  map.set(kind, made);
  return made;
}

function convert(json: unknown, path: string): StructuralSchema {
  if (typeof json !== "object" || json === null) throw new TypeError(`${path || "."}: not a schema`);
  const from = json as Record<string, unknown>;
  const type = from["type"];
  if (typeof type !== "string" || !TYPES.includes(type)) throw new TypeError(`${path || "."}: no single type (${Object.keys(from).join(", ")})`);
  const to: Record<string, unknown> = { type };
  for (const [key, value] of Object.entries(from)) {
    if (key === "type" || DROPPED.includes(key)) continue;
    else if (key === "properties") to[key] = mapValues(value as object, (child, name) => convert(child, `${path}.${name}`));
    else if (key === "items") to[key] = convert(value, `${path}[]`);
    else if (key === "additionalProperties") {
      if (value === true) throw new TypeError(`${path || "."}: an open object`);
      if (value !== false) to[key] = convert(value, `${path}{}`);
    } else if (key === "required") to[key] = value;
    else if ((KEPT as readonly string[]).includes(key)) {
      const unbounded = (key === "minimum" || key === "maximum") && Math.abs(value as number) === Number.MAX_SAFE_INTEGER;
      if (!unbounded) to[key] = value;
    } else throw new TypeError(`${path || "."}: ${key} has no structural form`);
  }
  if (type === "integer") to["format"] = "int64";
  return to as unknown as StructuralSchema;
}

function mapValues(record: object, change: (value: unknown, key: string) => StructuralSchema): Record<string, StructuralSchema> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value, key)]));
}
