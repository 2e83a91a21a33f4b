/** Who may keep an agent from starting: another agent, and nobody else. Each test has a network of its own. Needs root. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { isRoot, kill, sh } from "./netns.ts";

const NS = `ist-lock-${process.pid}-a`;
const NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
/** Takes the lock of a run folder and keeps it, or says why not. */
const AGENT = `
  const { agentPid, isRunning, takeLock } = await import(${JSON.stringify(resolve("node-agent/lock.ts"))});
  const run = process.argv[1];
  try {
    if (process.argv[2] === "ask") console.log(await isRunning(run));
    else if (process.argv[2] === "pid") console.log(agentPid(run));
    else {
      const lock = await takeLock(run, (line) => console.error(line));
      process.once("SIGTERM", () => void lock.release().then(() => process.exit()));
      setInterval(() => {}, 60_000);
      console.log("has it");
    }
  } catch (error) { console.log(error.code, error.message); }
`;
const SQUATTER = `require("net").createServer().listen("\\0isthmus-agent", () => console.log("bound"));`;
/** Calls itself after process 1. */
const NAMED = `process.title = "pid=1,"; ${SQUATTER}`;

interface Started {
  readonly process: ChildProcess;
  readonly said: string;
}

describe.runIf(isRoot)("the lock of the agent", () => {
  let folder = "";
  const children: ChildProcess[] = [];
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "isthmus-lock-"));
    sh(`ip netns add ${NS}; mkdir -m 700 ${folder}/run ${folder}/other`);
  });
  afterEach(() => {
    for (const { pid } of children.splice(0)) if (pid !== undefined) kill(pid);
    sh(`ip netns del ${NS}`);
    rmSync(folder, { recursive: true });
  });
  const start = async (before: readonly string[], ...args: readonly string[]): Promise<Started> => {
    const child = spawn("nsenter", [`--net=/run/netns/${NS}`, ...before, process.execPath, ...args], { stdio: ["ignore", "pipe", "inherit"] });
    children.push(child);
    const [said] = await Promise.race([
      new Promise<[string]>((done) => createInterface(child.stdout).once("line", (line) => done([line]))),
      new Promise<[string]>((done) => child.once("exit", (code) => done([`exit status ${code}`]))),
    ]);
    return { process: child, said };
  };
  const agent = async (run: string, before: readonly string[] = []): Promise<Started> =>
    start(before, "--input-type=module", "-e", AGENT, join(folder, run));
  const runs = async (run: string): Promise<string> => (await start([], "--input-type=module", "-e", AGENT, join(folder, run), "ask")).said;
  const pid = async (run: string): Promise<string> => (await start([], "--input-type=module", "-e", AGENT, join(folder, run), "pid")).said;
  const ended = async ({ process: child }: Started, signal: NodeJS.Signals): Promise<void> => {
    const exit = new Promise((done) => child.once("exit", done));
    child.kill(signal);
    await exit;
  };

  test("keeps a second one out, also one with another run folder, and is free when its holder was killed or has ended", async () => {
    expect(await runs("run")).toBe("false");
    const first = await agent("run");
    expect(first.said).toBe("has it");
    expect((await agent("run")).said).toBe(`AlreadyRunning an isthmus agent runs on this host already (process ${first.process.pid})`);
    expect((await agent("other")).said).toMatch(/^AlreadyRunning /);
    expect([await runs("run"), await runs("other"), await runs("none")]).toEqual(["true", "true", "true"]);
    expect([await pid("run"), await pid("other")]).toEqual([String(first.process.pid), String(first.process.pid)]);
    await ended(first, "SIGKILL");
    expect(await runs("run")).toBe("false");
    const second = await agent("run");
    expect(second.said).toBe("has it");
    await ended(second, "SIGTERM");
    expect(await runs("run")).toBe("false");
    expect(sh(`ls ${folder}/run`)).toBe("");
  });

  test("keeps one out that shares the run folder and is in another pid namespace", async () => {
    const inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    const first = await agent("run", inside);
    expect(first.said).toBe("has it");
    // Its own word is the number that it has in there.
    expect(sh(`cat ${folder}/run/agent.pid`).trim()).toBe("1");
    const outside = sh(`pgrep -P ${first.process.pid}`).trim();
    expect((await agent("run")).said).toMatch(new RegExp(`^AlreadyRunning .*\\(process ${outside}\\)`));
    expect([await runs("run"), await pid("run")]).toEqual(["true", outside]);
  });

  test("waits for one who only asks whether an agent runs", async () => {
    const asking = spawn("flock", [join(folder, "run"), "sh", "-c", "echo asks; sleep 0.4"], { stdio: ["ignore", "pipe", "inherit"] });
    children.push(asking);
    await new Promise((done) => asking.stdout.once("data", done));
    expect((await agent("run")).said).toBe("has it");
  });

  test.each([
    ["a user without rights", NOBODY],
    ["a user who calls himself after process 1", NOBODY, NAMED],
    ["a container's root that may not change the network", ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]],
    ["a user who is root in a namespace of his own", [...NOBODY, "unshare", "--user", "--map-root-user"]],
  ])("cannot be held by %s", async (_who, before, squatter = SQUATTER) => {
    expect((await start(before, "-e", squatter)).said).toBe("bound");
    expect(await runs("run")).toBe("false");
    const first = await agent("run");
    expect(first.said).toBe("has it");
    // The name is lost, the folder is not.
    expect((await agent("run")).said).toMatch(/^AlreadyRunning /);
    expect(await runs("run")).toBe("true");
  });
});
