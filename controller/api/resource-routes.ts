/** Objects: list, get, watch, apply, delete, labels. */
import type { ServerResponse } from "node:http";
import { isDeepStrictEqual } from "node:util";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { IsthmusError } from "../../mesh/errors.ts";
import { LabelPatch } from "../../mesh/model/answers.ts";
import { KINDS, type Kind, type Resource } from "../../mesh/model/resources.ts";
import { Labels, type NodeName } from "../../mesh/model/scalars.ts";
import { parseSelector, selects, type Requirement } from "../../mesh/model/selector.ts";
import { notOfSite } from "../../mesh/model/validate/rules.ts";
import { nearest } from "../../mesh/model/suggest.ts";
import { shortName } from "../../mesh/model/words.ts";
import { commit } from "../reconcile/draft.ts";
import { kindFolder, resourceKey } from "../reconcile/keys.ts";
import { apply, present, remove } from "./apply.ts";
import { guardCrossing } from "./crossing.ts";
import { parseBody } from "./body.ts";
import { requireRole } from "./http.ts";
import { streamLines } from "./lines.ts";
import { actorName, type Services } from "./services.ts";

const ApplyBody = z.strictObject({ documents: z.array(z.unknown()).min(1).max(10_000), dryRun: z.boolean().default(false) });
/** Status changes raise no revision: a watch looks for them this often. */
const STATUS_POLL_MS = 1_000;

interface ListRoute {
  Params: { plural: string };
  Querystring: { labelSelector?: string; watch?: string; since?: string };
}
interface NameRoute {
  Params: { plural: string; name: string };
  Querystring: { dryRun?: string };
}

export function resourceRoutes(app: FastifyInstance, services: Services): void {
  const { mirror, store, audit } = services;

  app.get<ListRoute>("/v1/resources/:plural", (request, reply) => {
    requireRole(request, "viewer");
    const kind = kindOf(request.params.plural);
    const selector = parseSelector(request.query.labelSelector ?? "");
    if (request.query.watch !== undefined && request.query.watch !== "0") {
      reply.hijack();
      watch(services, kind, selector, request.query.since, reply.raw);
      return;
    }
    const items = [...mirror.folder(kindFolder(kind)).keys()].sort().flatMap((name) => present(services, kind, name) ?? []);
    return reply.send({ items: items.filter((item) => selects(selector, labelsOf(services, item))), revision: mirror.revision });
  });

  app.get<NameRoute>("/v1/resources/:plural/:name", (request) => {
    requireRole(request, "viewer");
    return Promise.resolve(found(services, kindOf(request.params.plural), request.params.name));
  });

  app.post("/v1/apply", async (request) => {
    const who = requireRole(request, "operator");
    const { documents, dryRun } = parseBody(ApplyBody, request.body);
    return apply(services, who, documents, dryRun);
  });

  app.delete<NameRoute>("/v1/resources/:plural/:name", async (request) => {
    const who = requireRole(request, "operator");
    const kind = kindOf(request.params.plural);
    found(services, kind, request.params.name);
    return remove(services, who, kind, request.params.name, isSet(request.query.dryRun));
  });

  app.patch<NameRoute>("/v1/resources/:plural/:name/labels", async (request) => {
    const who = requireRole(request, "operator");
    const kind = kindOf(request.params.plural);
    const { name } = request.params;
    const patch = parseBody(LabelPatch, request.body);
    found(services, kind, name);
    const { revision, result } = await commit(store, mirror, (draft) => {
      const before = draft.read(resourceKey(kind, name)) as Resource | undefined;
      if (before === undefined) throw new IsthmusError("NotFound", `there is no ${shortName(kind)} ${name}`);
      const after = patched(before, patch);
      draft.write(resourceKey(kind, name), after);
      guardCrossing(draft, mirror, new Map([[resourceKey(kind, name), after]]));
      return { before, after };
    });
    audit.record({ who: actorName(who), action: "label", kind, name, ...result, revision });
    await services.planner.settled(revision);
    return found(services, kind, name);
  });
}

/** @throws {IsthmusError} `UnknownKind`, `NotFound` with the nearest name */
export function kindOf(plural: string): Kind {
  const kind = (Object.keys(KINDS) as Kind[]).find((key) => KINDS[key].plural === plural);
  if (kind !== undefined) return kind;
  const near = nearest(
    plural,
    Object.values(KINDS).map((row) => row.plural),
  );
  throw new IsthmusError("UnknownKind", `there is no kind ${JSON.stringify(plural)}`, near === undefined ? {} : { remedy: `Did you mean ${near}?` });
}

