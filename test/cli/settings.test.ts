import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { collect } from "../../cli/cli.ts";
import { settings } from "../../cli/settings.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "ist-b-"));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

async function parsed(argv: string[], config?: string): Promise<Record<string, unknown>> {
  const program = new Command("isthmus").option("--socket <path>").exitOverride();
  let result: Promise<Record<string, unknown>> | undefined;
  program
    .command("controller")
    .command("run")
    .addOption(new Option("--data <dir>").env("IST_TEST_DATA").default("/default"))
    .addOption(new Option("--socket <path>").default("/run/default.sock"))
    .addOption(new Option("--advertise <host:port>").argParser(collect))
    .addOption(new Option("--log-level <level>").choices(["debug", "info"]).default("info"))
    .option("--no-host-config")
    .option("--foreground")
    .option("--config <file>")
    .action((_: unknown, command: Command) => {
      result = settings(command);
    });
  const path = join(folder, "c.yaml");
  if (config !== undefined) await writeFile(path, config);
  await program.parseAsync(["controller", "run", ...argv, ...(config === undefined ? [] : ["--config", path])], { from: "user" });
  return await (result ?? Promise.reject(new Error("the action did not run")));
}

describe("settings", () => {
  it("come from flags before environment before file before defaults", async () => {
    expect(await parsed([])).toMatchObject({ data: "/default", logLevel: "info" });
    expect(await parsed([], "data: /file\nlog-level: debug")).toMatchObject({ data: "/file", logLevel: "debug" });
    vi.stubEnv("IST_TEST_DATA", "/env");
    expect(await parsed([], "data: /file")).toMatchObject({ data: "/env" });
    expect(await parsed(["--data", "/flag"], "data: /file")).toMatchObject({ data: "/flag" });
  });

  it("hold for a flag that the program has, too", async () => {
    expect(await parsed([])).toMatchObject({ socket: "/run/default.sock" });
    expect(await parsed([], "socket: /file")).toMatchObject({ socket: "/file" });
    expect(await parsed(["--socket", "/flag"], "socket: /file")).toMatchObject({ socket: "/flag" });
  });

  it("take lists, and yes or no", async () => {
    expect(await parsed([], "advertise: [a:1, b:2]\nforeground: true\nhost-config: false")).toMatchObject({
      advertise: ["a:1", "b:2"],
      foreground: true,
      hostConfig: false,
    });
    expect(await parsed([], "advertise: a:1")).toMatchObject({ advertise: ["a:1"] });
  });

  it("refuse what the flags would not say, all at once and with the nearest name", async () => {
    await expect(parsed([], "dta: /x\nlog-level: loud\nforeground: perhaps\nadvertise: [1]")).rejects.toMatchObject({
      code: "Invalid",
      faults: [
        { path: "dta", suggestion: "data" },
        { path: "log-level", message: "must be one of debug, info" },
        { path: "foreground", message: "must be true or false" },
        { path: "advertise", message: "must be a list of strings" },
      ],
    });
    await expect(parsed([], "- a\n- b")).rejects.toMatchObject({ code: "Invalid" });
    await expect(parsed(["--config", "/nowhere"])).rejects.toMatchObject({ code: "Invalid" });
  });
});
