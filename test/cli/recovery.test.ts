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
