/**
 * Views → plan, as the agent does it. Values come from the controller or from a file, so each entry is checked; an entry
 * that is unknown or wrong costs only the resource that it belongs to, never the whole plan (DESIGN §6, skew).
 */
import type { z } from "zod";
import {
  ClientPlan,
  DestinationPlan,
  LanRoutePlan,
  NetworkPlan,
  PathKind,
  PathPlan,
  PeerPlan,
  SelfPlan,
  ServePlan,
  SitePlan,
  type PathId,
  type Plan,
  type ViewData,
} from "../model/plan.ts";
import { Cidr, NodeName } from "../model/scalars.ts";

/** An entry that has no effect. `key` is empty when the view as a whole is meant. */
export interface PlanFault {
  readonly view: string;
  readonly key: string;
  readonly message: string;
}

export interface ParsedPlan {
  /** Absent while the views lack `network` or `self`: nothing can be decided then, and nothing may be torn down. */
  readonly plan: Plan | undefined;
  /** Sorted by view and key. */
  readonly faults: readonly PlanFault[];
}

type Views = ReadonlyMap<string, ViewData>;

/**
 * The plan that an agent's views make. Parsing again costs what changed: an entry whose value is the same object, and a
 * view whose entries are all the same, are not looked at again.
 */
export function parsePlan(views: Views): ParsedPlan {
  const faults: PlanFault[] = [];
  let mesh: ParsedMesh | undefined;
  let node: ParsedNode | undefined;
  const paths = new Map<PathId, PathPlan & { destinations: readonly Cidr[] }>();
  const lanRoutes = new Map<string, LanRoutePlan & { destinations: readonly Cidr[] }>();
  for (const [id, data] of [...views].sort(byFirst)) {
    const parsed = parseView(id, data);
    faults.push(...parsed.faults);
    switch (parsed.kind) {
      case "mesh":
        mesh = parsed;
        break;
      case "node":
        node = parsed;
        break;
      case "path":
        if (parsed.plan !== undefined) paths.set(id as PathId, parsed.plan);
        break;
      case "lan":
        if (parsed.plan !== undefined) lanRoutes.set(id, parsed.plan);
        break;
      case "unknown":
        break;
      default:
        parsed satisfies never;
    }
  }
  if (mesh?.network === undefined || node?.self === undefined) return { plan: undefined, faults };
  const { network, peers, sites } = mesh;
  const { self, serves, clients } = node;
  return { plan: { network, self, peers, sites, paths, lanRoutes, serves, clients }, faults };
}

interface ParsedMesh {
  readonly kind: "mesh";
  readonly network: NetworkPlan | undefined;
  readonly peers: ReadonlyMap<NodeName, PeerPlan>;
  readonly sites: ReadonlyMap<string, SitePlan>;
  readonly faults: readonly PlanFault[];
}
interface ParsedNode {
  readonly kind: "node";
  readonly self: SelfPlan | undefined;
  readonly serves: ReadonlyMap<PathId, ServePlan>;
  readonly clients: ReadonlyMap<NodeName, ClientPlan>;
  readonly faults: readonly PlanFault[];
}
interface ParsedRoute<K extends "path" | "lan", T> {
  readonly kind: K;
  readonly plan: (T & { readonly destinations: readonly Cidr[] }) | undefined;
  readonly faults: readonly PlanFault[];
}
type ParsedView =
  | ParsedMesh
  | ParsedNode
  | ParsedRoute<"path", PathPlan>
  | ParsedRoute<"lan", LanRoutePlan>
  | { readonly kind: "unknown"; readonly faults: readonly PlanFault[] };

/** The last result for a view, with the entries that it was made from: a map that was changed in place is noticed. */
const parsedViews = new WeakMap<ViewData, { id: string; entries: readonly (readonly [string, unknown])[]; parsed: ParsedView }>();

function parseView(id: string, data: ViewData): ParsedView {
  const last = parsedViews.get(data);
  if (last !== undefined && last.id === id && sameEntries(last.entries, data)) return last.parsed;
  const parsed = parseFresh(id, data);
  parsedViews.set(data, { id, entries: [...data], parsed });
  return parsed;
}

function parseFresh(id: string, data: ViewData): ParsedView {
  const slash = id.indexOf("/");
  const head = slash < 0 ? id : id.slice(0, slash);
  const entries = [...data].sort(byFirst);
  if (id === "mesh") return parseMesh(id, entries);
  if (head === "node") return parseNode(id, entries);
  if (PathKind.safeParse(head).success) return { kind: "path", ...parseRoute(id, "path", PathPlan, entries) };
  if (head === "lanroute" || head === "staticroute") return { kind: "lan", ...parseRoute(id, "lan", LanRoutePlan, entries) };
  return {
    kind: "unknown",
    faults: [{ view: id, key: "", message: `this agent does not know resources of kind ${JSON.stringify(head)}; upgrade it` }],
  };
}

type Entries = readonly (readonly [string, unknown])[];

