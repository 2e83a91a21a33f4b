/** `events`, and the events about one object for `describe`. */
import { IsthmusError } from "../../mesh/errors.ts";
import type { EventRecord } from "../../mesh/model/answers.ts";
import type { Kind } from "../../mesh/model/resources.ts";
import { getObject } from "../api.ts";
import type { GlobalFlags, Output } from "../cli.ts";
import { apiPath, type Client } from "../client.ts";
import { connect } from "../connect.ts";
import type { Io } from "../io.ts";
import { targetsOf } from "../kinds.ts";
import { renderEvents } from "../render/describe.ts";
import { list } from "../render/objects.ts";
import { serialise } from "../render/output.ts";
import { cellPainter } from "../render/style.ts";
import { spanMs } from "../span.ts";

export interface EventFlags extends GlobalFlags {
  readonly for?: string;
  readonly since?: string;
  readonly watch?: boolean;
  readonly headers?: boolean;
  readonly output?: Output;
}

export async function showEvents(io: Io, flags: EventFlags): Promise<number> {
  const target = flags.for === undefined ? undefined : targetOf(flags.for);
  const about = target && aboutIds(target.kind, target.name);
  const since = flags.since === undefined ? undefined : io.now() - spanMs(flags.since, "--since");
  const client = await connect(io, flags);
  const events =
    about === undefined
      ? await fetchEvents(client, undefined, since)
      : (await Promise.all(about.map((each) => fetchEvents(client, each, since)))).flat().sort((a, b) => a.at - b.at);
  // What is deleted has events yet; of what never was there are none, and never will be.
  if (target !== undefined && events.length === 0 && since === undefined) await getObject(client, target.kind, target.name);
  const { output } = flags;
  if (output === "json" || output === "yaml") io.out(await serialise({ items: events }, output));
  else if (events.length === 0 && flags.watch !== true) io.err("No events found.\n");
  else if (events.length > 0)
    io.out(renderEvents(events, io.now(), { headers: flags.headers !== false, wide: output === "wide", paint: cellPainter(io) }));
  if (flags.watch !== true) return 0;
  const path = apiPath(["events"], { about: about?.[0], since: (events.at(-1)?.at ?? io.now()) + 1, watch: 1 });
  for await (const event of client.lines(path, io.signal)) {
    if (output === "json") io.out(`${JSON.stringify(event)}\n`);
    else io.out(renderEvents([event as EventRecord], io.now(), { headers: false, wide: false, paint: cellPainter(io) }));
  }
  return 0;
}

export async function fetchEvents(client: Client, about: string | undefined, since?: number): Promise<EventRecord[]> {
  const answer = await client.call("GET", apiPath(["events"], { about, since }));
  const items = Array.isArray(answer) ? answer : list(answer, "items");
  return [...(items as readonly EventRecord[])].sort((a, b) => a.at - b.at);
}

/** Under which names events speak of an object: a route's path or LAN route, a site and its subnets. */
export function aboutIds(kind: Kind, name: string): string[] {
  const heads: Record<Kind, readonly string[]> = {
    MeshNode: ["node", "peer"],
    Site: ["site", "subnet"],
    MeshRoute: ["route", "lanroute"],
    StaticRoute: ["staticroute"],
    EgressGateway: ["egress"],
    JoinToken: ["token"],
    VirtualIP: ["vip"],
    MeshCluster: ["cluster"],
    MeshNetwork: ["network"],
  };
  return heads[kind].map((head) => `${head}/${name}`);
}

function targetOf(word: string): { kind: Kind; name: string } {
  const [target] = targetsOf([word]);
  if (target?.name === undefined)
    throw new IsthmusError("BadRequest", `--for ${JSON.stringify(word)} is not KIND/NAME`, { remedy: "Write for example --for node/do1." });
  return { kind: target.kind, name: target.name };
}
