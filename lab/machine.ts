/** One host of a lab as a machine: plugging it in, powering it off without a goodbye, and its one service. */
import { randomBytes, randomUUID } from "node:crypto";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { access, mkdir, open, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { hostScript, linkLines, worldInterface, worldLines } from "./blueprint.ts";
import { groupProcesses, killGroup, makeGroup, removeGroup } from "./cgroup.ts";
import { hostPaths, NETNS_DIR, netnsName, REPOSITORY, WORLD } from "./names.ts";
import { descendants, identify, kill, type ProcessId, type ProcessInfo, processesInNetns, processesUnder } from "./process.ts";
import { eventually, ipBatch, netnsScript, run } from "./shell.ts";
import { initOf } from "./state.ts";
import type { Host, Topology } from "./topology.ts";

const INIT = fileURLToPath(new URL("init.sh", import.meta.url));

/** Makes the host's disk as a fresh installation has it. */
export async function installDisk(lab: string, host: Host, service: string | undefined): Promise<void> {
  const paths = hostPaths(lab, host.name);
  for (const dir of [paths.control, `${paths.lib}/lab`, paths.log, `${paths.etc}/upper`, `${paths.etc}/work`]) await mkdir(dir, { recursive: true });
  const etc = {
    hosts: `127.0.0.1 localhost\n127.0.1.1 ${host.name}\n::1 localhost ip6-localhost ip6-loopback\n`,
    hostname: `${host.name}\n`,
    "machine-id": `${randomBytes(16).toString("hex")}\n`,
    "resolv.conf": "# This host has no resolver.\n",
  };
  for (const [name, text] of Object.entries(etc)) await writeFile(`${paths.etc}/upper/${name}`, text);
  await writeFile(paths.serviceLog, "");
  if (service !== undefined) await installService(lab, host.name, service);
}

/** The service that the host runs whenever it is up, as an enabled unit would. */
export async function installService(lab: string, host: string, script: string): Promise<void> {
  await writeFile(`${hostPaths(lab, host).lib}/lab/service`, script, { mode: 0o700 });
}

/** Cables only: the far ends of the host's links. Made for all hosts at once by `lab up`, one by one when healing. */
export async function plugIn(lab: string, topology: Topology, hosts: readonly Host[]): Promise<void> {
  await ipBatch(hosts.map((host) => `netns add ${netnsName(lab, host.name)}`));
  await ipBatch(hosts.flatMap((host) => linkLines(lab, topology, host)));
  await ipBatch(
    hosts.flatMap((host) => worldLines(topology, host)),
    netnsName(lab, WORLD),
  );
}

/** Boots a host whose cables are plugged in: empty /run, a new boot id, addresses, then its first process and service. */
export async function boot(lab: string, host: Host): Promise<void> {
  const paths = hostPaths(lab, host.name);
  const netns = netnsName(lab, host.name);
  await netnsScript(netns, hostScript(host));
  await rm(paths.run, { recursive: true, force: true });
  await rm(`${paths.control}/init.pid`, { force: true });
  for (const dir of ["lab", "lock", "wireguard"]) await mkdir(`${paths.run}/${dir}`, { recursive: true });
  await writeFile(`${paths.run}/lab/boot_id`, `${randomUUID()}\n`);
  if (existsSync(`${paths.lib}/lab/service`)) await writeFile(`${paths.run}/lab/on`, "");
  await run(["mkfifo", `${paths.run}/lab/wake`]);
  const log = await open(`${paths.control}/init.log`, "w");
  const group = makeGroup(lab, host.name) ?? "";
  const ways = ["--mount", "--uts", "--ipc", "--pid", ...(group === "" ? [] : ["--cgroup"]), "--fork"];
  // Into the group first: the new cgroup namespace has the group as its root.
  const join = '[ -z "$1" ] || echo $$ >"$1/cgroup.procs"; shift; exec "$@"';
  const init = ["sh", INIT, host.name, paths.control, paths.run, paths.lib, paths.log, paths.etc, REPOSITORY, group];
  const argv = ["nsenter", `--net=${NETNS_DIR}/${netns}`, "sh", "-c", join, "sh", group, "unshare", ...ways, ...init];
  spawn(argv[0]!, argv.slice(1), { detached: true, cwd: "/", stdio: ["ignore", log.fd, log.fd] }).unref();
  await log.close();
  try {
    await eventually(`${host.name} boots`, 20_000, () => (existsSync(`${paths.run}/lab/ready`) ? true : undefined), { everyMs: 5 });
  } catch (error) {
    const said = await readFile(`${paths.control}/init.log`, "utf8");
    throw said.trim() === "" ? error : new Error(`${host.name} does not boot: ${said.trim()}`, { cause: error });
  }
}

/** Power off: the network is gone at once, every process dies, and nothing of the kernel's state is left. Disks stay. */
export async function powerOff(lab: string, topology: Topology, host: Host): Promise<void> {
  const world = netnsName(lab, WORLD);
  const ends = host.nics.map((nic) => worldInterface(topology, host, nic));
  await ipBatch(
    ends.map((end) => `link set ${end} down`),
    world,
    { force: true },
  );
  await killAll(lab, host.name);
  await ipBatch(
    ends.map((end) => `link del ${end}`),
    world,
    { force: true },
  );
  await ipBatch([`netns del ${netnsName(lab, host.name)}`], undefined, { force: true });
}

/** Kills every process of a host (its namespaces hold only the lab's own). */
export async function killAll(lab: string, host: string): Promise<void> {
  const init = await initOf(lab, host);
  if (init !== undefined) kill(init);
  const netns = `${NETNS_DIR}/${netnsName(lab, host)}`;
  await eventually(`the processes of ${host} end`, 10_000, () => {
    const left = processesInNetns(netns).filter((one) => one.pid !== process.pid);
    for (const one of left) kill(one);
    return left.length === 0 && (init === undefined || identify(init.pid)?.start !== init.start) ? true : undefined;
  });
  await rm(`${hostPaths(lab, host).control}/init.pid`, { force: true });
  await removeGroup(lab, host);
}

/** The service's processes as its service manager sees them: its control group, else its session and what descends from it. */
export async function serviceProcesses(lab: string, host: string): Promise<ProcessId[]> {
  const init = await initOf(lab, host);
  if (init === undefined) return [];
  const group = groupProcesses(lab, host);
  if (group !== undefined) return group;
  const all = processesUnder(init);
  const leader = all.find((one) => one.parent !== init.pid && one.session === one.pid && isService(one, all, init));
  if (leader === undefined) return [];
  const tree = new Set(descendants(all, leader.pid).map((one) => one.pid));
  return all.filter((one) => tree.has(one.pid) || one.session === leader.pid);
}

/** The service is the session that init's keeper (a child of init) started. */
function isService(candidate: ProcessInfo, all: readonly ProcessInfo[], init: ProcessId): boolean {
  return all.some((one) => one.pid === candidate.parent && one.parent === init.pid && one.argv.some((arg) => arg === INIT));
}

/** `kill -9` of the whole control group; stays dead until `startService`. */
export async function stopService(lab: string, host: string): Promise<void> {
  await rm(`${hostPaths(lab, host).run}/lab/on`, { force: true });
  await eventually(`the service of ${host} ends`, 10_000, async () => {
    killGroup(lab, host);
    const left = await serviceProcesses(lab, host);
    for (const one of left) kill(one);
    return left.length === 0 ? true : undefined;
  });
}

export async function startService(lab: string, host: string): Promise<void> {
  const dir = `${hostPaths(lab, host).run}/lab`;
  await access(dir);
  await writeFile(`${dir}/on`, "");
  // Opened for reading too: never blocks, and the word waits inside when nobody reads yet (init keeps the pipe open).
  const wake = await open(`${dir}/wake`, "r+");
  await wake.write("start\n");
  await wake.close();
}

/** Kills and lets the service manager start it again, as `systemctl kill` with Restart=always. */
export async function crashService(lab: string, host: string): Promise<void> {
  const all = await serviceProcesses(lab, host);
  killGroup(lab, host);
  for (const one of all) kill(one);
}

/** Sends a signal to every process of the service (SIGSTOP, SIGCONT, SIGTERM …). */
export async function signalService(lab: string, host: string, signal: NodeJS.Signals): Promise<void> {
  for (const one of await serviceProcesses(lab, host)) kill(one, signal);
}
