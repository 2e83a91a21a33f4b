/**
 * From anything to a resource, or to every fault in it. Used by the command line on files and by the controller on
 * request bodies, so that both refuse the same things with the same words.
 */
import type { z } from "zod";
import type { FieldFault } from "../errors.ts";
import { IsthmusError } from "../errors.ts";
import { toFaults, unknownFields } from "./faults.ts";
import { ObjectMeta } from "./meta.ts";
import { KINDS, type Kind, type Resource } from "./resources.ts";
import { structuralSpec, toStructural } from "./structural.ts";
import { nearest } from "./suggest.ts";
import { validateSpec } from "./validate/index.ts";
import { exactlyOne } from "./validate/rules.ts";

/** Where a document came from; faults carry it. `index` counts documents from 0, `item` those of a `List` among them. */
export interface Where {
  readonly file?: string;
  readonly index: number;
  readonly item?: number;
}

export interface ParseOptions {
  /** Milliseconds since 1970; what is past is only refused when the time is given. */
  readonly now?: number;
  /** Also kinds that a user may not apply (MeshNode, JoinToken). */
  readonly anyKind?: boolean;
}

export interface ParsedDocuments {
  readonly resources: readonly Resource[];
  /** Of all documents, in their order; empty when all are right. */
  readonly faults: readonly FieldFault[];
}

/** Written by Kubernetes into every object that it hands out; means nothing here, so that `kubectl get -o yaml` can be applied. */
const KUBERNETES_METADATA: readonly string[] = ["managedFields", "selfLink", "finalizers", "ownerReferences"];
const TOP: readonly string[] = ["apiVersion", "kind", "metadata", "spec", "status"];

const HOW_MADE: Partial<Record<Kind, string>> = {
  MeshNode: "a MeshNode is made by `isthmus join`; change it with label, drain, uncordon or delete",
  JoinToken: "a token is made by `isthmus create token`, which shows its secret once",
};

/**
 * One document. Returns the resource with defaults applied and addresses in canonical form, or every fault found. The
 * document's `status` is left out: it is never taken from a user.
 */
export function parseDocument(raw: unknown, where: Where, options: ParseOptions = {}): Resource | FieldFault[] {
  const parsed = parse(raw, options);
  if (!Array.isArray(parsed)) return parsed;
  return parsed.map((fault) => ({ ...fault, ...placeOf(where) }));
}

/** All documents, `List` objects opened; the same name twice in one set is a fault. */
export function parseDocuments(raws: readonly unknown[], options: ParseOptions & { readonly file?: string } = {}): ParsedDocuments {
  return parsePlaced(
    raws.map((raw, index) => ({ raw, where: { index, ...(options.file === undefined ? {} : { file: options.file }) } })),
    options,
  );
}

/** As `parseDocuments`, with a place for each document. */
export function parsePlaced(documents: readonly { readonly raw: unknown; readonly where: Where }[], options: ParseOptions = {}): ParsedDocuments {
  const resources: Resource[] = [];
  const faults: FieldFault[] = [];
  const seen = new Map<string, Where>();
  for (const { raw, where } of documents.flatMap(openList)) {
    const parsed = parseDocument(raw, where, options);
    if (Array.isArray(parsed)) {
      faults.push(...parsed);
      continue;
    }
    const key = `${parsed.kind}/${parsed.metadata.name}`;
    const first = seen.get(key);
    if (first === undefined) resources.push(parsed);
    else
      faults.push({
        path: "metadata.name",
        message: `${parsed.kind} ${parsed.metadata.name} already stands in ${placeText(first)}; keep one of them`,
        value: parsed.metadata.name,
        ...placeOf(where),
      });
    seen.set(key, where);
  }
  return { resources, faults };
}

/** A spec alone (`POST /v1/tokens`, `create site`): defaults applied, cross-field rules checked. */
export function parseSpec<K extends Kind>(kind: K, raw: unknown, options: ParseOptions = {}): Resource<K>["spec"] | FieldFault[] {
  return checkSpec(kind, raw, options) as Resource<K>["spec"] | FieldFault[];
}

/** The error that tells all faults of a set of documents. */
export function invalidDocuments(faults: readonly FieldFault[], total: number): IsthmusError {
  const bad = new Set(faults.map((fault) => `${fault.file ?? ""}#${fault.document ?? 0}#${fault.item ?? 0}`)).size;
  const what = total === 1 ? "the document is not valid" : `${bad} of ${total} documents ${bad === 1 ? "is" : "are"} not valid`;
  return new IsthmusError("Invalid", `${what}; nothing was changed`, { faults, remedy: "Correct what is named above, then try again." });
}

/** A place as a fault carries it. */
export function placeOf({ file, index, item }: Where): Pick<FieldFault, "document" | "file" | "item"> {
  return { document: index, ...(file === undefined ? {} : { file }), ...(item === undefined ? {} : { item }) };
}

/** `FILE, document 3`, `document 3` or `document 3, item 2`, counted from 1 as people do. */
export function placeText({ file, index, item }: Where): string {
  return `${file === undefined ? "" : `${file}, `}document ${index + 1}${item === undefined ? "" : `, item ${item + 1}`}`;
}

/** The registry's row for a kind's name, plural or alias, in any case. */
export function kindNamed(name: string): Kind | undefined {
  const wanted = name.toLowerCase();
  return (Object.keys(KINDS) as Kind[]).find(
    (kind) => kind.toLowerCase() === wanted || KINDS[kind].plural === wanted || (KINDS[kind].aliases as readonly string[]).includes(wanted),
  );
}

