/** `get -w`: a row for every change, until it is stopped. */
import { IsthmusError } from "../../mesh/errors.ts";
import type { Kind } from "../../mesh/model/resources.ts";
import { watchObjects, type WatchEvent } from "../api.ts";
import type { Client } from "../client.ts";
import type { Io } from "../io.ts";
import type { Target } from "../kinds.ts";
import type { AnyObject } from "../render/objects.ts";
import { serialise, nameOf } from "../render/output.ts";
import { cellPainter } from "../render/style.ts";
import { renderTable } from "../render/table.ts";
import { columnContext, columns, type Found, type GetFlags } from "./get.ts";

/** A watch that ends or a controller that goes away is tried again this often. */
const RECONNECT_MS = 500;

/** Follows every kind of the targets from the revision at which it was listed. */
export async function follow(
  io: Io,
  client: Client,
  targets: readonly Target[],
  found: readonly Found[],
  selector: string | undefined,
  flags: GetFlags,
): Promise<void> {
  const names = new Map<Kind, Set<string> | undefined>();
  for (const { kind, name } of targets) names.set(kind, name === undefined ? undefined : (names.get(kind) ?? new Set()).add(name));
  const context = await columnContext(io, client, targets);
  await Promise.all(
    [...names].map(async ([kind, wanted]) => {
      const listed = found.find((each) => each.kind === kind);
      const print = printer(io, kind, { ...context, prefix: names.size > 1 ? `${kind.toLowerCase()}/` : undefined }, listed, flags);
      let since = listed?.revision ?? 0;
      for await (const event of endless(io, () => watchObjects(client, kind, since, selector, io.signal))) {
        since = event.revision ?? since;
        if (wanted === undefined || wanted.has(event.object.metadata.name)) await print(event);
      }
    }),
  );
}

/** The same watch again and again. That the controller is away is said once each time. */
async function* endless(io: Io, begin: () => AsyncGenerator<WatchEvent>): AsyncGenerator<WatchEvent> {
  let away = false;
  while (!io.signal.aborted) {
    try {
      for await (const event of begin()) {
        away = false;
        yield event;
      }
    } catch (error) {
      if (io.signal.aborted) return;
      if (!(error instanceof IsthmusError) || error.retry !== "transient") throw error;
      if (!away) io.err(`${error.message}; trying again\n`);
      away = true;
    }
    await pause(RECONNECT_MS, io.signal);
  }
}

type Context = Awaited<ReturnType<typeof columnContext>>;

/** Prints one change, unless nothing of it shows; the header comes with the first row where the list was empty. */
function printer(io: Io, kind: Kind, context: Context, listed: Found | undefined, flags: GetFlags): (event: WatchEvent) => Promise<void> {
  const wide = flags.output === "wide";
  const headers = flags.headers !== false;
  let shownHeader = (listed?.objects.length ?? 0) > 0;
  let widths = renderTable(columns(kind, context, flags), listed?.objects ?? [], { headers, wide }).widths;
  // Ages go on by themselves: two looks are compared as of one time.
  const look = (object: AnyObject): string => renderTable(columns(kind, context, flags), [object], { headers: false, wide }).text;
  const looks = new Map((listed?.objects ?? []).map((object) => [object.metadata.name, look(object)]));
  return async ({ type, object }) => {
    if (flags.output === "json") return io.out(`${JSON.stringify(object)}\n`);
    if (flags.output === "yaml") return io.out(`---\n${await serialise(object, "yaml")}`);
    if (flags.output === "name") return io.out(`${nameOf(object)}\n`);
    const { name } = object.metadata;
    const before = looks.get(name);
    const now = look(object);
    if (type === "DELETED") looks.delete(name);
    else looks.set(name, now);
    if (type !== "DELETED" && before === now) return;
    const row = type === "DELETED" ? { ...object, metadata: { ...object.metadata, name: `${name} (deleted)` } } : object;
    const table = renderTable(columns(kind, { ...context, now: io.now() }, flags), [row], {
      headers: headers && !shownHeader,
      wide,
      widths,
      paint: cellPainter(io),
    });
    shownHeader = true;
    widths = table.widths;
    return io.out(table.text);
  };
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) return done();
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
}
