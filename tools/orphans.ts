/** What tests left that were killed: removed before the next run, and after one that was stopped. */
import { execFileSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { removeAbandoned } from "../lab/build.ts";
import { kill, processesInNetns } from "../lab/process.ts";
import { filesIn, NETNS, networkNamespaces } from "./leftovers.ts";

/** Removes labs, namespaces, processes and folders of tests whose process is gone. Gives back the names. */
export async function removeOrphans(): Promise<string[]> {
  const namespaces = orphans(networkNamespaces());
  for (const name of namespaces) {
    for (const one of processesInNetns(join(NETNS, name))) kill(one);
    execFileSync("ip", ["netns", "del", name]);
  }
  for (const folder of orphans(filesIn(tmpdir()))) rmSync(join(tmpdir(), folder), { recursive: true, force: true });
  return [...(await removeAbandoned()), ...namespaces];
}

/** Namespaces without a lab, and their folders, are named `ist-`, a letter, `-`, and the id of the test's process. */
function orphans(names: readonly string[]): string[] {
  return names.filter((name) => {
    const pid = /^ist-[a-z]-([0-9]+)-/.exec(name)?.[1];
    return pid !== undefined && !existsSync(`/proc/${pid}`);
  });
}
