/** What every test with namespaces of its own needs. */
import { execFileSync, spawnSync } from "node:child_process";

export const isRoot = process.getuid?.() === 0;

/** Runs a shell script on this machine; throws on failure. */
export function sh(script: string): string {
  return execFileSync("sh", ["-c", script], { encoding: "utf8" });
}

export function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It is gone.
  }
}

/** Ids of the processes in a namespace; none where there is no such namespace. */
export function pidsInside(ns: string): number[] {
  const { stdout } = spawnSync("ip", ["netns", "pids", ns], { encoding: "utf8" });
  return stdout
    .split("\n")
    .filter((pid) => pid !== "")
    .map(Number);
}

/** A bridge `br0` in a namespace of the given name, made anew. */
export function makeBridge(ns: string): void {
  sh(
    `ip netns del ${ns} 2>/dev/null; ip netns add ${ns}; ip -n ${ns} link set lo up; ip -n ${ns} link add br0 type bridge; ip -n ${ns} link set br0 up`,
  );
}