function found(services: Services, kind: Kind, name: string): Resource {
  const object = present(services, kind, name);
  if (object !== undefined) return object;
  const near = nearest(name, [...services.mirror.folder(kindFolder(kind)).keys()]);
  throw new IsthmusError("NotFound", `there is no ${shortName(kind)} ${name}`, near === undefined ? {} : { remedy: `Did you mean ${near}?` });
}

/** What a selector of a list looks at: of a node all labels that intents select by, else the object's own. */
function labelsOf(services: Services, object: Resource): Labels {
  const own = object.metadata.labels ?? {};
  if (object.kind !== "MeshNode") return own;
  return { ...own, ...services.hub.output?.nodeStatus.get(object.metadata.name as unknown as NodeName)?.labels };
}

/** Labels of a node are part of its spec: selectors of intents look at them. */
function patched(before: Resource, { set, remove: gone, overwrite }: LabelPatch): Resource {
  const isNode = before.kind === "MeshNode";
  const faults = isNode ? notOfSite(set, ["spec", "labels"]) : [];
  if (faults.length > 0)
    throw new IsthmusError("Invalid", `MeshNode ${before.metadata.name}: a label cannot be set`, { faults, remedy: "Leave it out." });
  const labels = (isNode ? (before as Resource<"MeshNode">).spec.labels : before.metadata.labels) ?? {};
  const clash = Object.entries(set).find(([key, value]) => labels[key] !== undefined && labels[key] !== value);
  if (clash !== undefined && !overwrite) {
    throw new IsthmusError("Conflict", `${before.kind} ${before.metadata.name} has label ${clash[0]}=${labels[clash[0]]} already`, {
      remedy: "Use --overwrite to change it.",
    });
  }
  const next = Object.fromEntries(Object.entries({ ...labels, ...set }).filter(([key]) => !gone.includes(key)));
  if (!isNode) return { ...before, metadata: { ...before.metadata, labels: next } };
  if (isDeepStrictEqual(next, labels)) return before;
  const node = before as Resource<"MeshNode">;
  return { ...node, metadata: { ...node.metadata, generation: (node.metadata.generation ?? 1) + 1 }, spec: { ...node.spec, labels: next } };
}

function watch(services: Services, kind: Kind, selector: readonly Requirement[], since: string | undefined, raw: ServerResponse): void {
  const { mirror } = services;
  const shown = new Map<string, string>();
  const emit = (write: (value: unknown) => void, name: string): void => {
    const object = present(services, kind, name);
    const wanted = object !== undefined && selects(selector, labelsOf(services, object));
    const before = shown.get(name);
    if (!wanted) {
      if (before === undefined) return;
      shown.delete(name);
      return write({ type: "DELETED", object: object ?? JSON.parse(before), revision: mirror.revision });
    }
    const text = JSON.stringify(object);
    if (text === before) return;
    shown.set(name, text);
    write({ type: before === undefined ? "ADDED" : "MODIFIED", object, revision: mirror.revision });
  };
  streamLines(raw, (write) => {
    const folder = kindFolder(kind);
    const all = (): string[] => [...new Set([...mirror.folder(folder).keys(), ...shown.keys()])].sort();
    // With `since` the reader has a list of that revision: only what changed after it is news.
    const from = since === undefined ? -1 : Number(since);
    for (const name of all()) {
      const object = present(services, kind, name);
      if (object !== undefined && Number(object.metadata.resourceVersion) <= from && selects(selector, labelsOf(services, object)))
        shown.set(name, JSON.stringify(object));
      else emit(write, name);
    }
    const unsubscribe = mirror.subscribe((changes) => {
      for (const change of changes) if (change.key.startsWith(folder)) emit(write, change.key.slice(folder.length));
    });
    const poll = setInterval(() => {
      for (const name of all()) emit(write, name);
    }, STATUS_POLL_MS);
    return () => {
      unsubscribe();
      clearInterval(poll);
    };
  });
}

function isSet(flag: string | undefined): boolean {
  return flag !== undefined && flag !== "0" && flag !== "false";
}
