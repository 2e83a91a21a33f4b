/**
 * Whether the store is the one that this controller wrote last, at this place. Another one (a copy, an older file put back)
 * is another history from its first write on, and nobody could tell the two apart by their revisions: both would give the
 * next address to somebody. So it is treated as what was restored from a backup: Recovery, a new epoch.
 *
 * Two marks, because each one misses what the other sees. A random name of this start stands in the store and in a file
 * beside it: a store file put in place of another has an older name than the file. And the store notes when its file was
 * made, which no tool can set: a copied folder, both marks in it, was made later.
 */
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { asIsthmusError } from "../mesh/errors.ts";
import type { Places } from "./backup.ts";
import { writePrivate } from "./files.ts";
import type { Mirror } from "./reconcile/mirror.ts";
import type { Store } from "./store/types.ts";

export const HOME = "home";

const Home = z.object({
  writer: z.string(),
  /** Nanoseconds since 1970; empty where the file system does not keep it. */
  made: z.string(),
});
type Home = z.infer<typeof Home>;

/** Two names while a start is under way: a crash then leaves the store with either. */
const Writers = z.array(z.string()).min(1);

/** Puts a store that is not the one of the last start into Recovery. Gives back whether it did. */
export async function settleHome(
  store: Store,
  mirror: Mirror,
  places: Pick<Places, "store" | "data">,
  made: string = madeAt(places.store),
): Promise<boolean> {
  const file = join(places.data, "writer");
  const noted = Home.safeParse((await store.notes(HOME)).get(HOME)).data;
  const foreign = noted !== undefined && !isSame(noted, made, writersIn(file));
  if (foreign) mirror.advance((await store.raise({ epoch: (await store.state()).epoch + 1, recovering: true })).revision);
  await mark(store, file, noted, made).catch((thrown: unknown) => {
    // On a full disk the marks of the last start stay, and are right still: that is no reason to serve nobody.
    if (asIsthmusError(thrown).code !== "DiskFull") throw thrown;
  });
  return foreign;
}

async function mark(store: Store, file: string, before: Home | undefined, made: string): Promise<void> {
  const writer = randomUUID();
  writeWriters(file, before === undefined ? [writer] : [writer, before.writer]);
  await store.note(new Map([[HOME, { writer, made } satisfies Home]]));
  writeWriters(file, [writer]);
}

function isSame(noted: Home, made: string, writers: readonly string[]): boolean {
  const moved = noted.made !== "" && made !== "" && noted.made !== made;
  return !moved && writers.includes(noted.writer);
}

/**
 * When the file was made (statx(2), STATX_BTIME): it stays when the file is written, renamed or mounted elsewhere. Empty
 * is better than wrong, for each start would be a Recovery: a kernel or file system without it answers 0, and where
 * statx is not allowed at all libuv gives the time of the last change instead.
 */
function madeAt(file: string): string {
  const { birthtimeNs, ctimeNs } = statSync(file, { bigint: true });
  return birthtimeNs <= 0n || birthtimeNs === ctimeNs ? "" : String(birthtimeNs);
}

function writersIn(file: string): readonly string[] {
  if (!existsSync(file)) return [];
  try {
    return Writers.parse(JSON.parse(readFileSync(file, "utf8")));
  } catch {
    return [];
  }
}

function writeWriters(file: string, writers: readonly string[]): void {
  writePrivate(file, `${JSON.stringify(writers)}\n`);
}
