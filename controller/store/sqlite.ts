/**
 * The default store: one SQLite file, WAL, fully synced. Transactions that arrive together share one commit (and one
 * fsync); each still has its own revision and its own verdict.
 */
import { randomUUID } from "node:crypto";
import { chmodSync, closeSync, existsSync, openSync } from "node:fs";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { IsthmusError } from "../../mesh/errors.ts";
import { MAX_POSITION } from "../../mesh/model/wire.ts";
import { requireMode } from "../files.ts";
import type { Change, Item, Store, StoreState, Transaction, TransactionResult, WatchEvent } from "./types.ts";

/** Bytes of `isth` (big endian): tells our file from somebody else's database. */
const APPLICATION_ID = 0x69737468;
const BUSY_TIMEOUT_MS = 2_000;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS items (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS changes (revision INTEGER NOT NULL, key TEXT NOT NULL, value TEXT, PRIMARY KEY (revision, key)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
`;

export interface SqliteStore extends Store {
  /** A consistent copy of the whole store in a new file, while it goes on working. */
  copyTo(file: string): Promise<void>;
  /** Caps the file's size, in pages of 4 KiB; a write beyond it fails as on a full disk. */
  limitPages(pages: number): void;
}

interface Pending {
  readonly run: () => void;
  readonly fail: (error: unknown) => void;
}

type Row = Record<string, unknown>;

/**
 * Opens or makes the file (mode 0600).
 * @throws {IsthmusError} `StoreDamaged`, `DiskFull`, `FileMode`, `AlreadyRunning`
 */
export function openSqliteStore(file: string): SqliteStore {
  const db = guard(file, () => open(file));
  const sql = statements(db);
  const watchers = new Set<(event: WatchEvent) => void>();
  let state = readState(sql);
  let floor = Number(sql.meta.get("floor")?.["value"] ?? 0);
  let queue: Pending[] = [];
  let closed = false;

  function enqueue<T>(work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      if (closed) return reject(new IsthmusError("Unreachable", `${file}: the store is closed`));
      if (queue.length === 0) setImmediate(flush);
      let result: T;
      queue.push({
        run: () => {
          result = work();
          settled.push(() => resolve(result));
        },
        fail: reject,
      });
    });
  }

  let settled: (() => void)[] = [];
  function flush(): void {
    const batch = queue;
    // A store that was closed meanwhile has written it already.
    if (batch.length === 0) return;
    queue = [];
    const before = state;
    const published: WatchEvent[] = [];
    publish = (event) => published.push(event);
    try {
      db.exec("BEGIN IMMEDIATE");
      for (const pending of batch) pending.run();
      db.exec("COMMIT");
    } catch (thrown) {
      if (db.isTransaction) db.exec("ROLLBACK");
      state = before;
      settled = [];
      const error = translate(file, thrown);
      for (const pending of batch) pending.fail(error);
      return;
    }
    for (const event of published) for (const tell of watchers) tell(event);
    const done = settled;
    settled = [];
    for (const settle of done) settle();
  }

  let publish: (event: WatchEvent) => void = () => {};

  function apply({ compare = [], put = [], delete: remove = [], recovering = state.recovering }: Transaction): TransactionResult {
    for (const { key, revision } of compare) {
      if (Number(sql.get.get(key)?.["revision"] ?? 0) !== revision) return { ok: false, conflict: key };
    }
    const revision = state.revision + 1;
    const changes: Change[] = [];
    for (const { key, value } of put) {
      const text = JSON.stringify(value);
      if (sql.get.get(key)?.["value"] === text) continue;
      sql.put.run(key, text, revision);
      sql.log.run(revision, key, text);
      changes.push({ key, revision, value: JSON.parse(text) });
    }
    for (const key of remove) {
      if (sql.delete.run(key).changes === 0) continue;
      sql.log.run(revision, key, null);
      changes.push({ key, revision });
    }
    if (recovering !== state.recovering) {
      sql.setMeta.run("recovering", Number(recovering));
      state = { ...state, recovering };
    }
    if (changes.length > 0) {
      sql.setMeta.run("revision", revision);
      state = { ...state, revision };
      publish({ type: "changes", revision, changes });
    }
    return { ok: true, revision: state.revision };
  }

  return {
    state: () => Promise.resolve(state),
    list: (prefix) => Promise.resolve({ items: sql.list.all(prefix, after(prefix)).map(toItem), revision: state.revision }),
    get: (key) => {
      const row = sql.get.get(key);
      return Promise.resolve(row === undefined ? undefined : toItem(row));
    },
    txn: (transaction) => enqueue(() => apply(transaction)),
    watch: (since, signal) => watch(since, signal),
    raise: (to) => {
      for (const number of [to.epoch ?? 0, to.revision ?? 0]) {
        if (!Number.isSafeInteger(number) || number < 0 || number > MAX_POSITION)
          return Promise.reject(new IsthmusError("BadRequest", `the store cannot be raised to ${number}`));
      }
      return enqueue(() => {
        state = {
          ...state,
          epoch: Math.max(state.epoch, to.epoch ?? 0),
          revision: Math.max(state.revision, to.revision ?? 0),
          recovering: to.recovering ?? state.recovering,
        };
        for (const [key, value] of Object.entries(state)) sql.setMeta.run(key, typeof value === "boolean" ? Number(value) : value);
        return state;
      });
    },
    note: (entries) =>
      enqueue(() => {
        for (const [key, value] of entries) {
          if (value === undefined) sql.dropNote.run(key);
          else sql.putNote.run(key, JSON.stringify(value));
        }
      }),
    notes: (prefix) =>
      Promise.resolve(new Map(sql.notes.all(prefix, after(prefix)).map((row) => [String(row["key"]), JSON.parse(String(row["value"])) as unknown]))),
    compact: (keep) =>
      enqueue(() => {
        const to = state.revision - keep;
        if (to <= floor) return;
        floor = to;
        sql.compact.run(floor);
        sql.setMeta.run("floor", floor);
      }),
    copyTo: (target) =>
      new Promise((resolve) => {
        closeSync(openSync(target, "ax", 0o600));
        guard(target, () => db.prepare("VACUUM INTO ?").run(target));
        resolve();
      }),
    limitPages: (pages) => db.exec(`PRAGMA max_page_count = ${pages}`),
    close: () => {
      if (!closed) {
        if (queue.length > 0) flush();
        closed = true;
        db.close();
      }
      return Promise.resolve();
    },
  };

  async function* watch(since: number, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const ready: WatchEvent[] = [];
    let wake = (): void => {};
    const listen = (event: WatchEvent): void => {
      ready.push(event);
      wake();
    };
    const stop = (): void => wake();
    if (since < floor || since > state.revision) {
      yield { type: "compacted" };
      return;
    }
    ready.push(...byRevision(sql.changes.all(since)));
    watchers.add(listen);
    signal.addEventListener("abort", stop);
    try {
      while (!signal.aborted) {
        const next = ready.shift();
        if (next !== undefined) yield next;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      watchers.delete(listen);
      signal.removeEventListener("abort", stop);
    }
  }
}

function open(file: string): DatabaseSync {
  if (existsSync(file)) requireMode(file, 0o600);
  else closeSync(openSync(file, "a", 0o600));
  const db = new DatabaseSync(file, { timeout: BUSY_TIMEOUT_MS });
  try {
    // One process owns the file: two controllers on one copy would both issue addresses.
    db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
    const check = db.prepare("PRAGMA integrity_check(1)").get() as Row;
    if (check["integrity_check"] !== "ok") throw damaged(file, String(check["integrity_check"]));
    const id = Number((db.prepare("PRAGMA application_id").get() as Row)["application_id"]);
    const tables = Number((db.prepare("SELECT count(*) AS n FROM sqlite_schema").get() as Row)["n"]);
    if (id !== APPLICATION_ID && tables > 0) throw damaged(file, "it is a database of another program");
    db.exec(`BEGIN IMMEDIATE; PRAGMA application_id = ${APPLICATION_ID}; ${SCHEMA} COMMIT;`);
    const first = db.prepare("INSERT OR IGNORE INTO meta (key, value) VALUES (?, ?)");
    first.run("lineage", randomUUID());
    first.run("epoch", 1);
    first.run("revision", 0);
    first.run("recovering", 0);
    chmodSync(file, 0o600);
    return db;
  } catch (thrown) {
    db.close();
    throw thrown;
  }
}

function statements(db: DatabaseSync) {
  const prepare = (text: string): StatementSync => db.prepare(text);
  return {
    meta: prepare("SELECT value FROM meta WHERE key = ?"),
    setMeta: prepare("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"),
    get: prepare("SELECT key, value, revision FROM items WHERE key = ?"),
    list: prepare("SELECT key, value, revision FROM items WHERE key >= ? AND key < ? ORDER BY key"),
    put: prepare(
      "INSERT INTO items (key, value, revision) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value, revision = excluded.revision",
    ),
    delete: prepare("DELETE FROM items WHERE key = ?"),
    log: prepare("INSERT OR REPLACE INTO changes (revision, key, value) VALUES (?, ?, ?)"),
    changes: prepare("SELECT revision, key, value FROM changes WHERE revision > ? ORDER BY revision, key"),
    compact: prepare("DELETE FROM changes WHERE revision <= ?"),
    notes: prepare("SELECT key, value FROM notes WHERE key >= ? AND key < ? ORDER BY key"),
    putNote: prepare("INSERT INTO notes (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"),
    dropNote: prepare("DELETE FROM notes WHERE key = ?"),
  };
}

function readState(sql: ReturnType<typeof statements>): StoreState {
  const meta = (key: string): unknown => sql.meta.get(key)?.["value"];
  return {
    lineage: String(meta("lineage")),
    epoch: Number(meta("epoch")),
    revision: Number(meta("revision")),
    recovering: Number(meta("recovering")) === 1,
  };
}

function toItem(row: Row): Item {
  return { key: String(row["key"]), value: JSON.parse(String(row["value"])), revision: Number(row["revision"]) };
}

function byRevision(rows: readonly Row[]): WatchEvent[] {
  const grouped = Map.groupBy(rows, (row) => Number(row["revision"]));
  return [...grouped].map(([revision, group]) => ({
    type: "changes",
    revision,
    changes: group.map((row) => ({
      key: String(row["key"]),
      revision,
      ...(row["value"] === null ? {} : { value: JSON.parse(text(row["value"])) as unknown }),
    })),
  }));
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "null";
}

/** The first text that sorts after every text with this prefix (SQLite compares UTF-8 bytes). */
function after(prefix: string): string {
  return `${prefix}\u{10ffff}`;
}

function guard<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    throw translate(file, thrown);
  }
}

function damaged(file: string, what: string, cause?: unknown): IsthmusError {
  return new IsthmusError("StoreDamaged", `${file}: the store is damaged (${what})`, {
    remedy: `Keep the file aside and run \`isthmus restore\` with the latest backup.`,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** SQLite's primary result codes: https://sqlite.org/rescode.html */
function translate(file: string, thrown: unknown): unknown {
  if (thrown instanceof IsthmusError) return thrown;
  const code = (thrown as { errcode?: number }).errcode;
  const message = (thrown as Error).message;
  const errno = (thrown as NodeJS.ErrnoException).code;
  const primary = code === undefined ? undefined : code & 0xff;
  if (primary === 13 || errno === "ENOSPC") {
    return new IsthmusError("DiskFull", `${file}: no space left to write the store`, {
      remedy: "Free disk space; nothing was half written.",
      cause: thrown,
    });
  }
  if (primary === 11 || primary === 26) return damaged(file, message, thrown);
  if (primary === 5 || primary === 6) {
    return new IsthmusError("AlreadyRunning", `${file}: another controller has the store open`, {
      remedy: "Stop the other controller, or give this one its own --data folder.",
      cause: thrown,
    });
  }
  return new IsthmusError("Internal", `${file}: ${message}`, { cause: thrown });
}
