/** Backup and restore: store and PKI in one file (gzip of JSON), so that a controller can come back on a new machine. */
import { existsSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { z } from "zod";
import { IsthmusError } from "../mesh/errors.ts";
import { BACKUP, diskFull, privateFolder, syncFolder, writePrivate } from "./files.ts";
import { HOME } from "./home.ts";
import { openSqliteStore, type SqliteStore } from "./store/sqlite.ts";

const FORMAT = 1;

const BackupFile = z.object({
  format: z.literal(FORMAT),
  created: z.string(),
  /** The SQLite file, base64. */
  store: z.string(),
  /** Files of the PKI folder by relative path. */
  pki: z.record(z.string().regex(/^((roots|issuers)\/)?[a-z0-9][a-z0-9.-]*$/i), z.string()),
});

/** Where a controller keeps its things. */
export interface Places {
  readonly data: string;
  readonly store: string;
  readonly pki: string;
  readonly audit: string;
}

export function placesOf(data: string): Places {
  return { data, store: join(data, "store.db"), pki: join(data, "pki"), audit: join(data, "audit.jsonl") };
}

/** A consistent copy, taken while everything goes on. */
export async function makeBackup(places: Places, store: SqliteStore, now: number): Promise<Buffer> {
  const folder = mkdtempSync(join(places.data, BACKUP));
  try {
    const copy = join(folder, "store.db");
    await store.copyTo(copy);
    const pki = Object.fromEntries(pkiFiles(places.pki).map((file) => [file, readFileSync(join(places.pki, file), "utf8")]));
    return gzipSync(JSON.stringify({ format: FORMAT, created: new Date(now).toISOString(), store: readFileSync(copy).toString("base64"), pki }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Where a restore builds what it puts in place; such a folder without a store beside it was cut off. */
const STAGING = ".restore-";
const ASIDE = ".before-restore-";

/**
 * Puts a backup in place of what is in the data folder; what was there is kept aside. The controller then starts in
 * Recovery: agents have seen more than the backup knows. All is written before anything is replaced, and the store comes
 * last, so that a restore that fails changes nothing, and one that is cut off leaves no store (`refuseCutOff`).
 * @throws {IsthmusError} `BadRequest` for a file that is no backup, `AlreadyRunning`, `DiskFull`
 */
export async function restoreBackup(places: Places, file: string, now: number): Promise<void> {
  const backup = readBackup(file);
  privateFolder(places.data);
  await refuseRunning(places.store);
  for (const old of staged(places)) rmSync(join(places.data, old), { recursive: true, force: true });
  const staging = placesOf(join(places.data, `${STAGING}${process.pid}`));
  try {
    privateFolder(staging.pki);
    for (const [name, content] of Object.entries(backup.pki)) writePrivate(join(staging.pki, name), content);
    writePrivate(staging.store, Buffer.from(backup.store, "base64"));
    await makeFirstOfEpoch(staging.store);
    replaceAll(places, staging, `${ASIDE}${new Date(now).toISOString().replaceAll(/[:.]/g, "-")}`);
  } catch (thrown) {
    throw diskFull(places.data, thrown);
  } finally {
    rmSync(staging.data, { recursive: true, force: true });
  }
}

async function makeFirstOfEpoch(path: string): Promise<void> {
  const store = openSqliteStore(path);
  try {
    const { epoch } = await store.state();
    await store.raise({ epoch: epoch + 1, recovering: true });
    // Where it was written before says nothing of this place.
    await store.note(new Map([[HOME, undefined]]));
  } finally {
    await store.close();
  }
}

/** Renames only; what failed in between is renamed back. */
function replaceAll(places: Places, staging: Places, suffix: string): void {
  const old = [places.store, `${places.store}-wal`, `${places.store}-shm`, places.pki].filter((path) => existsSync(path));
  const steps = [...old.map((path) => [path, path + suffix] as const), [staging.pki, places.pki] as const, [staging.store, places.store] as const];
  const done: (readonly [string, string])[] = [];
  try {
    for (const [from, to] of steps) {
      renameSync(from, to);
      done.unshift([from, to]);
    }
    syncFolder(places.data);
  } catch (thrown) {
    for (const [from, to] of done) renameSync(to, from);
    throw thrown;
  }
}

/**
 * Without its store a controller would make a new network, and with the certificates set aside, too, one that no agent
 * knows. What a restore left behind says that this is not a first start.
 * @throws {IsthmusError} `NotFound`
 */
export function refuseCutOff(places: Places): void {
  if (existsSync(places.store)) return;
  const left = [...staged(places), ...readdirSync(places.data).filter((name) => name.startsWith(`store.db${ASIDE}`))].sort();
  if (left.length === 0) return;
  throw new IsthmusError("NotFound", `${places.store} is missing, but ${join(places.data, left.at(-1) ?? "")} is there: a restore was cut off`, {
    remedy: `Run \`isthmus restore\` again. To begin a new network, take what is in ${places.data} away first.`,
  });
}

function staged({ data }: Places): string[] {
  return readdirSync(data).filter((name) => name.startsWith(STAGING));
}

function readBackup(file: string): z.infer<typeof BackupFile> {
  try {
    return BackupFile.parse(JSON.parse(gunzipSync(readFileSync(file)).toString("utf8")));
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENOENT") throw new IsthmusError("NotFound", `${file}: there is no such file`);
    throw new IsthmusError("BadRequest", `${file} is not a backup of an Isthmus controller, or is damaged`, {
      remedy: "Use a file that `isthmus backup` wrote.",
      cause: thrown,
    });
  }
}

/** A damaged store may be replaced; one that somebody has open may not. */
async function refuseRunning(path: string): Promise<void> {
  if (!existsSync(path)) return;
  try {
    await openSqliteStore(path).close();
  } catch (thrown) {
    if (thrown instanceof IsthmusError && thrown.code === "AlreadyRunning") throw thrown;
  }
}

function pkiFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((file) => /\.(crt|key)$/.test(file) && statSync(join(folder, file)).isFile())
    .sort();
}
