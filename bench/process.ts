/** What a process costs, from /proc. */
import { readFileSync } from "node:fs";

/** MiB, from proc_pid_smaps(5). `Pss` counts pages that several processes share by their part. */
export function memory(pid: number, field: "Rss" | "Pss"): number {
  return kibibytes(`/proc/${pid}/smaps_rollup`, field);
}

/** The highest resident set so far, in MiB. */
export function highestMemory(pid: number): number {
  return kibibytes(`/proc/${pid}/status`, "VmHWM");
}

/** User and system time, of children that ended too, in seconds (proc_pid_stat(5), fields 14 to 17, 100 ticks a second). */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / 100;
}

function kibibytes(file: string, field: string): number {
  const found = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(readFileSync(file, "utf8"));
  if (found === null) throw new Error(`${file} says nothing of ${field}`);
  return Number(found[1]) / 1024;
}
