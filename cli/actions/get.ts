/** `get`. */
import { IsthmusError } from "../../mesh/errors.ts";
import { effectiveLabels } from "../../mesh/compile/context.ts";
import type { Kind, Resource } from "../../mesh/model/resources.ts";
import type { ObjectName } from "../../mesh/model/scalars.ts";
import { getObject, listObjects, selectorQuery } from "../api.ts";
import type { GlobalFlags, Output } from "../cli.ts";
import type { Client } from "../client.ts";
import { connect } from "../connect.ts";
import type { Io } from "../io.ts";
import { type Target, targetsOf } from "../kinds.ts";
import { type ColumnContext, columnsOf } from "../render/columns.ts";
import { type AnyObject, labelsOf, text } from "../render/objects.ts";
import { asList, nameOf, serialise } from "../render/output.ts";
import { cellPainter } from "../render/style.ts";
import { type Column, renderTable } from "../render/table.ts";

export interface GetFlags extends GlobalFlags {
  readonly output?: Output;
  readonly selector?: string;
  readonly watch?: boolean;
  readonly headers?: boolean;
  readonly showLabels?: boolean;
}

/** Objects of one kind as they were found, at a revision of the store. */
export interface Found {
  readonly kind: Kind;
  readonly objects: readonly AnyObject[];
  readonly revision: number;
}

export async function getObjects(io: Io, words: readonly string[], flags: GetFlags): Promise<number> {
  if (words.length === 1 && /^(events?|ev)$/i.test(words[0] ?? "")) {
    const { showEvents } = await import("./events.ts");
    return await showEvents(io, flags);
  }
  const targets = targetsOf(words);
  const selector = selectorQuery(flags.selector);
  if (selector !== undefined && targets.some((target) => target.name !== undefined))
    throw new IsthmusError("BadRequest", "a name and a selector exclude each other", { remedy: "Leave the name or -l out." });
  const client = await connect(io, flags);
  const { found, problems } = await fetchAll(client, targets, selector);
  const single = targets.length === 1 && targets[0]?.name !== undefined;
  await print(io, client, found, single, words, flags);
  for (const problem of problems) io.err(`error: ${problem.message}\n`);
  if (flags.watch === true && problems.length === 0) await (await import("./watch.ts")).follow(io, client, targets, found, selector, flags);
  return problems[0]?.exit ?? 0;
}

/** Everything that is there; a name that is missing does not hide the others. */
async function fetchAll(
  client: Client,
  targets: readonly Target[],
  selector: string | undefined,
): Promise<{ found: Found[]; problems: IsthmusError[] }> {
  const problems: IsthmusError[] = [];
  const found = new Map<Kind, { objects: AnyObject[]; revision: number }>();
  const add = (kind: Kind, objects: readonly AnyObject[], revision: number): void => {
    const before = found.get(kind);
    found.set(kind, { objects: [...(before?.objects ?? []), ...objects], revision: Math.max(before?.revision ?? 0, revision) });
  };
  for (const { kind, name } of targets) {
    if (name === undefined) {
      const { items, revision } = await listObjects(client, kind, selector);
      add(kind, items, revision);
      continue;
    }
    try {
      const object = await getObject(client, kind, name);
      add(kind, [object], Number(text(object, "metadata", "resourceVersion")) || 0);
    } catch (error) {
      if (!(error instanceof IsthmusError) || error.code !== "NotFound" || targets.length === 1) throw error;
      problems.push(error);
    }
  }
  return { found: [...found].map(([kind, { objects, revision }]) => ({ kind, objects, revision })), problems };
}

async function print(io: Io, client: Client, found: readonly Found[], single: boolean, words: readonly string[], flags: GetFlags): Promise<void> {
  const objects = found.flatMap((each) => each.objects);
  const { output } = flags;
  if (output === "json" || output === "yaml") {
    io.out(await serialise(single && objects[0] !== undefined ? objects[0] : asList(objects), output));
    return;
  }
  if (output === "name") {
    io.out(objects.map((object) => `${nameOf(object)}\n`).join(""));
    return;
  }
  const filled = found.filter((each) => each.objects.length > 0);
  if (filled.length === 0 && flags.watch !== true) io.err(nothingText(words));
  const context = await columnContext(io, client, filled);
  const tables = filled.map(
    ({ kind, objects: rows }) =>
      renderTable(columns(kind, { ...context, prefix: filled.length > 1 ? `${kind.toLowerCase()}/` : undefined }, flags), rows, {
        headers: flags.headers !== false,
        wide: output === "wide",
        paint: cellPainter(io),
      }).text,
  );
  if (tables.length > 0) io.out(tables.join("\n"));
}

function nothingText(words: readonly string[]): string {
  const all = words.length === 1 && words[0]?.toLowerCase() === "all";
  return all ? "Nothing found; `all` leaves out the network, tokens and events.\n" : `No ${words.join(" ")} found.\n`;
}

/** Columns of a kind, with the labels where they are wanted. */
export function columns(kind: Kind, context: ColumnContext, flags: GetFlags): readonly Column<AnyObject>[] {
  const own = columnsOf(kind, context);
  if (flags.showLabels !== true) return own;
  return [
    ...own,
    {
      header: "LABELS",
      value: (object) =>
        Object.entries(kind === "MeshNode" ? labelsOfNode(object, context) : labelsOf(object))
          .map(([key, value]) => `${key}=${value}`)
          .join(","),
    },
  ];
}

/** What selectors look at: the labels of a node's site, too. */
function labelsOfNode(node: AnyObject, { sites }: ColumnContext): Readonly<Record<string, string>> {
  const site = text(node, "spec", "site");
  return effectiveLabels(sites.get(site) as Resource<"Site"> | undefined, site as ObjectName, labelsOf(node));
}

/** A node's location and labels come from its site: all sites are asked for where nodes are shown. */
export async function columnContext(io: Io, client: Client, shown: readonly { readonly kind: Kind }[]): Promise<ColumnContext> {
  const sites = shown.some((each) => each.kind === "MeshNode") ? (await listObjects(client, "Site")).items : [];
  return { now: io.now(), sites: new Map(sites.map((site) => [site.metadata.name, site])) };
}
