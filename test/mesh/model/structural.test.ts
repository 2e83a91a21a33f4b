import { describe, expect, it } from "vitest";
import { z } from "zod";
import { KINDS, type Kind } from "../../../mesh/model/resources.ts";
import {
  patternFaults,
  structuralFaults,
  structuralObject,
  structuralSpec,
  structuralStatus,
  type StructuralSchema,
  toStructural,
} from "../../../mesh/model/structural.ts";

const kinds = Object.keys(KINDS) as Kind[];

function fields(schema: StructuralSchema, path = ""): [string, StructuralSchema][] {
  const inner = Object.entries(schema.properties ?? {}).flatMap(([name, child]) => fields(child, `${path}.${name}`));
  const items = schema.items === undefined ? [] : fields(schema.items, `${path}[]`);
  return [[path, schema], ...inner, ...items];
}

describe.each(kinds)("%s", (kind) => {
  it("has a structural schema for spec, status and the whole object", () => {
    expect(structuralFaults(structuralSpec(kind), "spec")).toEqual([]);
    expect(structuralFaults(structuralStatus(kind), "status")).toEqual([]);
    expect(structuralFaults(structuralObject(kind))).toEqual([]);
    expect(structuralFaults(structuralObject(kind, "kubernetes"))).toEqual([]);
  });

  it("bounds every string that a user writes", () => {
    const unbounded = fields(structuralSpec(kind)).filter(
      ([, schema]) => schema.type === "string" && schema.maxLength === undefined && schema.enum === undefined,
    );
    expect(unbounded.map(([path]) => path)).toEqual([]);
  });

  it("keeps every default of the zod schema", () => {
    const written = JSON.stringify(z.toJSONSchema(KINDS[kind].spec, { io: "input" })).match(/"default":/g)?.length ?? 0;
    expect(fields(structuralSpec(kind)).filter(([, schema]) => "default" in schema)).toHaveLength(written);
  });

  it("keeps every description of the zod schema", () => {
    const written = JSON.stringify(z.toJSONSchema(KINDS[kind].spec, { io: "input" })).match(/"description":/g)?.length ?? 0;
    expect(fields(structuralSpec(kind)).filter(([, schema]) => schema.description !== undefined)).toHaveLength(written);
  });
});

describe("what has no structural form", () => {
  it.each([
    ["a union", z.strictObject({ a: z.union([z.string(), z.number()]) })],
    ["a discriminated union", z.discriminatedUnion("t", [z.strictObject({ t: z.literal("a") }), z.strictObject({ t: z.literal("b") })])],
    ["a tuple", z.strictObject({ a: z.tuple([z.string(), z.number()]) })],
    ["null", z.strictObject({ a: z.string().nullable() })],
    ["anything", z.strictObject({ a: z.unknown() })],
    ["an open object", z.looseObject({ a: z.string() })],
  ])("%s is refused by the converter or by the walk", (_, schema) => {
    let found: readonly string[];
    try {
      found = structuralFaults(toStructural(schema));
    } catch (thrown) {
      found = [String(thrown)];
    }
    expect(found).not.toEqual([]);
  });

  it.each(["(?=a)", "(?!a)", "(?<=a)b", "(?<!a)b", "(?>a)", "(a)\\1", "a{2000}"])("pattern %s is not RE2's", (pattern) => {
    expect(patternFaults(pattern)).not.toEqual([]);
  });

  it("an array without a bound is told with its path", () => {
    expect(structuralFaults(toStructural(z.strictObject({ a: z.array(z.string().max(1)) })))).toEqual([".a: array without maxItems"]);
  });
});

describe("every field", () => {
  it.each(kinds)("of %s has a description, since `explain --schema` and the reference print it", (kind) => {
    const all = [...fields(structuralSpec(kind), "spec"), ...fields(structuralStatus(kind), "status")];
    expect(
      all.filter(([path, schema]) => path.includes(".") && !path.endsWith("[]") && schema.description === undefined).map(([path]) => path),
    ).toEqual([]);
  });
});
