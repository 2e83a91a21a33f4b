import { appendFileSync, chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openAudit, type Audit } from "../../../controller/api/audit.ts";
import { temporaryFolder } from "../harness.ts";

/** One entry is about 70 bytes: three fill a file. */
const LIMITS = { bytes: 240, kept: 2 };

describe("the audit log", () => {
  let folder: ReturnType<typeof temporaryFolder>;
  let file: string;
  let failures: unknown[];
  beforeEach(() => {
    folder = temporaryFolder();
    file = join(folder.path, "audit.jsonl");
    failures = [];
  });
  afterEach(() => folder.remove());

  const open = (): Audit =>
    openAudit(
      file,
      () => 1_800_000_000_000,
      (error) => failures.push(error),
      LIMITS,
    );
  const names = (path: string): string[] =>
    existsSync(path)
      ? readFileSync(path, "utf8")
          .trim()
          .split("\n")
          .map((line) => (JSON.parse(line) as { name: string }).name)
      : [];
  const write = (audit: Audit, from: number, to: number): void => {
    for (let i = from; i <= to; i++) audit.record({ who: "root", action: "apply", name: `n${i}` });
  };

  test("keeps a few files of bounded size, newest first, and no entry is torn or lost but the oldest", () => {
    const audit = open();
    write(audit, 1, 12);
    audit.close();
    expect(failures).toEqual([]);
    const files = [`${file}.2`, `${file}.1`, file];
    expect(files.flatMap(names)).toEqual(Array.from({ length: 9 }, (_, i) => `n${i + 4}`));
    for (const path of files) {
      expect(statSync(path).size).toBeLessThanOrEqual(LIMITS.bytes);
      expect(statSync(path).mode & 0o777).toBe(0o600);
    }
    expect(existsSync(`${file}.3`)).toBe(false);
  });

  test("goes on in the full file when it cannot be put aside, and loses nothing", () => {
    const audit = open();
    mkdirSync(`${file}.2`, { mode: 0o600 });
    write(audit, 1, 8);
    audit.close();
    expect(names(file)).toEqual(Array.from({ length: 8 }, (_, k) => `n${k + 1}`));
    expect(failures.length).toBeGreaterThan(0);
  });

  test("goes on in the file that is there, and puts one aside that is full already", () => {
    const first = open();
    write(first, 1, 2);
    first.close();
    const second = open();
    write(second, 3, 3);
    second.close();
    expect(names(file)).toEqual(["n1", "n2", "n3"]);
    const third = open();
    write(third, 4, 4);
    third.close();
    expect([names(`${file}.1`), names(file)]).toEqual([["n1", "n2", "n3"], ["n4"]]);
  });

  test("takes an entry that is larger than a file", () => {
    const audit = open();
    audit.record({ who: "root", action: "apply", name: "x".repeat(500) });
    write(audit, 1, 1);
    audit.close();
    expect(names(`${file}.1`)).toEqual(["x".repeat(500)]);
    expect(names(file)).toEqual(["n1"]);
  });

  test("is refused when others may read it, the files put aside among them", () => {
    writeFileSync(file, "", { mode: 0o600 });
    appendFileSync(`${file}.1`, "");
    chmodSync(`${file}.1`, 0o644);
    expect(open).toThrow(expect.objectContaining({ code: "FileMode" }));
  });
});
