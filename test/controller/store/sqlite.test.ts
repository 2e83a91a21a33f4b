import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, describe, expect, test } from "vitest";
import { openSqliteStore } from "../../../controller/store/sqlite.ts";
import { storeContract } from "./contract.ts";

const folder = mkdtempSync(join(tmpdir(), "ist-store-"));
afterAll(() => rmSync(folder, { recursive: true }));
const file = join(folder, "contract.db");

storeContract("SQLite", {
  open: () => Promise.resolve(openSqliteStore(file)),
  reset: () => {
    for (const suffix of ["", "-wal", "-shm"]) rmSync(file + suffix, { force: true });
    return Promise.resolve();
  },
});

describe("the SQLite file", () => {
  test("is readable by its owner alone, and a wider mode is refused with the command that mends it", async () => {
    const path = join(folder, "mode.db");
    const store = openSqliteStore(path);
    await store.txn({ put: [{ key: "a", value: 1 }] });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await store.close();
    chmodSync(path, 0o644);
    expect(() => openSqliteStore(path)).toThrowError(expect.objectContaining({ code: "FileMode", remedy: `Run: chmod 0600 ${path}` }));
  });

  test("damaged in the middle or at the start is named, with the remedy", async () => {
    for (const at of [0, 4096 + 8]) {
      const path = join(folder, `damaged-${at}.db`);
      const store = openSqliteStore(path);
      await store.txn({ put: Array.from({ length: 500 }, (_, i) => ({ key: `k/${i}`, value: "x".repeat(100) })) });
      await store.close();
      const bytes = readFileSync(path);
      bytes.fill(0xaa, at, at + 3000);
      writeFileSync(path, bytes);
      expect(() => openSqliteStore(path)).toThrowError(
        expect.objectContaining({ code: "StoreDamaged", message: expect.stringContaining(path), remedy: expect.stringContaining("isthmus restore") }),
      );
    }
  });

  test("of another program is not touched", () => {
    const path = join(folder, "foreign.db");
    const foreign = new DatabaseSync(path);
    foreign.exec("CREATE TABLE theirs (x)");
    foreign.close();
    chmodSync(path, 0o600);
    expect(() => openSqliteStore(path)).toThrowError(/another program/);
  });

  test("that is closed right after a write holds it, and nothing is tried on it later", async () => {
    const path = join(folder, "closed.db");
    const store = openSqliteStore(path);
    const written = store.txn({ put: [{ key: "a", value: 1 }] });
    await store.close();
    expect(await written).toEqual({ ok: true, revision: 1 });
    // What was planned for the next turn has its turn: a throw there would end the process.
    await new Promise((resolve) => setImmediate(resolve));
    const again = openSqliteStore(path);
    expect((await again.get("a"))?.value).toBe(1);
    await again.close();
  });

  test("cannot be opened by two controllers at once", async () => {
    const path = join(folder, "twice.db");
    const store = openSqliteStore(path);
    await store.txn({ put: [{ key: "a", value: 1 }] });
    expect(() => openSqliteStore(path)).toThrowError(expect.objectContaining({ code: "AlreadyRunning" }));
    await store.close();
  });

  test("on a full disk refuses the write whole, says so, and works again when there is space", async () => {
    const path = join(folder, "full.db");
    const limited = openSqliteStore(path);
    await limited.txn({ put: [{ key: "a", value: 1 }] });
    const big = Array.from({ length: 200 }, (_, i) => ({ key: `b/${i}`, value: "x".repeat(4000) }));
    limited.limitPages(10);
    await expect(limited.txn({ put: big })).rejects.toMatchObject({ code: "DiskFull" });
    expect((await limited.list("")).items.map((item) => item.key)).toEqual(["a"]);
    expect(await limited.state()).toMatchObject({ revision: 1 });
    limited.limitPages(100_000);
    expect(await limited.txn({ put: big })).toEqual({ ok: true, revision: 2 });
    await limited.close();
  });

  test("copied while it works is a store of the same lineage and position", async () => {
    const store = openSqliteStore(join(folder, "source.db"));
    await store.txn({ put: [{ key: "a", value: 1 }] });
    const copyPath = join(folder, "copy.db");
    await store.copyTo(copyPath);
    await store.txn({ put: [{ key: "b", value: 1 }] });
    const copy = openSqliteStore(copyPath);
    expect(await copy.state()).toMatchObject({ lineage: (await store.state()).lineage, revision: 1 });
    expect(statSync(copyPath).mode & 0o777).toBe(0o600);
    await copy.close();
    await store.close();
  });
});
