import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { formatJoinToken } from "../../mesh/model/token.ts";
import { eventually } from "./fake-controller.ts";

test.runIf(process.getuid?.() === 0)(
  "a token on the command line can be read there by nobody while the join, or the agent after it, runs",
  async () => {
    // A controller that takes the connection and says nothing: the join waits.
    let contacts = 0;
    const server = createServer(() => contacts++).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    const folder = mkdtempSync(join(tmpdir(), "ist-f-argv-"));
    const token = formatJoinToken({ controllers: [`127.0.0.1:${port}`], secret: "s".repeat(43), name: "t", pin: "a".repeat(64) });
    const places = ["--data", join(folder, "data"), "--run", join(folder, "run")];
    const child = spawn(process.execPath, [resolve("cli/main.ts"), "join", token, "--foreground", ...places], { stdio: ["ignore", "pipe", "pipe"] });
    const cmdline = (): string => readFileSync(`/proc/${child.pid}/cmdline`, "latin1").replaceAll("\0", " ").trim();
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    try {
      await eventually("contacted", () => contacts > 0 || child.exitCode !== null, 20_000);
      expect({ exit: child.exitCode, said }).toMatchObject({ exit: null });
      expect(cmdline()).toBe("isthmus agent");
    } finally {
      child.kill("SIGKILL");
      server.close();
      rmSync(folder, { recursive: true, force: true });
    }
  },
);
