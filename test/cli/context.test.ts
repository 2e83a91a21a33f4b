import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { chooseContext } from "../../cli/context.ts";
import { isthmus, type Ran } from "./run.ts";

let folder: string;
let config: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "ist-b-"));
  config = join(folder, "sub", "config.yaml");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const go = (words: string): Promise<Ran> => isthmus(words.split(" "), { env: { ISTHMUS_CONFIG: config } });

describe("contexts", () => {
  it("are made, listed, chosen, changed and deleted; the file is for its owner alone", async () => {
    expect((await go("config set-context lab --at-socket /run/a.sock")).out).toBe("context lab created\n");
    expect((await go("config set-context prod --server 203.0.113.7:8443")).status).toBe(0);
    expect((await stat(config)).mode & 0o777).toBe(0o600);
    expect((await stat(join(folder, "sub"))).mode & 0o777).toBe(0o700);
    expect((await go("config current-context")).status).toBe(3);
    expect((await go("config use-context prod")).status).toBe(0);
    expect((await go("config get-contexts")).out.split("\n").map((line) => line.trimEnd())).toEqual([
      "CURRENT   NAME   CONTROLLER",
      "          lab    /run/a.sock",
      "*         prod   https://203.0.113.7:8443",
      "",
    ]);
    expect((await go("config set-context lab --server https://[2001:db8::1]:8443")).out).toBe("context lab changed\n");
    expect(await readFile(config, "utf8")).not.toContain("a.sock");
    expect((await go("config delete-context prod")).status).toBe(0);
    expect((await go("config current-context")).status).toBe(3);
    expect((await go("config get-contexts -o name")).out).toBe("lab\n");
  });

  it("say the nearest name when one is unknown", async () => {
    await go("config set-context production --at-socket /x");
    const { status, err } = await go("config use-context prodution");
    expect(status).toBe(3);
    expect(err).toContain('did you mean "production"?');
  });

  it.each([
    "config set-context a",
    "config set-context a --server nonsense",
    "config set-context a --server x:1 --at-socket /y",
    "config set-context a --server x:1 --ca-file /nowhere",
  ])("refuse %j", async (words) => {
    expect((await go(words)).status).toBeGreaterThan(1);
  });

  it("say what to do where their folder cannot be made, or a folder stands in the file's place", async () => {
    const at = (env: Record<string, string>): Promise<Ran> => isthmus(["config", "set-context", "a", "--at-socket", "/x"], { env });
    expect(await at({ HOME: "/proc" })).toMatchObject({ status: 7, err: expect.stringContaining("try: Set HOME") as string });
    expect(await at({ HOME: "/dev/null" })).toMatchObject({ status: 7, err: expect.stringContaining("try: Set HOME") as string });
    expect(await at({ ISTHMUS_CONFIG: folder })).toMatchObject({ status: 2, err: expect.stringContaining("try: Set HOME") as string });
    expect((await isthmus(["get", "nodes"], { env: { HOME: "/dev/null" } })).err).toContain("no context is set");
  });

  it("refuse a file that others can read, and one that is not right", async () => {
    await go("config set-context a --at-socket /x");
    await chmod(config, 0o644);
    const open = await go("config get-contexts");
    expect(open).toMatchObject({ status: 7, err: expect.stringContaining("chmod 600") as string });
    expect(open.err).not.toContain("holds a private key");
    await writeFile(config, "contexts: [{name: a, server: 'https://c:1', key: PEM}]");
    expect(await go("config get-contexts")).toMatchObject({ status: 7, err: expect.stringContaining("holds a private key") as string });
    await writeFile(config, "no contexts at all");
    expect(await go("config get-contexts")).toMatchObject({ status: 2, err: expect.stringContaining("is not a contexts file") as string });
    await chmod(config, 0o600);
    await writeFile(config, "contexts: [{name: a, sockt: /x}]");
    expect(await go("config get-contexts")).toMatchObject({ status: 2, err: expect.stringContaining("contexts[0]") as string });
    await writeFile(config, "{ unclosed");
    expect((await go("config get-contexts")).status).toBe(2);
  });
});

describe("the choice of a controller", () => {
  it("goes by flags, then environment, then the current context, then a controller on this machine", async () => {
    const env = { ISTHMUS_CONFIG: config, ISTHMUS_RUN: folder };
    await expect(chooseContext({ env }, {})).rejects.toThrow(`${config}, which ISTHMUS_CONFIG names, does not exist`);
    await expect(chooseContext({ env: { HOME: folder, ISTHMUS_RUN: folder } }, {})).rejects.toThrow(/no controller is known here: no context is set/);
    await writeFile(join(folder, "controller.sock"), "");
    expect(await chooseContext({ env }, {})).toMatchObject({ socket: join(folder, "controller.sock") });
    await go("config set-context a --at-socket /a");
    await go("config set-context b --at-socket /b");
    await go("config use-context a");
    expect(await chooseContext({ env }, {})).toMatchObject({ socket: "/a" });
    expect(await chooseContext({ env: { ...env, ISTHMUS_CONTEXT: "b" } }, {})).toMatchObject({ socket: "/b" });
    expect(await chooseContext({ env: { ...env, ISTHMUS_CONTEXT: "b" } }, { context: "a" })).toMatchObject({ socket: "/a" });
    expect(await chooseContext({ env: { ...env, ISTHMUS_SOCKET: "/s" } }, {})).toMatchObject({ socket: "/s" });
    expect(await chooseContext({ env: { ...env, ISTHMUS_SOCKET: "/s" } }, { context: "a" })).toMatchObject({ socket: "/a" });
    expect(await chooseContext({ env }, { socket: "/t", context: "a" })).toMatchObject({ socket: "/t" });
  });
});
