/** Reading objects that came over the wire: they were valid where they were made, so a missing part is only left out. */
import type { Kind } from "../../mesh/model/resources.ts";

export interface AnyObject {
  readonly apiVersion: string;
  readonly kind: Kind;
  readonly metadata: {
    readonly name: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly creationTimestamp?: string;
    readonly generation?: number;
  };
  readonly spec: Readonly<Record<string, unknown>>;
  readonly status?: Readonly<Record<string, unknown>>;
}

export interface ConditionView {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message?: string;
  readonly lastTransitionTime?: string;
}

/** The value at a path of field names, or undefined. */
export function at(object: unknown, ...path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>(
    (value, key) => (typeof value === "object" && value !== null ? (value as Record<string | number, unknown>)[key] : undefined),
    object,
  );
}

export function text(object: unknown, ...path: readonly (string | number)[]): string {
  const value = at(object, ...path);
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean" ? String(value) : "";
}

export function list(object: unknown, ...path: readonly (string | number)[]): readonly unknown[] {
  const value = at(object, ...path);
  return Array.isArray(value) ? value : [];
}

export function strings(object: unknown, ...path: readonly (string | number)[]): string[] {
  return list(object, ...path).map(String);
}

export function conditions(object: AnyObject): readonly ConditionView[] {
  return list(object, "status", "conditions") as readonly ConditionView[];
}

export function condition(object: AnyObject, type: string): ConditionView | undefined {
  return conditions(object).find((each) => each.type === type);
}

/** Labels as selectors see them, as far as the object carries them. */
export function labelsOf(object: AnyObject): Readonly<Record<string, string>> {
  return { ...object.metadata.labels, ...(at(object, "spec", "labels") as Record<string, string> | undefined) };
}

/** `a,b,c +7 more` */
export function few(items: readonly string[], shown = 3): string {
  return items.length <= shown ? items.join(",") : `${items.slice(0, shown).join(",")} +${items.length - shown} more`;
}

/** Prefixes as people write them: a host without its /32 or /128. */
export function prefixes(items: readonly string[], shown = 3): string {
  return few(
    items.map((cidr) => cidr.replace(/^([0-9.]+)\/32$/, "$1").replace(/^([0-9a-f:]+)\/128$/, "$1")),
    shown,
  );
}