/** The kind that was probably meant. */
export function nearestKind(name: string): Kind | undefined {
  const names = (Object.keys(KINDS) as Kind[]).flatMap((kind) => [kind, KINDS[kind].plural, ...KINDS[kind].aliases]);
  const near = nearest(name, names);
  return near === undefined ? undefined : kindNamed(near);
}

function parse(raw: unknown, options: ParseOptions): Resource | FieldFault[] {
  if (!isRecord(raw)) {
    return [
      { path: "", message: "a document must be an object with apiVersion, kind, metadata and spec", ...(raw === undefined ? {} : { value: raw }) },
    ];
  }
  const kind = checkKind(raw, options);
  if (typeof kind !== "string") return kind;
  const faults = [...checkApiVersion(raw, kind), ...unknownFields(raw, TOP, [])];
  const metadata = checkMetadata(raw["metadata"]);
  const spec = checkSpec(kind, raw["spec"], options);
  if (Array.isArray(metadata)) faults.push(...metadata);
  if (Array.isArray(spec)) faults.push(...spec);
  if (faults.length > 0 || Array.isArray(metadata)) return faults;
  return { apiVersion: KINDS[kind].apiVersion, kind, metadata, spec } as Resource;
}

function checkKind(raw: Record<string, unknown>, options: ParseOptions): Kind | FieldFault[] {
  const name = raw["kind"];
  const kinds = Object.keys(KINDS) as Kind[];
  const allowed = kinds.filter((kind) => options.anyKind === true || KINDS[kind].appliable);
  if (typeof name !== "string")
    return [{ path: "kind", message: `is required: one of ${allowed.join(", ")}`, ...(name === undefined ? {} : { value: name }) }];
  const kind = kinds.find((known) => known === name);
  if (kind === undefined) {
    const suggestion = nearestKind(name);
    return [
      {
        path: "kind",
        message: `unknown kind; the kinds are ${allowed.join(", ")}`,
        value: name,
        ...(suggestion === undefined ? {} : { suggestion }),
      },
    ];
  }
  if (!allowed.includes(kind)) return [{ path: "kind", message: HOW_MADE[kind] ?? "this kind cannot be applied", value: name }];
  return kind;
}

function checkApiVersion(raw: Record<string, unknown>, kind: Kind): FieldFault[] {
  const version = raw["apiVersion"];
  const right = KINDS[kind].apiVersion;
  if (version === right) return [];
  if (version === undefined) return [{ path: "apiVersion", message: `is required: ${right}`, suggestion: right }];
  return [{ path: "apiVersion", message: `kind ${kind} has apiVersion ${right}`, value: version, suggestion: right }];
}

function checkMetadata(raw: unknown): ObjectMeta | FieldFault[] {
  const own = isRecord(raw) ? Object.fromEntries(Object.entries(raw).filter(([key]) => !KUBERNETES_METADATA.includes(key))) : raw;
  return check(ObjectMeta, own, "metadata", () => toStructural(ObjectMeta)) as ObjectMeta | FieldFault[];
}

function checkSpec(kind: Kind, raw: unknown, options: ParseOptions): unknown {
  const spec = check(KINDS[kind].spec, raw, "spec", () => structuralSpec(kind));
  // What can be said of other fields already is said at once: nobody wants to mend a file in turns.
  if (Array.isArray(spec)) return [...(spec as FieldFault[]), ...gatewayShapes(kind, raw, spec as FieldFault[])];
  const faults = validateSpec(kind, spec as Resource["spec"], { now: options.now });
  return faults.length > 0 ? faults : spec;
}

/** What each gateway of an intent is named by. */
const GATEWAY_NAMES: Partial<Record<Kind, readonly string[]>> = { MeshRoute: ["address", "node"], EgressGateway: ["nodeSelector", "site"] };

/** Of gateways that have no fault yet: a misspelt name is not missing besides. */
function gatewayShapes(kind: Kind, raw: unknown, known: readonly FieldFault[]): FieldFault[] {
  const names = GATEWAY_NAMES[kind];
  const gateways = isRecord(raw) ? raw["gateways"] : undefined;
  if (names === undefined || !Array.isArray(gateways)) return [];
  return gateways.flatMap((gateway: unknown, i) => {
    const isKnown = known.some(({ path }) => path.startsWith(`spec.gateways[${i}]`));
    return isRecord(gateway) && !isKnown ? exactlyOne(gateway, names, ["spec", "gateways", i]) : [];
  });
}

function check(schema: z.ZodType, raw: unknown, at: string, described: () => ReturnType<typeof structuralSpec>): unknown {
  const parsed = schema.safeParse(raw);
  if (parsed.success) return parsed.data;
  return toFaults(parsed.error.issues, raw, described(), [at]);
}

/** The items of a `List` (what `get -o yaml` prints), each in the place of the list; anything else is itself. */
export function openList(document: { readonly raw: unknown; readonly where: Where }): { readonly raw: unknown; readonly where: Where }[] {
  const { raw, where } = document;
  if (!isRecord(raw) || raw["kind"] !== "List" || !Array.isArray(raw["items"])) return [document];
  return raw["items"].map((item: unknown, at) => ({ raw: item, where: { ...where, item: at } }));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
