/** Apply and delete: all or nothing, nothing written when nothing changes. */
import { isDeepStrictEqual } from "node:util";
import { createCompiler } from "../../mesh/compile/plan.ts";
import { IsthmusError, type FieldFault } from "../../mesh/errors.ts";
import type { ApplyResult } from "../../mesh/model/answers.ts";
import { invalidDocuments, parseDocuments } from "../../mesh/model/parse.ts";
import type { Kind, Resource } from "../../mesh/model/resources.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import { count, shortName } from "../../mesh/model/words.ts";
import { recovering, removeNode } from "../join/decide.ts";
import type { SecretRecord } from "../join/records.ts";
import type { Principal } from "../pki/principal.ts";
import { commit, preview, type Draft } from "../reconcile/draft.ts";
import { FOLDER, NETWORK, kindFolder, resourceKey } from "../reconcile/keys.ts";
import { compileInput } from "../reconcile/planner.ts";
import { guardCrossing } from "./crossing.ts";
import { guardIntent, protectedRanges, publicRanges, sharedSubnets } from "./guard.ts";
import { actorName, type Services } from "./services.ts";
import { effectWarnings } from "./warnings.ts";

export interface Applied {
  readonly resource: Resource;
  readonly before: Resource | undefined;
  readonly action: ApplyResult["action"];
  readonly warnings: readonly string[];
}

export interface ApplyAnswer {
  readonly revision: number;
  readonly results: readonly ApplyResult[];
}

export async function apply(services: Services, who: Principal, documents: readonly unknown[], dryRun: boolean): Promise<ApplyAnswer> {
  const { store, mirror, audit, now } = services;
  const resources = parseAll(services, documents);
  const work = (draft: Draft): Applied[] => {
    const applied = resources.map(({ resource, warnings }) => ({ ...applyOne(draft, services, resource, now()), warnings }));
    guardCrossing(draft, mirror, byKey(applied.map(({ resource }) => resource)));
    return applied;
  };
  const { revision, result } = dryRun ? { revision: mirror.revision, result: preview(mirror, work).result } : await commit(store, mirror, work);
  if (!dryRun) {
    for (const { resource, before, action } of result) {
      if (action === "unchanged") continue;
      audit.record({
        who: actorName(who),
        action: action === "created" ? "create" : "update",
        kind: resource.kind,
        name: resource.metadata.name,
        ...(before === undefined ? {} : { before }),
        after: resource,
        revision,
      });
    }
    await services.planner.settled(revision);
  }
  const wanted = result.map(({ resource }) => resource);
  const output = dryRun ? createCompiler()(compileInput(mirror, byKey(wanted))) : services.hub.output;
  const without = await effectWarnings(services, output, wanted, !dryRun);
  return {
    revision,
    results: result.map(({ resource, action, warnings: carved }, i) => ({
      kind: resource.kind,
      name: resource.metadata.name,
      action,
      object: dryRun ? resource : present(services, resource.kind, resource.metadata.name),
      ...warningsOf([...carved, ...(without[i] ?? [])]),
    })),
  };
}

function byKey(resources: readonly Resource[]): Map<string, Resource> {
  return new Map(resources.map((resource) => [resourceKey(resource.kind, resource.metadata.name), resource]));
}

function warningsOf(warnings: string[]): Pick<ApplyResult, "warnings"> {
  return warnings.length === 0 ? {} : { warnings };
}

/** Parses and guards every document. @throws {IsthmusError} `Invalid` with the faults of all of them */
export function parseAll(services: Services, documents: readonly unknown[]): { resource: Resource; warnings: readonly string[] }[] {
  const { resources, faults } = parseDocuments(documents, { now: services.now() });
  if (faults.length > 0) throw invalidDocuments(faults, documents.length);
  const input = compileInput(services.mirror);
  const ranges = protectedRanges(
    input.network,
    input.controllers,
    input.nodes,
    (node) => services.hub.output?.nodeStatus.get(node as NodeName)?.provenEndpoints ?? [],
  );
  const sites = [...input.sites, ...resources.filter((one): one is Resource<"Site"> => one.kind === "Site")];
  const refused: FieldFault[] = [];
  const passed = resources.map((resource, document) => {
    const verdict = guardIntent(resource, ranges);
    refused.push(...[...verdict.faults, ...otherNetwork(resource)].map((fault) => ({ ...fault, document })));
    const shared = resource.kind === "Site" ? sharedSubnets(resource as Resource<"Site">, sites) : [];
    const owned = resource.kind === "MeshNetwork" ? publicRanges((resource as Resource<"MeshNetwork">).spec) : [];
    return { resource, warnings: [...verdict.warnings, ...shared, ...owned] };
  });
  if (refused.length > 0) throw invalidDocuments(refused, documents.length);
  return passed;
}

