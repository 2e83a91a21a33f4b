import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { isthmus } from "./run.ts";

describe("the command line", () => {
  it.each([
    [["gte", "nodes"], 2, "Did you mean get?"],
    [["get", "nodez"], 2, 'did you mean "nodes"?'],
    [["get", "nodes", "--selektor", "a"], 2, "Did you mean --selector?"],
    [["get", "nodes", "-o", "jsno"], 2, "Allowed choices are wide, json, yaml, name"],
    [["get"], 2, "missing required argument"],
    [["create", "site", "x"], 2, "--kind"],
    [["explain", "--schema", "egresgateway"], 2, "did you mean egressgateway?"],
    [["explain", "egressgateway.spec.failbck"], 3, 'did you mean "failback"?'],
    [["completion", "bahs"], 2, "did you mean bash?"],
    [["test"], 2, "./isthmus test"],
    [["get", "node/"], 2, "is not KIND/NAME"],
    [["join"], 2, "no token is given"],
    [["join", "a", "--token-file", "b"], 2, "exclude each other"],
  ])("%j ends with %i and says %j", async (argv, status, message) => {
    const ran = await isthmus(argv, { env: { ISTHMUS_SOCKET: "/nowhere" } });
    expect(ran.err + ran.out).toContain(message);
    expect(ran.status).toBe(status);
  });

  it("shows help without arguments, and for every command, with status 0", async () => {
    expect(await isthmus([])).toMatchObject({ status: 0, err: "" });
    for (const argv of [["--help"], ["get", "--help"], ["help", "create"], ["create", "site", "--help"]])
      expect(await isthmus(argv)).toMatchObject({ status: 0, err: "" });
  });

  it("says its version as --version too", async () => {
    expect(await isthmus(["--version"])).toMatchObject({ status: 0, out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) as string });
  });

  it("keeps what is hidden out of the help", async () => {
    expect((await isthmus(["--help"])).out).not.toMatch(/__complete|^ {2}agent/m);
  });

  it("says how to reach a controller when none is known (exit 6)", async () => {
    const { status, err } = await isthmus(["get", "nodes"]);
    expect(status).toBe(6);
    expect(err).toContain("isthmus status");
  });

  it("says that nothing listens at a socket (exit 6)", async () => {
    expect(await isthmus(["get", "nodes", "--socket", "/nowhere.sock"])).toMatchObject({
      status: 6,
      err: expect.stringContaining("/nowhere.sock") as string,
    });
  });

  it("says on a machine without an agent what to do (exit 6)", async () => {
    const { status, err } = await isthmus(["status", "--run", "/nowhere"]);
    expect(status).toBe(6);
    expect(err).toContain("no agent answers at /nowhere/agent.sock");
  });

  it("loads nothing of the domain for --help", () => {
    const loaded = execFileSync(
      process.execPath,
      [
        "--import",
        "data:text/javascript,import{registerHooks}from'node:module';registerHooks({load(u,c,n){process.stderr.write('');if(!u.startsWith('node:'))globalThis.seen=(globalThis.seen??[]).concat(u);return n(u,c)}});process.on('exit',()=>require('fs').writeSync(1,'\\n@'+globalThis.seen.join(' ')))".replace(
          "require('fs')",
          "process.getBuiltinModule('fs')",
        ),
        new URL("../../cli/main.ts", import.meta.url).pathname,
        "--help",
      ],
      { encoding: "utf8" },
    );
    const urls = loaded.slice(loaded.lastIndexOf("\n@") + 2).split(" ");
    expect(urls.some((url) => url.endsWith("/cli/program.ts"))).toBe(true);
    expect(urls.filter((url) => /\/(zod|yaml|fastify|ws|pino|@peculiar)\/|\/mesh\/|\/controller\/|\/node-agent\//.test(url))).toEqual([]);
  });
});

describe("completion", () => {
  const words = async (...typed: string[]): Promise<string[]> =>
    (await isthmus(["__complete", "--", ...typed], { env: { ISTHMUS_SOCKET: "/nowhere" } })).out.split("\n").filter((line) => line !== "");

  it.each([
    [["ge"], ["get"]],
    [["config", "use"], ["use-context"]],
    [
      ["get", "nod"],
      ["node", "nodes"],
    ],
    [["get", "nodes", "--sel"], ["--selector"]],
    [["get", "nodes", "-o", "y"], ["yaml"]],
    [
      ["create", "site", "x", "--kind", ""],
      ["onprem", "cloud"],
    ],
    [["apply", "-f", ""], [":files"]],
    [["completion", "z"], ["zsh"]],
    [["get", "nodes", "xyz"], []],
  ])("of %j is %j", async (typed, expected) => {
    expect(await words(...typed)).toEqual(expected);
  });

  it.each([["bash", ["-n"]]])("prints a script that %s accepts", async (shell, flags) => {
    const { out } = await isthmus(["completion", shell]);
    expect(() => execFileSync(shell, flags, { input: out })).not.toThrow();
  });

  it("completes in a real bash", async () => {
    const { out } = await isthmus(["completion", "bash"]);
    const main = new URL("../../cli/main.ts", import.meta.url).pathname;
    const script = `isthmus() { ${process.execPath} ${main} "$@"; }\n${out}\nCOMP_WORDS=(isthmus get sit); COMP_CWORD=2; _isthmus; printf '%s ' "\${COMPREPLY[@]}"`;
    expect(execFileSync("bash", ["-c", script], { encoding: "utf8" }).trim().split(" ").sort()).toEqual(["site", "sites"]);
  });
});

describe("version", () => {
  it("works with the controller away", async () => {
    const { status, out } = await isthmus(["version"]);
    const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
    expect(status).toBe(0);
    expect(out).toContain(version);
    expect(out).toContain("not reached");
    expect(JSON.parse((await isthmus(["version", "--client", "-o", "json"])).out)).toMatchObject({ client: version });
  });
});
