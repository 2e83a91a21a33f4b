/** What a killed `isthmus test kernel` leaves behind: nothing, or nothing for longer than until the next one. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { identify, isAlive, type ProcessId } from "../../lab/process.ts";
import { ownFolder } from "../../tools/vm/scratch.ts";

const MODULE = join(import.meta.dirname, "../../tools/vm/scratch.ts");
let parent: string;

beforeEach(() => void (parent = mkdtempSync(join(tmpdir(), "isthmus-scratch-"))));
afterEach(() => rmSync(parent, { recursive: true, force: true }));

/** A process with a folder and a child of its own that writes there until its end. */
async function owner(): Promise<{ process: ChildProcess; child: ProcessId }> {
  const writes = `while :; do date >"$0/$(date +%N)"; done`;
  const started = spawn(process.execPath, [
    "--input-type=module-typescript",
    "-e",
    `import { endInOrder, ownFolder, start } from ${JSON.stringify(MODULE)};
    endInOrder();
    const child = start(["sh", "-c", ${JSON.stringify(writes)}, ownFolder(${JSON.stringify(parent)}, "run-")], { stdio: "ignore" });
    console.log(child.pid);`,
  ]);
  const [text] = (await once(started.stdout, "data")) as [Buffer];
  const child = identify(Number(text.toString()));
  if (child === undefined) throw new Error("its child is not there");
  return { process: started, child };
}

const gone = async (id: ProcessId): Promise<void> => expect.poll(() => isAlive(id), { timeout: 20_000 }).toBe(false);

describe("a process with a folder of its own", () => {
  test.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)("leaves no child and no folder when it gets %s", async (signal) => {
    const { process, child } = await owner();
    expect(readdirSync(parent)).toHaveLength(1);
    process.kill(signal);
    await once(process, "exit");
    await gone(child);
    expect(readdirSync(parent)).toEqual([]);
  });

  test("leaves no child when it is killed without warning, and its folder goes when the next one comes", async () => {
    const { process, child } = await owner();
    process.kill("SIGKILL");
    await once(process, "exit");
    await gone(child);
    const [left = ""] = readdirSync(parent);
    expect(left).toMatch(/^run-/);
    const [mine, other] = [ownFolder(parent, "run-"), ownFolder(parent, "run-")];
    expect(existsSync(join(parent, left))).toBe(false);
    // The living keep theirs.
    expect([existsSync(mine), existsSync(other)]).toEqual([true, true]);
  });
});
