/** A machine of the lab without an agent of its own, used as one that joins, lies, is copied, or loses its tools. */
import { cp, readFile, rm, writeFile } from "node:fs/promises";
import type { Lab } from "../../lab/lab.ts";
import { installService, startService, stopService } from "../../lab/machine.ts";
import { hostPaths, REPOSITORY } from "../../lab/names.ts";
import { eventually, run, type RunResult } from "../../lab/shell.ts";

export const GUEST = "lanhost";

const PRELUDE = `export PATH="${REPOSITORY}/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root\n`;

/** The command line on the machine of the lab, as root of the controller unless a context says otherwise. */
export async function isthmus(
  lab: Lab,
  argv: readonly string[],
  options: { readonly mayFail?: boolean; readonly input?: string } = {},
): Promise<RunResult> {
  const env = { ISTHMUS_SOCKET: lab.controllerSocket ?? "" };
  return run([process.execPath, `${REPOSITORY}/cli/main.ts`, ...argv], { timeoutMs: 60_000, env, ...options });
}

export async function json<T>(lab: Lab, ...argv: string[]): Promise<T> {
  return JSON.parse((await isthmus(lab, [...argv, "-o", "json"])).stdout) as T;
}

export interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
}
interface Listed {
  readonly items: readonly {
    readonly metadata: { readonly name: string };
    readonly spec: { readonly index: number };
    readonly status?: { readonly conditions?: readonly Condition[] };
  }[];
}

export async function nodes(lab: Lab): Promise<Listed["items"]> {
  return (await json<Listed>(lab, "get", "nodes")).items;
}

/** Waits until exactly these nodes are on record and Ready. */
export async function ready(lab: Lab, names: readonly string[]): Promise<void> {
  await eventually(
    `ready: ${names.join(", ")}`,
    60_000,
    async () => {
      // A controller that was just started is not there yet.
      const items = await nodes(lab).catch(() => []);
      const up = items.filter(({ status }) => status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True"));
      return up
        .map(({ metadata }) => metadata.name)
        .sort()
        .join() === [...names].sort().join() && items.length === names.length
        ? true
        : undefined;
    },
    { everyMs: 200 },
  );
}

export async function token(lab: Lab, site: string, ...flags: string[]): Promise<string> {
  const text = (await isthmus(lab, ["create", "token", "--site", site, "--uses", "10", "--expires", "1h", ...flags, "-o", "json"])).stdout;
  const found = /ist1\.[A-Za-z0-9_.-]+/.exec(text)?.[0];
  if (found === undefined) throw new Error(`no token in: ${text}`);
  return found;
}

/** Makes the guest's service: joins at the first start, runs the agent at every later one. */
export async function startGuest(lab: Lab, join: readonly string[], lines = ""): Promise<void> {
  const cli = `"${process.execPath}" "${REPOSITORY}/cli/main.ts"`;
  const words = join.map((word) => `'${word}'`).join(" ");
  await writeFile(hostPaths(lab.name, GUEST).serviceLog, "");
  await installService(
    lab.name,
    GUEST,
    `${PRELUDE}${lines}if [ -e /var/lib/isthmus/identity.json ]; then exec ${cli} agent run; fi\nexec ${cli} join ${words}\n`,
  );
  await startService(lab.name, GUEST);
}

/** Ends the guest's agent (nothing is withdrawn). */
export async function stopGuest(lab: Lab): Promise<void> {
  await stopService(lab.name, GUEST);
}

/** As new: no agent, no kernel state, no files, not on record. */
export async function forgetGuest(lab: Lab, name: string): Promise<void> {
  await stopGuest(lab);
  await lab.exec(GUEST, ["isthmus", "cleanup"]);
  await isthmus(lab, ["delete", "node", name], { mayFail: true });
  await rm(`${hostPaths(lab.name, GUEST).lib}/isthmus`, { recursive: true, force: true });
}

export const guestLog = (lab: Lab): Promise<string> => readFile(hostPaths(lab.name, GUEST).serviceLog, "utf8");

/** The data folder of a node's agent, on the machine. */
export const dataOf = (lab: Lab, host: string): string => `${hostPaths(lab.name, host).lib}/isthmus`;

/** Puts a copy of one node's disk into the guest. */
export async function copyDisk(lab: Lab, from: string): Promise<void> {
  await rm(dataOf(lab, GUEST), { recursive: true, force: true });
  await cp(dataOf(lab, from), dataOf(lab, GUEST), { recursive: true, preserveTimestamps: true });
}

/** All that this host's kernel has, but for counters: what I3 is about. */
export async function kernelState(lab: Lab, host: string): Promise<string> {
  const asked = [
    "ip -br link | cut -d' ' -f1 | cut -d@ -f1 | sort",
    "ip -4 rule; ip -6 rule",
    "ip -4 route show table all | sort; ip -6 route show table all | grep -v -e fe80 -e ff00 | sort",
    "ip nexthop",
    "ip -br addr | sort",
    "nft list ruleset",
    "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.src_valid_mark",
    "cat /etc/hosts",
  ];
  return (await lab.exec(host, ["sh", "-c", asked.join("; ")])).stdout;
}
