import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
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
    [["--context", "x", "test"], 2, "flags before `test` mean nothing to it; nothing was done"],
    [["--context=x", "lab", "down", "--name", "zzz"], 2, "Write `isthmus lab …`"],
    [["--socket", "/x", "bench"], 2, "nothing was done"],
    [["--socket", "/x", "sim", "--seeds", "1"], 2, "nothing was done"],
    [["help", "nope"], 2, "unknown command 'nope'"],
    [["help", "create", "nope"], 2, "unknown command 'nope'"],
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
    for (const argv of [
      ["--help"],
      ["get", "--help"],
      ["help", "create"],
      ["create", "site", "--help"],
      ["help"],
      ["help", "help"],
      ["help", "test"],
      ["help", "get", "nodes"],
    ])
      expect(await isthmus(argv)).toMatchObject({ status: 0, err: "" });
  });

  it("shows the help of a command of a command", async () => {
    expect((await isthmus(["help", "create", "site"])).out).toContain("Usage: isthmus create site");
    const lab = execFileSync(process.execPath, [new URL("../../cli/main.ts", import.meta.url).pathname, "help", "lab", "up"], { encoding: "utf8" });
    expect(lab).toContain("--no-manifests");
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
    [["node", "rest"], ["restart-wireguard"]],
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

  const main = new URL("../../cli/main.ts", import.meta.url).pathname;
  const installed = (shell: string): boolean => spawnSync("sh", ["-c", `command -v ${shell}`]).status === 0;
  /** A folder with the completion of a shell, and an `isthmus` for its path. */
  async function folderFor(shell: string, file: string): Promise<string> {
    const folder = mkdtempSync(join(tmpdir(), "isthmus-shell-"));
    writeFileSync(join(folder, "isthmus"), `#!/bin/sh\nexec ${process.execPath} ${main} "$@"\n`, { mode: 0o755 });
    writeFileSync(join(folder, file), (await isthmus(["completion", shell])).out);
    writeFileSync(join(folder, "a-manifest.yaml"), "");
    return folder;
  }
  const started = (folder: string, shell: string, ...argv: string[]): string => {
    const env = { PATH: `${folder}:${process.env["PATH"] ?? ""}`, HOME: folder, ISTHMUS_SOCKET: "/nowhere", TERM: "dumb" };
    return execFileSync(shell, argv, { encoding: "utf8", cwd: folder, env, timeout: 50_000 });
  };

  it("completes in a real bash", async () => {
    const folder = await folderFor("bash", "it");
    const script = `source ./it; COMP_WORDS=(isthmus get sit); COMP_CWORD=2; _isthmus; printf '%s ' "\${COMPREPLY[@]}"`;
    expect(started(folder, "bash", "-c", script).trim().split(" ").sort()).toEqual(["site", "sites"]);
    rmSync(folder, { recursive: true });
  });

  // The launcher installs both for `isthmus test` where it can.
  it.runIf(installed("fish"))("completes in a real fish", async () => {
    const folder = await folderFor("fish", "it.fish");
    const asked = (line: string): string[] =>
      started(folder, "fish", "--no-config", "-c", `source it.fish; complete -C '${line}'`)
        .split("\n")
        .filter((one) => one !== "");
    expect(asked("isthmus get sit").sort()).toEqual(["site", "sites"]);
    expect(asked("isthmus get nodes -o y")).toEqual(["yaml"]);
    expect(asked("isthmus apply -f a-man")).toEqual(["a-manifest.yaml"]);
    expect(asked("isthmus get nodes xyz")).toEqual([]);
    rmSync(folder, { recursive: true });
  });

  it.runIf(installed("zsh"))("completes in a real zsh, typed at its prompt", async () => {
    const folder = await folderFor("zsh", "_isthmus");
    // A zsh on a terminal of its own: Tab, and then what stands in the line.
    const completed = (line: string): string => {
      const script = `zmodload zsh/zpty
zpty typed zsh -f -i
zpty -w typed 'PS1=; fpath=(~ $fpath); autoload -Uz compinit; compinit -u -D; taken() { print -r -- "<<$BUFFER>>"; BUFFER=; zle accept-line }; zle -N taken; bindkey "^X" taken; print rea""dy'
zpty -r typed seen '*ready*'
zpty -n -w typed $'${line}\t\x18'
zpty -r typed seen '*<<*>>*'
print -r -- "\${\${seen##*<<}%%>>*}"`;
      return started(folder, "zsh", "-f", "-c", script).trim();
    };
    expect(completed("isthmus versi")).toBe("isthmus version");
    expect(completed("isthmus get nodes -o y")).toBe("isthmus get nodes -o yaml");
    expect(completed("isthmus apply -f a-man")).toBe("isthmus apply -f a-manifest.yaml");
    expect(completed("isthmus get nodes xyz")).toBe("isthmus get nodes xyz");
    rmSync(folder, { recursive: true });
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
