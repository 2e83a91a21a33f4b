/** The hosts file where there is no room, or where it cannot be renamed over. Needs root: each test mounts disks of its own. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";

const HOSTS = join(import.meta.dirname, "../../../node-agent/drivers/hosts.ts");
/** Adds as many names as asked for. */
const WRITE = `
  const { writeHosts } = await import(process.argv[1]);
  const names = Array.from({ length: Number(process.argv[3]) }, (_, i) => ["node" + i, ["10.101.0." + i]]);
  try { writeHosts(process.argv[2], new Map(names)); } catch (error) { console.log(error.code); }
`;
const BEFORE = "127.0.0.1 localhost\n10.0.0.9 printer\n";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "isthmus-hosts-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** What the script printed, run where it may mount; `add N` writes N names and prints the error's code. */
function inside(script: string): string {
  const add = `add() { "$NODE" --input-type=module -e "$WRITE" "$HOSTS" ${dir}/etc/hosts "$1"; }`;
  const disk = (name: string): string => `mkdir ${dir}/${name} && mount -t tmpfs -o size=16k tmpfs ${dir}/${name}`;
  const fill = `fill() { dd if=/dev/zero of="$1/filler" bs=1k 2>/dev/null || true; }`;
  const start = `printf '${BEFORE.replaceAll("\n", "\\n")}' > ${dir}/etc/hosts`;
  const { stdout, stderr, status } = spawnSync("unshare", ["-m", "sh", "-ec", [add, fill, disk("etc"), disk("own"), start, script].join("\n")], {
    encoding: "utf8",
    env: { ...process.env, NODE: process.execPath, WRITE, HOSTS },
  });
  expect([status, stderr]).toEqual([0, ""]);
  return stdout;
}

it("stays as it is on a full disk", () => {
  expect(inside(`fill ${dir}/etc; add 2; cat ${dir}/etc/hosts; ls ${dir}/etc`)).toBe(`DiskFull\n${BEFORE}filler\nhosts\n`);
});

const ownMount = (): string => `cp ${dir}/etc/hosts ${dir}/own/hosts; mount --bind ${dir}/own/hosts ${dir}/etc/hosts`;

it("is written where it is a mount of its own, as in a container", () => {
  expect(inside(`${ownMount()}; add 1; cat ${dir}/etc/hosts`)).toMatch(/printer\n# isthmus begin[^\n]*\n10.101.0.0 node0\n# isthmus end\n$/);
});

it("is written in a folder that is read-only, where it is a mount of its own", () => {
  expect(inside(`${ownMount()}; mount -o remount,ro ${dir}/etc; add 1; cat ${dir}/etc/hosts`)).toMatch(/10.101.0.0 node0/);
});

it("comes back where it is a mount of its own without room for more", () => {
  expect(inside(`${ownMount()}; fill ${dir}/own; add 1; tail -n 1 ${dir}/etc/hosts; add 250; cat ${dir}/etc/hosts`)).toMatch(
    new RegExp(`^# isthmus end\nDiskFull\n${BEFORE}# isthmus begin[^\n]*\n10.101.0.0 node0\n# isthmus end\n$`),
  );
});
