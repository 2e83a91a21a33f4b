import { chmodSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { openSeals } from "../../../controller/pki/seals.ts";
import { temporaryFolder } from "../harness.ts";

const folder = temporaryFolder();
const other = temporaryFolder();
afterAll(() => {
  folder.remove();
  other.remove();
});
const AT = { lineage: "3f0c", epoch: 2, revision: 17 };

test("a seal proves its own position, also after a restart, and no other", () => {
  const seals = openSeals(folder.path);
  const sealed = { ...AT, seal: seals.seal(AT) };
  expect(openSeals(folder.path).proves(sealed)).toBe(true);
  for (const change of [{ lineage: "3f0d" }, { epoch: 1 }, { revision: 18 }]) expect(seals.proves({ ...sealed, ...change })).toBe(false);
  for (const seal of [undefined, "", sealed.seal.slice(1), `${sealed.seal}A`, "A".repeat(22), "\u{1f9e8}"])
    expect(seals.proves(seal === undefined ? AT : { ...AT, seal })).toBe(false);
  expect(openSeals(other.path).proves(sealed)).toBe(false);
});

test("the key is for its owner only", () => {
  const file = join(folder.path, "position.key");
  expect(statSync(file).mode & 0o777).toBe(0o600);
  chmodSync(file, 0o640);
  expect(() => openSeals(folder.path)).toThrow(expect.objectContaining({ code: "FileMode" }));
});

test.each(["", "c2hvcnQ=", "no base64 at all"])("a key file that holds %j is refused", (text) => {
  const damaged = temporaryFolder();
  writeFileSync(join(damaged.path, "position.key"), text, { mode: 0o600 });
  expect(() => openSeals(damaged.path)).toThrow(expect.objectContaining({ code: "StoreDamaged" }));
  damaged.remove();
});
