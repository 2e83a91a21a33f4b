import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { serveSocket } from "../../node-agent/socket.ts";

let folder = "";
let abort = new AbortController();
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ist-f-socket-"));
  abort = new AbortController();
});
afterEach(() => {
  abort.abort();
  rmSync(folder, { recursive: true, force: true });
});

/** The first line of the answer to a request line. */
function ask(path: string, line: string): Promise<string> {
  return new Promise((done, failed) => {
    let heard = "";
    const socket = connect(path, () => socket.write(`${line} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n`));
    socket.setTimeout(3_000, () => socket.destroy(new Error("no answer")));
    socket.setEncoding("utf8").on("data", (text: string) => {
      heard += text;
    });
    socket.on("end", () => done(heard.split("\r\n")[0] ?? ""));
    socket.on("error", failed);
  });
}

test("a request without a path that can be read is refused, and the agent goes on", async () => {
  const path = join(folder, "agent.sock");
  const none = async (): Promise<unknown> => ({});
  const handlers = { status: () => ({ node: "a" }), explain: async (destination: string) => ({ destination }), leave: none, reconcile: none };
  await serveSocket(path, handlers, abort.signal);
  expect(await ask(path, "GET //")).toContain("400");
  expect(await ask(path, "GET //[/status")).toContain("400");
  expect(await ask(path, "GET /nothing")).toContain("404");
  expect(await ask(path, "GET /status")).toContain("200");
});
