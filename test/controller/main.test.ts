import { chmodSync, mkdirSync, readdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { call, makeSite, makeToken, newNode, startController, temporaryFolder } from "./harness.ts";

describe("starting a controller", () => {
  test("keeps its secrets to itself, and refuses files that others may read with the command that mends it", async () => {
    const folder = temporaryFolder();
    const controller = await startController(folder.path);
    const data = join(folder.path, "data");
    const files = readdirSync(data, { recursive: true, encoding: "utf8" }).map((file) => join(data, file));
    expect(files.length).toBeGreaterThan(5);
    for (const file of files) expect([file, statSync(file).mode & 0o077]).toEqual([file, 0]);
    expect(statSync(controller.socket ?? "").mode & 0o777).toBe(0o600);
    await controller.close();
    for (const file of ["store.db", "pki/root.key", "pki/intermediate.key", "audit.jsonl", "pki", "."]) {
      const path = join(data, file);
      const before = statSync(path).mode & 0o777;
      chmodSync(path, before | 0o044);
      await expect(startController(folder.path)).rejects.toMatchObject({
        code: "FileMode",
        message: expect.stringContaining(path.replace(/\/\.$/, "")),
        remedy: expect.stringContaining("chmod"),
      });
      chmodSync(path, before);
    }
    await (await startController(folder.path)).close();
    folder.remove();
  });

  test("on a port that is taken names it, and leaves nothing open behind", async () => {
    const folder = temporaryFolder();
    const squatter = createServer();
    await new Promise<void>((done) => squatter.listen(0, "127.0.0.1", done));
    const address = squatter.address();
    const listen = `127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
    await expect(startController(folder.path, { listen })).rejects.toMatchObject({
      code: "PortTaken",
      message: expect.stringContaining(listen),
      remedy: expect.stringContaining("--listen"),
    });
    squatter.close();
    await (await startController(folder.path, { listen })).close();
    folder.remove();
  });

  test("takes away what a killed one left half-written, keys among them, and nothing else", async () => {
    const folder = temporaryFolder();
    await (await startController(folder.path)).close();
    const data = join(folder.path, "data");
    const before = readdirSync(data, { recursive: true, encoding: "utf8" }).toSorted();
    for (const name of ["writer.7.new", "pki/root.key.12.new"]) writeFileSync(join(data, name), "half");
    mkdirSync(join(data, ".backup-x1y2z3"));
    writeFileSync(join(data, ".backup-x1y2z3/store.db"), "half");
    const theirs = [
      ".backup-2026-11-21.gz",
      ".backup-x1y2z4",
      ".backup-monday",
      ".backup-monday/isthmus.gz",
      ".backup-of-monday",
      ".backup-of-monday/store.db",
      "notes.7.new",
      "notes.new",
      "pki/notes.7.new",
      "mine",
      "mine/writer.7.new",
    ];
    const folders = [".backup-monday", ".backup-of-monday", "mine"];
    for (const name of folders) mkdirSync(join(data, name));
    for (const name of theirs) if (!folders.includes(name)) writeFileSync(join(data, name), "an administrator's");
    await (await startController(folder.path)).close();
    expect(readdirSync(data, { recursive: true, encoding: "utf8" }).toSorted()).toEqual([...before, ...theirs].toSorted());
    folder.remove();
  });

  test("twice on one data folder is refused", async () => {
    const folder = temporaryFolder();
    const controller = await startController(folder.path);
    await expect(startController(folder.path, { socket: join(folder.path, "other.sock") })).rejects.toMatchObject({ code: "AlreadyRunning" });
    await controller.close();
    folder.remove();
  });

  test("ends when its signal aborts, with agents and watches open", async () => {
    const folder = temporaryFolder();
    const stop = new AbortController();
    const controller = await startController(folder.path, { signal: stop.signal });
    await makeSite(controller, "dc1");
    const agent = await newNode(controller, (await makeToken(controller, { site: "dc1" })).secret, "open");
    const watching = call(controller, "GET", "/v1/resources/sites?watch=1").catch(() => undefined);
    stop.abort();
    await controller.closed;
    await watching;
    expect(agent.connected).toBe(false);
    folder.remove();
  });

  test("works without the root's key once it has an intermediate, and says what it needs without both", async () => {
    const folder = temporaryFolder();
    await (await startController(folder.path)).close();
    const pki = join(folder.path, "data", "pki");
    renameSync(join(pki, "root.key"), join(folder.path, "safe"));
    await (await startController(folder.path)).close();
    renameSync(join(pki, "intermediate.key"), join(folder.path, "lost"));
    await expect(startController(folder.path)).rejects.toMatchObject({ code: "NotFound", message: expect.stringContaining("root.key") });
    renameSync(join(folder.path, "safe"), join(pki, "root.key"));
    await (await startController(folder.path)).close();
    folder.remove();
  });

  test("makes a random overlay range at the first start and keeps it", async () => {
    const folder = temporaryFolder();
    const overlay = async (): Promise<unknown> => {
      const controller = await startController(folder.path);
      const network = await call<{ spec: { overlay: unknown } }>(controller, "GET", "/v1/resources/meshnetworks/isthmus");
      await controller.close();
      return network.spec.overlay;
    };
    const first = await overlay();
    expect(first).toMatchObject({ v4: "10.101.0.0/16", v6: expect.stringMatching(/^fd[0-9a-f]{2}:[0-9a-f:]+::\/48$/) });
    expect(await overlay()).toEqual(first);
    folder.remove();
  });
});
