import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { viewHash } from "../../mesh/compile/views.ts";
import { formatCache, parseCache, readCache, writeCache } from "../../node-agent/cache.ts";
import { type Holdings, holdingsOf } from "../../node-agent/holdings.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ist-f-cache-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const HELD = holdingsOf(
  { lineage: "l", epoch: 2, revision: 7 },
  { mesh: { network: { name: "isthmus" }, "peer/a": { i: 1 } }, "node/a": { self: { name: "a" } } },
);

const shape = (holdings: Holdings): unknown => ({
  seen: holdings.seen,
  views: [...holdings.views].map(([id, held]) => [id, held.r, viewHash(held.view), [...held.view.data]]),
});

describe("the plan on disk", () => {
  test("comes back as it was written, with the same hashes, readable by root alone", () => {
    const path = join(folder, "plan.json");
    writeCache(path, HELD);
    const read = readCache(path, 0);
    expect(read.state === "read" && shape(read.holdings)).toEqual(shape(HELD));
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(folder)).toEqual(["plan.json"]);
  });

  test("an absent one is no damage", () => {
    expect(readCache(join(folder, "plan.json"), 0)).toEqual({ state: "absent" });
  });

  test("a damaged one is set aside under a new name, kept whole, and never read as a plan", () => {
    const path = join(folder, "plan.json");
    writeCache(path, HELD);
    const damaged = readFileSync(path, "utf8").replace('"revision":7', '"revision":8');
    writeFileSync(path, damaged);
    const read = readCache(path, Date.UTC(2026, 10, 21, 12));
    expect(read).toMatchObject({ state: "damaged", aside: `${path}.damaged-2026-11-21T120000`, why: "its checksum does not match" });
    expect(existsSync(path)).toBe(false);
    expect(read.state === "damaged" && readFileSync(read.aside, "utf8")).toBe(damaged);
  });

  test("no change of one character and no cut passes for a plan", () => {
    const text = formatCache(HELD);
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.integer({ min: 1, max: 126 }), (at, shift) => {
        const changed = text.slice(0, at) + String.fromCharCode((text.charCodeAt(at) + shift) % 127) + text.slice(at + 1);
        expect(typeof parseCache(changed)).toBe("string");
        expect(typeof parseCache(text.slice(0, at))).toBe("string");
      }),
    );
  });

  test("any text at all is either a plan or damage, never an exception", () => {
    fc.assert(fc.property(fc.string(), (text) => void parseCache(text)));
    fc.assert(fc.property(fc.string(), (text) => void parseCache(`isthmus-plan 1 ${text}`)));
  });
});