function parseMesh(view: string, entries: Entries): ParsedMesh {
  const faults: PlanFault[] = [];
  let network: NetworkPlan | undefined;
  const peers = new Map<NodeName, PeerPlan>();
  const sites = new Map<string, SitePlan>();
  for (const [key, value] of entries) {
    const [head, name] = splitKey(key);
    if (key === "network") network = check(NetworkPlan, view, key, value, faults);
    else if (head === "peer" && NodeName.safeParse(name).success) keep(peers, name as NodeName, check(PeerPlan, view, key, value, faults));
    else if (head === "site" && name !== "") keep(sites, name, check(SitePlan, view, key, value, faults));
    else faults.push(unknownKey(view, key));
  }
  return { kind: "mesh", network, peers, sites, faults };
}

function parseNode(view: string, entries: Entries): ParsedNode {
  const faults: PlanFault[] = [];
  let self: SelfPlan | undefined;
  const serves = new Map<PathId, ServePlan>();
  const clients = new Map<NodeName, ClientPlan>();
  for (const [key, value] of entries) {
    const [head, name] = splitKey(key);
    if (key === "self") self = check(SelfPlan, view, key, value, faults);
    else if (head === "serve" && isPathId(name)) keep(serves, name, check(ServePlan, view, key, value, faults));
    else if (head === "client" && NodeName.safeParse(name).success) keep(clients, name as NodeName, check(ClientPlan, view, key, value, faults));
    else faults.push(unknownKey(view, key));
  }
  return { kind: "node", self, serves, clients, faults };
}

/** A path or LAN route: one head entry, and destinations. Without a good head the whole resource is left out. */
function parseRoute<T extends object>(view: string, headKey: string, schema: z.ZodType<T>, entries: Entries): Omit<ParsedRoute<"path", T>, "kind"> {
  const faults: PlanFault[] = [];
  let head: T | undefined;
  const destinations: Cidr[] = [];
  for (const [key, value] of entries) {
    if (key === headKey) head = check(schema, view, key, value, faults);
    else if (!key.startsWith("d/")) faults.push(unknownKey(view, key));
    else if (!DestinationPlan.safeParse(value).success)
      faults.push({ view, key, message: "this agent does not know this form of a destination; upgrade it" });
    else {
      const cidr = destinationOf(key);
      if (cidr !== undefined) destinations.push(cidr);
      else faults.push({ view, key, message: "not a canonical prefix" });
    }
  }
  if (head !== undefined) return { plan: { ...head, destinations }, faults };
  if (!entries.some(([key]) => key === headKey)) faults.push({ view, key: headKey, message: "is missing" });
  return { plan: undefined, faults };
}

/** Parsed values by the raw value and the schema: a raw object stands for itself as long as it lives. */
const parsedValues = new WeakMap<z.ZodType, WeakMap<object, { readonly value: unknown } | { readonly message: string }>>();

function check<T>(schema: z.ZodType<T>, view: string, key: string, raw: unknown, faults: PlanFault[]): T | undefined {
  const result = typeof raw === "object" && raw !== null ? cachedParse(schema, raw) : parse(schema, raw);
  if ("message" in result) {
    faults.push({ view, key, message: result.message });
    return undefined;
  }
  return result.value as T;
}

function cachedParse(schema: z.ZodType, raw: object): ReturnType<typeof parse> {
  const values = parsedValues.get(schema) ?? new WeakMap<object, ReturnType<typeof parse>>();
  parsedValues.set(schema, values);
  const known = values.get(raw);
  if (known !== undefined) return known;
  const result = parse(schema, raw);
  values.set(raw, result);
  return result;
}

function parse(schema: z.ZodType, raw: unknown): { readonly value: unknown } | { readonly message: string } {
  const result = schema.safeParse(raw);
  if (result.success) return { value: result.data };
  return {
    message: result.error.issues.map((issue) => (issue.path.length === 0 ? issue.message : `${issue.path.join(".")}: ${issue.message}`)).join("; "),
  };
}

/**
 * Prefixes of keys that were found good; forgotten when there are too many. Every plan has the same string for one destination: what
 * is remembered of 2,000 of them is then found by identity, which a text cut out of another one anew is not.
 */
const goodCidrs = new Map<string, Cidr>();
const MAX_GOOD_CIDRS = 200_000;

function destinationOf(key: string): Cidr | undefined {
  const known = goodCidrs.get(key);
  if (known !== undefined) return known;
  const result = Cidr.safeParse(key.slice(2));
  if (!result.success || result.data !== key.slice(2)) return undefined;
  if (goodCidrs.size >= MAX_GOOD_CIDRS) goodCidrs.clear();
  goodCidrs.set(key, result.data);
  return result.data;
}

function isPathId(text: string): text is PathId {
  const [head, name] = splitKey(text);
  return name !== "" && PathKind.safeParse(head).success;
}

function splitKey(key: string): [head: string, rest: string] {
  const slash = key.indexOf("/");
  return slash < 0 ? [key, ""] : [key.slice(0, slash), key.slice(slash + 1)];
}

function keep<K, V>(map: Map<K, V>, key: K, value: V | undefined): void {
  if (value !== undefined) map.set(key, value);
}

function unknownKey(view: string, key: string): PlanFault {
  return { view, key, message: "this agent does not know this entry; upgrade it" };
}

function sameEntries(entries: Entries, data: ViewData): boolean {
  if (entries.length !== data.size) return false;
  let i = 0;
  for (const [key, value] of data) {
    const entry = entries[i++];
    if (entry?.[0] !== key || entry[1] !== value) return false;
  }
  return true;
}

function byFirst(a: readonly [string, unknown], b: readonly [string, unknown]): number {
  return a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0;
}
