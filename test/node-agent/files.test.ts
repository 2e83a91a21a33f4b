import { execFileSync } from "node:child_process";
import { resolve } from "node:path";
import { expect, test } from "vitest";

const isRoot = process.getuid?.() === 0;

test.runIf(isRoot)("a disk that is full leaves the old file whole: a short write is not taken for a whole one", () => {
  const script = `
    const { writeAtomic } = await import(${JSON.stringify(resolve("node-agent/files.ts"))});
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
