/** A wireguard-go that is made up: what a start that fails says. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createKernel } from "../../node-agent/drivers/index.ts";
import { isUserspace, socketOf, startWireguardGo } from "../../node-agent/drivers/wireguard-go.ts";
import { isRoot } from "./netns.ts";

const NAME = `ismt${process.pid}`;

describe.runIf(isRoot && !existsSync("/run/systemd/system"))("the start of a wireguard-go", () => {
  let folder: string;
  const path = process.env["PATH"] ?? "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "isthmus-wg-"));
    mkdirSync("/var/run/wireguard", { recursive: true, mode: 0o755 });
    process.env["PATH"] = `${folder}:${path}`;
  });
  afterEach(() => {
    process.env["PATH"] = path;
    rmSync(folder, { recursive: true });
    rmSync(socketOf(NAME), { force: true });
  });
  const becomes = (script: string): void => {
    writeFileSync(join(folder, "program.cjs"), script);
    writeFileSync(join(folder, "wireguard-go"), `#!/bin/sh\nexec ${process.execPath} ${folder}/program.cjs "$@"\n`, { mode: 0o755 });
  };

  test("that gives up after it made its socket is an error with what it said and what to do", async () => {
    becomes(`require("net").createServer().listen(${JSON.stringify(socketOf(NAME))}, () => {
      console.error("ERROR: (${NAME}) Failed to listen on uapi socket: too many open files");
      process.kill(process.pid, "SIGKILL");
    });`);
    await expect(startWireguardGo(NAME, folder)).rejects.toMatchObject({
      code: "NoWireGuard",
      message: expect.stringContaining("too many open files") as string,
      remedy: expect.stringContaining("fs.inotify.max_user_instances") as string,
    });
    expect(isUserspace(NAME)).toBe(true);
  });

  test("that gives up without a word is not told by the frame that the program draws at every start", async () => {
    becomes(`console.error("┌────┐\\n│ use the kernel module │\\n└────┘"); process.kill(process.pid, "SIGKILL");`);
    await expect(startWireguardGo(NAME, folder)).rejects.toMatchObject({ message: `wireguard-go did not start for ${NAME}` });
  });

  test("that gives up after a night of complaints is an error with its last words, and the complaints are not kept for ever", async () => {
    const log = join(folder, `wireguard-go.${NAME}.log`);
    becomes(`require("fs").writeSync(1, "unreachable\\n".repeat(300_000) + "no room\\n"); process.kill(process.pid, "SIGKILL");`);
    await expect(startWireguardGo(NAME, folder)).rejects.toMatchObject({ message: expect.stringMatching(/: unreachable; no room$/) as string });
    const kernel = createKernel({ dataDir: folder, runDir: folder, privateKeyFile: join(folder, "none") });
    expect(statSync(log).size).toBeGreaterThan(3_000_000);
    await kernel.observe();
    expect(statSync(log).size).toBe(0);
    // What is of a usual size stays.
    becomes(`require("fs").writeSync(1, "no room\\n"); process.kill(process.pid, "SIGKILL");`);
    await expect(startWireguardGo(NAME, folder)).rejects.toThrow("no room");
    await kernel.observe();
    expect(readFileSync(log, "utf8")).toBe("no room\n");
  });

  test("whose folder cannot be made is an error, and ends", async () => {
    becomes("");
    await expect(startWireguardGo(NAME, "/proc/isthmus-none")).rejects.toMatchObject({ code: "FileMode" });
  });

  test("is over when it answers", async () => {
    becomes(`require("net").createServer((one) => {
      one.once("data", () => one.end("errno=0\\n\\n", () => process.exit()));
    }).listen(${JSON.stringify(socketOf(NAME))});`);
    await startWireguardGo(NAME, folder);
  });
});
