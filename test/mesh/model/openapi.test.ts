import { describe, expect, it } from "vitest";
import { openApiDocument } from "../../../mesh/model/openapi.ts";
import { KINDS } from "../../../mesh/model/resources.ts";

type Tree = { readonly [key: string]: Tree } & { readonly $ref?: string };
const document = openApiDocument("1.2.3") as unknown as Tree;

function* refs(tree: unknown): Generator<string> {
  if (typeof tree !== "object" || tree === null) return;
  for (const [key, value] of Object.entries(tree)) {
    if (key === "$ref" && typeof value === "string") yield value;
    else yield* refs(value);
  }
}

describe("the OpenAPI document", () => {
  it("describes every kind and its calls", () => {
    for (const [kind, { plural }] of Object.entries(KINDS)) {
      expect(document["components"]?.["schemas"]).toHaveProperty(kind);
      expect(Object.keys(document["paths"]?.[`/v1/resources/${plural}`] ?? {})).toEqual(["get"]);
      expect(Object.keys(document["paths"]?.[`/v1/resources/${plural}/{name}`] ?? {}).sort()).toEqual(["delete", "get"]);
    }
  });

  it("refers only to schemas that it has", () => {
    const known = Object.keys(document["components"]?.["schemas"] ?? {}).map((name) => `#/components/schemas/${name}`);
    const used = [...new Set(refs(document))];
    expect(used.length).toBeGreaterThan(5);
    expect(used.filter((ref) => !known.includes(ref))).toEqual([]);
  });

  it("gives every operation its own id, and says which need no certificate", () => {
    const operations = Object.values(document["paths"] ?? {}).flatMap((path) => Object.values(path)) as unknown as {
      operationId: string;
      security?: unknown[];
    }[];
    expect(new Set(operations.map((operation) => operation.operationId)).size).toBe(operations.length);
    expect(
      operations
        .filter((operation) => operation.security?.length === 0)
        .map((operation) => operation.operationId)
        .sort(),
    ).toEqual(["healthz", "join", "openapi", "readyz", "renew"]);
  });

  it("is the same at every call", () => {
    expect(JSON.stringify(openApiDocument("1.2.3"))).toBe(JSON.stringify(document));
  });
});