function otherNetwork({ kind, metadata: { name } }: Resource): FieldFault[] {
  if (kind !== "MeshNetwork" || name === NETWORK) return [];
  return [{ path: "metadata.name", message: `there is one network, ${JSON.stringify(NETWORK)}`, value: name }];
}

export function applyOne(draft: Draft, services: Services, wanted: Resource, now: number): Omit<Applied, "warnings"> {
  const key = resourceKey(wanted.kind, wanted.metadata.name);
  const stored = draft.read(key) as Resource | undefined;
  checkVersion(draft, key, wanted);
  if (wanted.kind === "MeshNetwork") checkNetwork(services, wanted as Resource<"MeshNetwork">, stored as Resource<"MeshNetwork"> | undefined);
  const spec = wanted.kind === "MeshNetwork" ? keepV6(wanted as Resource<"MeshNetwork">, stored as Resource<"MeshNetwork"> | undefined) : wanted.spec;
  const { labels, annotations } = wanted.metadata;
  if (stored === undefined) {
    const metadata = {
      name: wanted.metadata.name,
      ...(labels === undefined ? {} : { labels }),
      ...(annotations === undefined ? {} : { annotations }),
    };
    const created = {
      ...wanted,
      spec,
      metadata: { ...metadata, uid: services.newUid(), generation: 1, creationTimestamp: new Date(now).toISOString(), origin: "api" },
    } as Resource;
    draft.write(key, created);
    return { resource: created, before: undefined, action: "created" };
  }
  const specChanged = !isDeepStrictEqual(stored.spec, spec);
  // Labels and annotations that the document does not name stay: others may have set them.
  const nextLabels = labels === undefined ? stored.metadata.labels : { ...stored.metadata.labels, ...labels };
  const nextAnnotations = annotations === undefined ? stored.metadata.annotations : { ...stored.metadata.annotations, ...annotations };
  const metaChanged =
    !isDeepStrictEqual(stored.metadata.labels ?? {}, nextLabels ?? {}) ||
    !isDeepStrictEqual(stored.metadata.annotations ?? {}, nextAnnotations ?? {});
  if (!specChanged && !metaChanged) return { resource: stored, before: stored, action: "unchanged" };
  const after = {
    ...stored,
    spec,
    metadata: {
      ...stored.metadata,
      ...(nextLabels === undefined ? {} : { labels: nextLabels }),
      ...(nextAnnotations === undefined ? {} : { annotations: nextAnnotations }),
      generation: (stored.metadata.generation ?? 1) + (specChanged ? 1 : 0),
    },
  } as Resource;
  draft.write(key, after);
  return { resource: after, before: stored, action: "configured" };
}

function checkVersion(draft: Draft, key: string, wanted: Resource): void {
  const given = wanted.metadata.resourceVersion;
  if (given === undefined) return;
  const found = draft.revisionOf(key);
  if (found === undefined || String(found) === given) return;
  throw new IsthmusError(
    "Conflict",
    `${wanted.kind} ${wanted.metadata.name} was changed since: it is at resourceVersion ${found === 0 ? "none (deleted)" : found}, the document has ${given}`,
    {
      remedy: "Get the object again, repeat your change, and apply.",
    },
  );
}

function keepV6(wanted: Resource<"MeshNetwork">, stored: Resource<"MeshNetwork"> | undefined): Resource<"MeshNetwork">["spec"] {
  const v6 = wanted.spec.overlay.v6 ?? stored?.spec.overlay.v6;
  return v6 === undefined ? wanted.spec : { ...wanted.spec, overlay: { ...wanted.spec.overlay, v6 } };
}

function checkNetwork(services: Services, wanted: Resource<"MeshNetwork">, stored: Resource<"MeshNetwork"> | undefined): void {
  if (stored === undefined || services.mirror.folder(kindFolder("MeshNode")).size === 0) return;
  const spec = keepV6(wanted, stored);
  const moved = !isDeepStrictEqual(spec.overlay, stored.spec.overlay)
    ? "spec.overlay"
    : !isDeepStrictEqual(spec.links, stored.spec.links)
      ? "spec.links"
      : undefined;
  if (moved === undefined) return;
  throw new IsthmusError("Invalid", `MeshNetwork ${NETWORK}: ${moved} cannot change while nodes are joined: every node's addresses derive from it`, {
    faults: [{ path: moved, message: "cannot change while nodes are joined" }],
    remedy: "Delete the nodes first, or make a new network.",
  });
}

