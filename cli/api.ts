/** The API's calls as functions; every answer is looked at just enough to be printed. */
import { IsthmusError } from "../mesh/errors.ts";
import { KINDS, type Kind } from "../mesh/model/resources.ts";
import { parseSelector } from "../mesh/model/selector.ts";
import { apiPath, type Client } from "./client.ts";
import type { Target } from "./kinds.ts";
import { at, list, type AnyObject } from "./render/objects.ts";

export interface Listing {
  readonly items: readonly AnyObject[];
  readonly revision: number;
}

export interface WatchEvent {
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly object: AnyObject;
  readonly revision?: number;
}

/** A selector that was checked here, in the form that the API takes; undefined for none. */
export function selectorQuery(selector: string | undefined): string | undefined {
  if (selector === undefined || selector.trim() === "") return undefined;
  parseSelector(selector);
  return selector.trim();
}

export async function listObjects(client: Client, kind: Kind, selector?: string): Promise<Listing> {
  const answer = await client.call("GET", apiPath(["resources", KINDS[kind].plural], { labelSelector: selector }));
  const items = list(answer, "items") as readonly AnyObject[];
  return { items: [...items].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1)), revision: Number(at(answer, "revision") ?? 0) };
}

export async function getObject(client: Client, kind: Kind, name: string): Promise<AnyObject> {
  const answer = await client.call("GET", apiPath(["resources", KINDS[kind].plural, name]));
  if (at(answer, "metadata", "name") !== undefined) return answer as AnyObject;
  const wrapped = at(answer, "object");
  if (at(wrapped, "metadata", "name") !== undefined) return wrapped as AnyObject;
  throw new IsthmusError("Internal", `${client.where} answered with something that is not a ${kind}`);
}

export async function* watchObjects(
  client: Client,
  kind: Kind,
  since: number,
  selector: string | undefined,
  signal: AbortSignal,
): AsyncGenerator<WatchEvent> {
  const path = apiPath(["resources", KINDS[kind].plural], { watch: 1, since, labelSelector: selector });
  for await (const line of client.lines(path, signal)) {
    if (at(line, "object", "metadata", "name") !== undefined) yield line as WatchEvent;
  }
}

/** Targets with their names filled in: a kind without a name becomes all of its objects (that the selector takes). */
export async function expandTargets(
  client: Client,
  targets: readonly Target[],
  selector: string | undefined,
): Promise<{ kind: Kind; name: string }[]> {
  const found = await Promise.all(
    targets.map(async ({ kind, name }) => {
      if (name !== undefined) return [{ kind, name }];
      return (await listObjects(client, kind, selector)).items.map((object) => ({ kind, name: object.metadata.name }));
    }),
  );
  return found.flat();
}
