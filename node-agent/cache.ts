/**
 * The last good plan on disk: what the agent boots from before, and without, any contact with a controller (I1). One file:
 * a line with format and SHA-256, then JSON. A file that does not check is set aside, never used and never overwritten.
 */
import { createHash } from "node:crypto";
import { renameSync } from "node:fs";
import { z } from "zod";
import { createView } from "../mesh/compile/views.ts";
import { Position } from "../mesh/model/wire.ts";
import { readIfThere } from "./files.ts";
import { type Holdings, NOTHING_HELD } from "./holdings.ts";
import { writeAtomic } from "./whole-file.ts";

const HEAD = "isthmus-plan 1 ";

const Content = z.object({
  seen: Position.optional(),
  views: z.record(z.string(), z.object({ r: z.int(), p: z.record(z.string(), z.unknown()) })),
});

export type CacheRead =
  | { readonly state: "read"; readonly holdings: Holdings }
  | { readonly state: "absent" }
  /** The file was set aside under that name. */
  | { readonly state: "damaged"; readonly aside: string; readonly why: string };

/** @param now ms since 1970, for the name of a damaged file */
export function readCache(path: string, now: number): CacheRead {
  const text = readIfThere(path);
  if (text === undefined) return { state: "absent" };
  const parsed = parseCache(text);
  if (typeof parsed !== "string") return { state: "read", holdings: parsed };
  const aside = `${path}.damaged-${new Date(now).toISOString().replaceAll(":", "").slice(0, 17)}`;
  renameSync(path, aside);
  return { state: "damaged", aside, why: parsed };
}

/** @throws DiskFull */
export function writeCache(path: string, holdings: Holdings): void {
  writeAtomic(path, formatCache(holdings));
}

/** Text of the file. */
export function formatCache(holdings: Holdings): string {
  const views = Object.fromEntries([...holdings.views].map(([id, held]) => [id, { r: held.r, p: Object.fromEntries(held.view.data) }]));
  const json = JSON.stringify({ ...(holdings.seen === undefined ? {} : { seen: holdings.seen }), views });
  return `${HEAD}${checksum(json)}\n${json}`;
}

/** The holdings, or what is wrong with the text. */
export function parseCache(text: string): Holdings | string {
  const line = text.indexOf("\n");
  if (!text.startsWith(HEAD) || line < 0) return "it does not start as a plan does";
  const json = text.slice(line + 1);
  if (text.slice(HEAD.length, line) !== checksum(json)) return "its checksum does not match";
  const parsed = Content.safeParse(JSON.parse(json));
  if (!parsed.success) return "its content has another form";
  const views = new Map(Object.entries(parsed.data.views).map(([id, { r, p }]) => [id, { r, view: createView(Object.entries(p)) }]));
  return { ...NOTHING_HELD, seen: parsed.data.seen, views };
}

function checksum(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
