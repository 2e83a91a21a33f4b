/**
 * A control group per host, and one inside for its service, as a service manager makes them: what is killed with the
 * service is what the kernel counts to it, double forks included. Without a writable cgroup2 (some containers) the
 * service's session stands in.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { identify, type ProcessId } from "./process.ts";
import { eventually } from "./shell.ts";

const ROOT = "isthmus-lab";

function unifiedRoot(): string | undefined {
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
  return mounts.map((line) => line.split(" ")).find(([, , type]) => type === "cgroup2")?.[1];
}

function pathOf(lab: string, host: string): string | undefined {
  const root = unifiedRoot();
  return root === undefined ? undefined : `${root}/${ROOT}/${lab}/${host}`;
}

/** Makes the host's group; undefined where that cannot be. */
export function makeGroup(lab: string, host: string): string | undefined {
  const path = pathOf(lab, host);
  if (path === undefined) return undefined;
  try {
    mkdirSync(`${path}/service`, { recursive: true });
    return path;
  } catch {
    return undefined;
  }
}

/** Processes of the host's service; undefined where there is no group. */
export function groupProcesses(lab: string, host: string): ProcessId[] | undefined {
  const path = pathOf(lab, host);
  if (path === undefined || !existsSync(`${path}/service/cgroup.procs`)) return undefined;
  return readFileSync(`${path}/service/cgroup.procs`, "utf8")
    .split("\n")
    .flatMap((pid) => (pid === "" ? [] : (identify(Number(pid)) ?? [])));
}

/** `cgroup.kill`: all at once, forks in flight included (Linux 5.14). */
export function killGroup(lab: string, host: string): void {
  const file = `${pathOf(lab, host) ?? ""}/service/cgroup.kill`;
  if (existsSync(file)) writeFileSync(file, "1\n");
}

/** Removes the host's group once its processes are gone. */
export async function removeGroup(lab: string, host: string): Promise<void> {
  const path = pathOf(lab, host);
  if (path === undefined) return;
  for (const dir of [`${path}/service`, path]) await eventually(`the control group ${dir} empties`, 5000, () => remove(dir));
  // The lab's own, and the one of all labs: gone with their last member.
  remove(dirname(path));
  remove(dirname(dirname(path)));
}

function remove(dir: string): true | undefined {
  try {
    rmdirSync(dir);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? true : undefined;
  }
}
