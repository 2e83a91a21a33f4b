/** `-o json|yaml|name`: what programs read. */
import { KINDS } from "../../mesh/model/resources.ts";
import type { AnyObject } from "./objects.ts";

/** One object as itself, several as a `List` that `apply` takes again. */
export async function serialise(value: unknown, format: "json" | "yaml"): Promise<string> {
  if (format === "json") return `${JSON.stringify(value, undefined, 2)}\n`;
  const { stringify } = await import("yaml");
  return stringify(value, { lineWidth: 0, aliasDuplicateObjects: false });
}

export function asList(objects: readonly AnyObject[]): unknown {
  return { apiVersion: "v1", kind: "List", items: objects };
}

/** `meshnode/do1`, as other commands take it. */
export function nameOf(object: { readonly kind: string; readonly metadata: { readonly name: string } }): string {
  return `${object.kind.toLowerCase()}/${object.metadata.name}`;
}

/** `meshroute.isthmus.dev/web`, as kubectl says what it did. */
export function fullName(kind: string, name: string): string {
  const row = KINDS[kind as keyof typeof KINDS] as (typeof KINDS)[keyof typeof KINDS] | undefined;
  return row === undefined ? `${kind.toLowerCase()}/${name}` : `${kind.toLowerCase()}.${row.apiVersion.split("/")[0]}/${name}`;
}
