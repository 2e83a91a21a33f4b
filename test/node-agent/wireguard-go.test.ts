/** A wireguard-go that is made up: what a start that fails says. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
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

  test("is over when it answers", async () => {
    becomes(`require("net").createServer((one) => {
      one.once("data", () => one.end("errno=0\\n\\n", () => process.exit()));
    }).listen(${JSON.stringify(socketOf(NAME))});`);
    await startWireguardGo(NAME, folder);
  });
});