export async function remove(
  services: Services,
  who: Principal,
  kind: Kind,
  name: string,
  dryRun: boolean,
): Promise<{ revision: number; object: Resource; warnings?: string[] }> {
  const { store, mirror, audit, agents, events, now } = services;
  const warnings = kind === "Site" ? warningsOf(siteWarnings(services, name)) : {};
  const work = (draft: Draft): Resource => {
    const removed = removeOne(draft, services, kind, name, now());
    // A node that leaves by itself is gone, whatever is said to it.
    if (who.kind !== "node") guardCrossing(draft, mirror, new Map([[resourceKey(kind, name), undefined]]));
    return removed;
  };
  if (dryRun) return { revision: mirror.revision, object: preview(mirror, work).result, ...warnings };
  const { revision, result: object } = await commit(store, mirror, work);
  audit.record({ who: actorName(who), action: "delete", kind, name, before: object, revision });
  if (kind === "MeshNode") {
    agents.remove(name as NodeName);
    events.record(undefined, {
      type: "Normal",
      reason: "NodeRemoved",
      message: `${name} was removed from the network by ${actorName(who)}`,
      about: `node/${name}`,
    });
  }
  await services.planner.settled(revision);
  return { revision, object, ...warnings };
}

/** Tokens outlive their site: it may be applied again. Until then nobody joins with them. */
function siteWarnings({ mirror, status }: Services, site: string): string[] {
  const left = [...mirror.folder(kindFolder("JoinToken")).values()]
    .map(({ value }) => status.withStatus(value as Resource<"JoinToken">))
    .filter((token) => token.spec.site === site && token.status?.state === "Active")
    .map(({ metadata }) => metadata.name as string)
    .sort();
  if (left.length === 0) return [];
  const named = left.slice(0, 5).join(", ") + (left.length > 5 ? " …" : "");
  return [
    `${count(left.length, "active token")} ${left.length === 1 ? "is" : "are"} for it: ${named}. Nobody joins with ${left.length === 1 ? "it" : "them"} until the site is applied again`,
  ];
}

export function removeOne(draft: Draft, services: Services, kind: Kind, name: string, now: number): Resource {
  const key = resourceKey(kind, name);
  const stored = draft.read(key) as Resource | undefined;
  if (stored === undefined) throw new IsthmusError("NotFound", `there is no ${shortName(kind)} ${name}`);
  switch (kind) {
    case "MeshNetwork":
      throw new IsthmusError("Invalid", "the network itself cannot be deleted", { remedy: "Delete its nodes and stop the controller instead." });
    case "MeshNode":
      if (services.recovery.active) throw recovering();
      return removeNode(draft, name as NodeName, now);
    case "Site":
      checkSiteUnused(services, name);
      draft.remove(key);
      return stored;
    case "JoinToken":
      for (const [hash, item] of services.mirror.folder(FOLDER.secrets))
        if ((item.value as SecretRecord).token === name) draft.remove(FOLDER.secrets + hash);
      draft.remove(key);
      return stored;
    case "MeshRoute":
    case "StaticRoute":
    case "EgressGateway":
    case "VirtualIP":
    case "MeshCluster":
      draft.remove(key);
      return stored;
  }
}

function checkSiteUnused({ mirror }: Services, name: string): void {
  const users = [...mirror.folder(kindFolder("MeshNode")).values()]
    .map((item) => item.value as Resource<"MeshNode">)
    .filter((node) => node.spec.site === name);
  if (users.length === 0) return;
  const named = users.slice(0, 5).map((node) => node.metadata.name);
  throw new IsthmusError("Conflict", `site ${name} still has ${count(users.length, "node")}: ${named.join(", ")}${users.length > 5 ? " …" : ""}`, {
    remedy: "Delete the nodes first.",
  });
}

/** The object as GET shows it: with resourceVersion and status. */
export function present(services: Services, kind: Kind, name: string): Resource | undefined {
  const item = services.mirror.get(resourceKey(kind, name));
  if (item === undefined) return undefined;
  const resource = item.value as Resource;
  return services.status.withStatus({ ...resource, metadata: { ...resource.metadata, resourceVersion: String(item.revision) } });
}
