import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { isthmus } from "./run.ts";

it.each([
  [true, "recovery confirmed\n", ["GET /v1/status", "POST /v1/recovery/confirm"]],
  [false, "the controller is not in Recovery: nothing to confirm\n", ["GET /v1/status"]],
])("recovery confirm, where recovering is %s, says what it did", async (recovering, said, asked) => {
  const folder = mkdtempSync(join(tmpdir(), "ist-recovery-"));
  const socket = join(folder, "c.sock");
  const requests: string[] = [];
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    request.resume();
    if (recovering) response.setHeader("isthmus-recovery", "0");
    response.setHeader("content-type", "application/json").end(JSON.stringify({ recovering }));
  });
  await new Promise<void>((listening) => server.listen(socket, listening));
  try {
    expect(await isthmus(["recovery", "confirm"], { env: { ISTHMUS_SOCKET: socket } })).toEqual({ status: 0, out: said, err: "" });
    expect(requests).toEqual(asked);
  } finally {
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
    rmSync(folder, { recursive: true });
  }
});

it.each([
  ["this store was restored from a backup", "in Recovery (this store was restored from a backup): it deletes no peer"],
  [undefined, "in Recovery: it deletes no peer"],
])("a command at a controller in Recovery for %j says that, and 2 nodes that are missing", async (cause, said) => {
  const folder = mkdtempSync(join(tmpdir(), "ist-recovery-"));
  const socket = join(folder, "c.sock");
  const server = createServer((request, response) => {
    request.resume();
    if (cause !== undefined) response.setHeader("isthmus-recovery-cause", cause);
    response
      .setHeader("isthmus-recovery", "2")
      .setHeader("content-type", "application/json")
      .end(JSON.stringify({ items: [] }));
  });
  await new Promise<void>((listening) => server.listen(socket, listening));
  try {
    const { err } = await isthmus(["get", "sites"], { env: { ISTHMUS_SOCKET: socket } });
    expect(err).toContain(said);
    expect(err).toContain("2 of the nodes on record");
  } finally {
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
    rmSync(folder, { recursive: true });
  }
});
