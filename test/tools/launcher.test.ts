/** The launcher with a registry that is made up: when it installs, and what a failure leaves. */
import { execFileSync, spawnSync } from "node:child_process";
import { appendFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");

/** Makes what `npm ci` would make: a `node` that says which packages it belongs to, and what it was asked to run. */
const NPM = `#!/bin/sh
echo "npm $*" >>"$NPM_LOG"
[ -z "$NPM_FAILS" ] || { echo "ENOTFOUND"; exit 1; }
mkdir -p node_modules/node/bin
printf '#!/bin/sh\\necho "$*" >>"$NPM_LOG.node"; shift; echo "$(cat %s/version) ran $*"\\n' '$(dirname "$0")' >node_modules/node/bin/node
cat package-lock.json >node_modules/node/bin/version
chmod +x node_modules/node/bin/node
`;

describe("the launcher", () => {
  let tree: string;
  beforeEach(() => {
    tree = mkdtempSync(join(tmpdir(), "isthmus-launcher-"));
    cpSync(join(root, "isthmus"), join(tree, "isthmus"));
    for (const name of ["package.json", ".npmrc"]) writeFileSync(join(tree, name), "");
    writeFileSync(join(tree, "package-lock.json"), "v1");
    mkdirSync(join(tree, "bin"));
    writeFileSync(join(tree, "bin/npm"), NPM, { mode: 0o755 });
    writeFileSync(join(tree, "npm.log"), "");
  });
  afterEach(() => rmSync(tree, { recursive: true, force: true }));

  const start = (argv: readonly string[], env: Record<string, string> = {}): { out: string; err: string } => {
    const path = `${join(tree, "bin")}:${process.env["PATH"] ?? ""}`;
    const { stdout, stderr } = spawnSync(join(tree, "isthmus"), argv, {
      encoding: "utf8",
      env: { PATH: path, NPM_LOG: join(tree, "npm.log"), NPM_FAILS: "", ...env },
    });
    return { out: stdout.trim(), err: stderr };
  };
  const installs = (): number => readFileSync(join(tree, "npm.log"), "utf8").split("\n").length - 1;
  const upgrade = (): void => appendFileSync(join(tree, "package-lock.json"), ".1");

  test("installs at the first start, not at the next, and again when the lock file changed", () => {
    expect(start(["get", "nodes"])).toMatchObject({ out: "v1 ran get nodes", err: expect.stringContaining("installing npm packages") as string });
    expect(start(["version"])).toEqual({ out: "v1 ran version", err: "" });
    expect(installs()).toBe(1);
    upgrade();
    expect(start(["version"]).out).toBe("v1.1 ran version");
    expect(installs()).toBe(2);
    expect(readdirSync(tree).filter((name) => name.endsWith(".new"))).toEqual([]);
  });

  test("takes what somebody installed with npm itself, until the lock file changes", () => {
    start(["version"]);
    rmSync(join(tree, "node_modules/.isthmus-installed"));
    writeFileSync(join(tree, "node_modules/.package-lock.json"), "");
    const [before, after] = [new Date(Date.now() - 60_000), new Date(Date.now() + 60_000)];
    utimesSync(join(tree, "package-lock.json"), before, before);
    expect(start(["version"])).toEqual({ out: "v1 ran version", err: "" });
    expect(installs()).toBe(1);
    upgrade();
    utimesSync(join(tree, "package-lock.json"), after, after);
    expect(start(["version"]).out).toBe("v1.1 ran version");
  });

  test("goes on with the packages that are there when the registry cannot be reached, and says so", () => {
    start(["version"]);
    upgrade();
    const { out, err } = start(["version"], { NPM_FAILS: "yes" });
    expect(out).toBe("v1 ran version");
    expect(err).toContain("ENOTFOUND");
    expect(err).toContain("going on with the packages that are there");
    expect(existsSync(join(tree, "node_modules/node/bin/node"))).toBe(true);
  });

  test("says what failed when there is nothing to go on with", () => {
    const { out, err } = start(["version"], { NPM_FAILS: "yes" });
    expect(out).toBe("");
    expect(err).toContain("error: npm ci failed");
  });

  test.each(["agent", "controller", "join", "status", "leave", "cleanup"])("%s never asks a registry", (command) => {
    start(["version"]);
    upgrade();
    expect(start([command, "now"]).out).toMatch(new RegExp(`^v1 ran .*${command} now$`));
    expect(installs()).toBe(1);
  });

  test("takes an npm ci of someone's own for an installation, until the lock file changes", () => {
    start(["version"]);
    rmSync(join(tree, "node_modules/.isthmus-installed"));
    utimesSync(join(tree, "package-lock.json"), 1, 1);
    writeFileSync(join(tree, "node_modules/.package-lock.json"), "");
    start(["version"]);
    expect(installs()).toBe(1);
    utimesSync(join(tree, "node_modules/.package-lock.json"), 0, 0);
    start(["version"]);
    expect(installs()).toBe(2);
  });

  test("compiles a service's code before its start, once, and again when a source changed", () => {
    for (const folder of ["mesh", "controller", "node-agent", "cli"]) mkdirSync(join(tree, folder));
    const warmed = (): number =>
      readFileSync(join(tree, "npm.log.node"), "utf8")
        .split("\n")
        .filter((line) => line.includes("--import")).length;
    expect(start(["agent", "run"]).out).toMatch(/agent run$/);
    start(["agent", "run"]);
    expect(warmed()).toBe(1);
    start(["controller", "run"]);
    expect(warmed()).toBe(2);
    writeFileSync(join(tree, "mesh/new.ts"), "");
    utimesSync(join(tree, "mesh/new.ts"), Date.now() / 1000 + 60, Date.now() / 1000 + 60);
    start(["agent", "run"]);
    expect(warmed()).toBe(3);
  });

  test("compiles all that a controller and an agent load: what is missing brings the compiler into their memory for good", () => {
    const missing = (...argv: string[]): string[] => {
      const { stderr } = spawnSync("timeout", ["--signal=KILL", "60", join(root, "isthmus"), ...argv], {
        encoding: "utf8",
        env: { PATH: process.env["PATH"] ?? "", NODE_COMPILE_CACHE: join(tree, "compiled"), NODE_DEBUG_NATIVE: "COMPILE_CACHE" },
      });
      expect(stderr).toContain("StrippedTypeScript");
      return [...stderr.matchAll(/for StrippedTypeScript (\S+?)\.\.\..*no such file/g)].map(([, file]) => file ?? "");
    };
    // Neither gets far: an address that is nobody's, a machine that has not joined. What says so is loaded late.
    const places = ["--data", join(tree, "data")];
    expect(missing("controller", "run", ...places, "--listen", "192.0.2.1:1", "--socket", join(tree, "sock"))).toEqual([
      expect.stringContaining("cli/errors.ts"),
    ]);
    expect(missing("agent", "run", ...places, "--run", join(tree, "run")).filter((file) => !/cli\/errors|model\/suggest/.test(file))).toEqual([]);
  });

  test("is a script that every sh understands", () => {
    execFileSync("sh", ["-n", join(root, "isthmus")]);
  });
});
