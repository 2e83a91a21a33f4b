import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { makeFolders } from "../../mesh/folders.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ist-folders-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const make = (path: string): void => makeFolders(path, 0o700, { mkdirSync, statSync }, "Choose another.");

it("makes a folder and those above it with the mode, and leaves those that are there", () => {
  make(join(folder, "a/b//c/"));
  for (const path of ["a", "a/b", "a/b/c"]) expect(statSync(join(folder, path)).mode & 0o777).toBe(0o700);
  make(join(folder, "a/b/c"));
  make("/");
});

it("follows a link to a folder", () => {
  symlinkSync(folder, join(folder, "link"));
  make(join(folder, "link/x"));
  expect(statSync(join(folder, "x")).isDirectory()).toBe(true);
});

it("says what cannot be made, and ends, where the folder above is there and mkdir says that it is not", () => {
  expect(() => make("/proc/isthmus-none/x")).toThrow(expect.objectContaining({ code: "FileMode", exit: 7, remedy: "Choose another." }) as Error);
});

it("does not take a file, or a link to nowhere, for a folder", () => {
  writeFileSync(join(folder, "file"), "");
  symlinkSync(join(folder, "nowhere"), join(folder, "dangling"));
  for (const name of ["file", "file/x", "dangling"])
    expect(() => make(join(folder, name))).toThrow(expect.objectContaining({ code: "FileMode" }) as Error);
});

it("tells a full disk from a wrong place", () => {
  const full = Object.assign(new Error("no space"), { code: "ENOSPC" });
  const calls = {
    statSync: () => undefined,
    mkdirSync: () => {
      throw full;
    },
  };
  expect(() => makeFolders("/x", 0o700, calls, "")).toThrow(expect.objectContaining({ code: "DiskFull" }) as Error);
});
