import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { isthmus } from "./run.ts";

it.each([
  ["node", /stay.* peers.*`isthmus delete node one two`/],
  ["token", /^$/],
])("%s revoke says what it leaves as it was, and how to end that", async (what, told) => {
  const folder = mkdtempSync(join(tmpdir(), "ist-revoke-"));
  const socket = join(folder, "c.sock");
  const requests: string[] = [];
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    request.resume();
    response.setHeader("content-type", "application/json").end("{}");
  });
  await new Promise<void>((listening) => server.listen(socket, listening));
  try {
    const { status, out, err } = await isthmus([what, "revoke", "one", "two"], { env: { ISTHMUS_SOCKET: socket } });
    expect({ status, out }).toEqual({ status: 0, out: `${what} one revoked\n${what} two revoked\n` });
    expect(err.replaceAll("\n", " ").trim()).toMatch(told);
    expect(requests).toEqual([`POST /v1/${what}s/one/revoke`, `POST /v1/${what}s/two/revoke`]);
  } finally {
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
    rmSync(folder, { recursive: true });
  }
});
