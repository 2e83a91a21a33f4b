/** Label selectors as kubectl writes them: `k=v`, `k==v`, `k!=v`, `k`, `!k`, `k in (a,b)`, `k notin (a,b)`, joined by commas. */
import { IsthmusError } from "../errors.ts";
import type { Labels } from "./scalars.ts";

export interface Requirement {
  readonly key: string;
  readonly operator: "in" | "notin" | "exists" | "absent";
  readonly values: readonly string[];
}

const KEY = "[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?";
const FORMS: readonly { readonly form: RegExp; readonly make: (key: string, rest: string) => Requirement }[] = [
  { form: new RegExp(`^(${KEY})\\s*!=\\s*([A-Za-z0-9._-]*)$`), make: (key, value) => ({ key, operator: "notin", values: [value] }) },
  { form: new RegExp(`^(${KEY})\\s*==?\\s*([A-Za-z0-9._-]*)$`), make: (key, value) => ({ key, operator: "in", values: [value] }) },
  { form: new RegExp(`^(${KEY})\\s+in\\s*\\(([^()]*)\\)$`), make: (key, list) => ({ key, operator: "in", values: split(list) }) },
  { form: new RegExp(`^(${KEY})\\s+notin\\s*\\(([^()]*)\\)$`), make: (key, list) => ({ key, operator: "notin", values: split(list) }) },
  { form: new RegExp(`^!\\s*(${KEY})$`), make: (key) => ({ key, operator: "absent", values: [] }) },
  { form: new RegExp(`^(${KEY})$`), make: (key) => ({ key, operator: "exists", values: [] }) },
];

/** @throws {IsthmusError} BadRequest, naming the part that is not understood. */
export function parseSelector(text: string): Requirement[] {
  const parts = text.split(/,(?![^()]*\))/).map((part) => part.trim());
  return parts
    .filter((part) => part !== "")
    .map((part) => {
      for (const { form, make } of FORMS) {
        const found = form.exec(part);
        if (found !== null) return make(found[1] ?? "", found[2] ?? "");
      }
      throw new IsthmusError("BadRequest", `label selector ${JSON.stringify(text)}: ${JSON.stringify(part)} is not understood`, {
        remedy: "Write k=v, k!=v, k, !k, 'k in (a,b)' or 'k notin (a,b)', joined by commas.",
      });
    });
}

/** Whether labels meet every requirement. As in Kubernetes, `k!=v` also holds where there is no `k`. */
export function selects(requirements: readonly Requirement[], labels: Labels): boolean {
  return requirements.every(({ key, operator, values }) => OPERATORS[operator](values, labels[key]));
}

type Meets = (values: readonly string[], value: string | undefined) => boolean;

const OPERATORS: { readonly [Operator in Requirement["operator"]]: Meets } = {
  in: (values, value) => value !== undefined && values.includes(value),
  notin: (values, value) => value === undefined || !values.includes(value),
  exists: (_, value) => value !== undefined,
  absent: (_, value) => value === undefined,
};

function split(list: string): string[] {
  return list.split(",").map((value) => value.trim());
}
