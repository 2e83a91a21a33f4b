import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, chownSync, lchownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { IsthmusError } from "../../mesh/errors.ts";
import { places, prepareDirectories } from "../../node-agent/files.ts";
import { dropHalves } from "../../node-agent/whole-file.ts";

const isRoot = process.getuid?.() === 0;

test.runIf(isRoot)("a disk that is full leaves the old file whole: a short write is not taken for a whole one", () => {
  const script = `
    const { writeAtomic } = await import(${JSON.stringify(resolve("node-agent/whole-file.ts"))});
    const { readFileSync, readdirSync } = await import("node:fs");
    writeAtomic("/mnt/x", "old");
    let code = "none";
    try { writeAtomic("/mnt/x", "n".repeat(300_000)); } catch (error) { code = error.code; }
    console.log(JSON.stringify({ code, text: readFileSync("/mnt/x", "utf8").slice(0, 10), files: readdirSync("/mnt") }));
  `;
  const inside = 'mount -t tmpfs -o size=128k none /mnt && exec "$@"';
  const said = execFileSync("unshare", ["-m", "sh", "-c", inside, "sh", process.execPath, "--input-type=module", "-e", script], { encoding: "utf8" });
  expect(JSON.parse(said)).toEqual({ code: "DiskFull", text: "old", files: ["x"] });
});

test.runIf(isRoot)("an empty directory is taken away; one that holds something, or is a mount point, stays without an error", () => {
  const script = `
    const { removeIfEmpty } = await import(${JSON.stringify(resolve("node-agent/files.ts"))});
    const { mkdirSync, readdirSync, writeFileSync } = await import("node:fs");
    for (const name of ["empty", "full"]) mkdirSync("/mnt/" + name);
    writeFileSync("/mnt/full/x", "");
    for (const name of ["empty", "full", "none", "volume"]) removeIfEmpty("/mnt/" + name);
    console.log(JSON.stringify(readdirSync("/mnt").sort()));
  `;
  const inside = 'mount -t tmpfs none /mnt && mkdir /mnt/volume && mount -t tmpfs none /mnt/volume && exec "$@"';
  const said = execFileSync("unshare", ["-m", "sh", "-c", inside, "sh", process.execPath, "--input-type=module", "-e", script], { encoding: "utf8" });
  expect(JSON.parse(said)).toEqual(["full", "volume"]);
});

describe.runIf(isRoot)("the folders of the agent", () => {
  let folder = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "isthmus-files-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  let said: string[] = [];
  const prepare = (data: string, run = join(folder, "run")): void => {
    said = [];
    prepareDirectories(places(join(folder, data), run), (line) => said.push(line));
  };
  const refused = (data: string, run?: string): { message: string; remedy: string } => {
    try {
      prepare(data, run);
    } catch (error) {
      if (error instanceof IsthmusError && error.code === "FileMode") return { message: error.message, remedy: error.remedy ?? "" };
      throw error;
    }
    throw new Error("it was taken");
  };

  test("are made for root alone; a link that root made leads to them", () => {
    symlinkSync(join(folder, "disk"), join(folder, "link"));
    mkdirSync(join(folder, "disk"));
    prepare("link/data");
    prepare("link/data");
    expect([statSync(join(folder, "disk/data")).mode & 0o777, statSync(join(folder, "run")).mode & 0o777]).toEqual([0o700, 0o700]);
  });

  test("are refused where others may read them or have made them", () => {
    mkdirSync(join(folder, "data"), { mode: 0o755 });
    expect(refused("data").message).toBe(`${folder}/data has mode 0755; it is for root's files and sockets alone, and may be at most 0700`);
    expect(refused("data").remedy).toContain(`chmod 0700 ${folder}/data, or choose`);
    mkdirSync(join(folder, "theirs"), { mode: 0o700 });
    chownSync(join(folder, "theirs"), 65_534, 65_534);
    expect(refused("theirs").message).toBe(`${folder}/theirs belongs to user 65534, not to root`);
  });

  test("a run folder that a version before made for all to read is closed, and that is said; one that is not the agent's own is refused", () => {
    const run = join(folder, "run");
    mkdirSync(run, { mode: 0o755 });
    writeFileSync(join(run, "controller.sock"), "");
    prepare("data");
    expect(statSync(run).mode & 0o777).toBe(0o700);
    expect(said).toEqual([`${run} had mode 0755: it is for root alone now (0700)`]);
    prepare("data");
    expect(said).toEqual([]);
    chmodSync(run, 0o755);
    writeFileSync(join(run, "other.sock"), "");
    expect(refused("data").message).toContain(`${run} has mode 0755`);
    rmSync(join(run, "other.sock"));
    chmodSync(run, 0o1777);
    expect(refused("data").message).toContain(`${run} has mode 1777`);
    expect(statSync(run).mode & 0o7777).toBe(0o1777);
  });

  test("are refused where others may put something in their place, and nothing is made there", () => {
    mkdirSync(join(folder, "open"));
    chmodSync(join(folder, "open"), 0o777);
    expect(refused("open/data").message).toMatch(/open has mode 0777: others than root may replace what is in it/);
    expect(refused("ours", join(folder, "open/run")).remedy).toContain(`chmod go-w ${folder}/open`);
    chmodSync(join(folder, "open"), 0o775);
    chownSync(join(folder, "open"), 0, 50);
    expect(refused("open/data").message).toContain("mode 0775");
    expect(readdirSync(join(folder, "open"))).toEqual([]);
    chmodSync(join(folder, "open"), 0o1777);
    prepare("open/data");
  });

  test("are refused where somebody else's link leads to them, also to root's own secrets", () => {
    mkdirSync(join(folder, "secrets"), { mode: 0o700 });
    symlinkSync(join(folder, "secrets"), join(folder, "link"));
    lchownSync(join(folder, "link"), 65_534, 65_534);
    expect(refused("link").message).toBe(`${folder}/link belongs to user 65534, not to root`);
    symlinkSync("loop", join(folder, "loop"));
    expect(refused("loop").message).toContain("too many symbolic links");
  });
});

test("what a killed process left half-written goes when the next one starts; other files of the folder stay", () => {
  const folder = mkdtempSync(join(tmpdir(), "isthmus-files-"));
  try {
    for (const name of ["plan.json.7.isthmus-new", "plan.json.later.7.isthmus-new", "kernel.json.12.isthmus-new", "plan.json", "mine.new"])
      writeFileSync(join(folder, name), "");
    dropHalves(folder, "kernel.json");
    expect(readdirSync(folder).length).toBe(4);
    dropHalves(folder);
    expect(readdirSync(folder).toSorted()).toEqual(["mine.new", "plan.json"]);
    dropHalves(join(folder, "none"));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("what a write that is cut off leaves is known by its name", () => {
  const folder = mkdtempSync(join(tmpdir(), "isthmus-files-"));
  const script = `
    import fs, { readdirSync } from "node:fs";
    import { syncBuiltinESMExports } from "node:module";
    fs.fsyncSync = () => process.kill(process.pid, "SIGKILL");
    syncBuiltinESMExports();
    const { writeAtomic } = await import(${JSON.stringify(resolve("node-agent/whole-file.ts"))});
    writeAtomic(process.argv[1], "half");
  `;
  try {
    const path = join(folder, "x");
    expect(spawnSync(process.execPath, ["--input-type=module", "-e", script, path]).signal).toBe("SIGKILL");
    expect(readdirSync(folder).length).toBe(1);
    dropHalves(folder);
    expect(readdirSync(folder)).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
