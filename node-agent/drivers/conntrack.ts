/** Flows by the kernel's tracking table, read with `conntrack` where it is installed. */
import { run } from "./exec.ts";

/** A connection in one of these states is over; its entry only lingers. */
const OVER = /\b(TIME_WAIT|CLOSE|CLOSE_WAIT|LAST_ACK|FIN_WAIT)\b/;

/**
 * Live flows that carry one of the marks. What begins or ends at one of `own` addresses is nobody's traffic.
 * @param marks value and mask of each, as `0x40000000/0x7f000000`
 */
export async function clientFlows(marks: readonly string[], own: ReadonlySet<string>): Promise<number | undefined> {
  let count = 0;
  for (const family of ["ipv4", "ipv6"]) {
    for (const mark of marks) {
      const listed = await run("conntrack", ["-L", "-f", family, "-m", mark], { timeoutMs: 5_000 }).catch(() => undefined);
      if (listed?.ok !== true) return undefined;
      count += liveFlows(listed.stdout, own);
    }
  }
  return count;
}

export function liveFlows(listed: string, own: ReadonlySet<string>): number {
  return listed.split("\n").filter((line) => {
    const [, from, to] = /\bsrc=(\S+) dst=(\S+)/.exec(line) ?? [];
    return from !== undefined && to !== undefined && !own.has(from) && !own.has(to) && !OVER.test(line);
  }).length;
}
