/** Building a lab's namespaces and hosts, and taking everything of it away again. */
import { mkdir, readdir, rm, rmdir } from "node:fs/promises";
import { IsthmusError } from "../mesh/errors.ts";
import { worldInterface, worldScript } from "./blueprint.ts";
import { raiseInotify, restoreInotify } from "./inotify.ts";
import { boot, installDisk, killAll, plugIn } from "./machine.ts";
import { DATA_ROOT, hostPaths, labPaths, NETNS_DIR, netnsName, RUN_ROOT, WORLD } from "./names.ts";
import { identify, kill } from "./process.ts";
import { each, ipBatch, netnsScript } from "./shell.ts";
import { abandonedLabs, labNames, type LabState, readState, writeState } from "./state.ts";
import { hostNamed, type Host, type Topology } from "./topology.ts";

export interface BuildOptions {
  readonly lab: string;
  readonly topology: Topology;
  /** The service of a host, as a shell script; undefined for none. */
  readonly serviceOf: (host: Host) => string | undefined;
  readonly joined: boolean;
  /** The lab is there until `lab down`, not only as long as this process. */
  readonly lasting: boolean;
}

/** Makes world and hosts and boots them. The caller has checked that no lab of that name is in use. */
export async function buildHosts(options: BuildOptions): Promise<LabState> {
  const { lab, topology } = options;
  const builder = identify(process.pid)!;
  const state: LabState = {
    name: lab,
    phase: "building",
    builder,
    createdAt: new Date().toISOString(),
    topology,
    joined: options.joined,
    ...(options.lasting ? {} : { keeper: builder }),
  };
  // Written before anything is made: whoever comes after a crash knows what to remove.
  await writeState(state);
  if (options.joined) await raiseInotify();
  await mkdir(labPaths(lab).data, { recursive: true, mode: 0o700 });
  const world = netnsName(lab, WORLD);
  await ipBatch([`netns add ${world}`]);
  await netnsScript(world, worldScript(topology));
  await plugIn(lab, topology, topology.hosts);
  await each(topology.hosts, 8, async (host) => {
    await installDisk(lab, host, options.serviceOf(host));
    await boot(lab, host);
  });
  return state;
}

export async function markUp(state: LabState): Promise<LabState> {
  const up: LabState = { ...state, phase: "up" };
  await writeState(up);
  return up;
}

/** Removes every process, namespace and file of a lab, whatever state it is in. Gives back whether there was anything. */
export async function removeLab(lab: string): Promise<boolean> {
  const state = await readState(lab);
  const { run, data } = labPaths(lab);
  // A `lab up` that is still at work would go on building what is being removed.
  if (state?.phase === "building" && state.builder.pid !== process.pid) kill(state.builder);
  const hosts = new Set([...(state?.topology.hosts.map((host) => host.name) ?? []), ...(await hostsOnDisk(run)), ...(await strayHosts(lab))]);
  await each([...hosts], 8, (host) => killAll(lab, host));
  const world = netnsName(lab, WORLD);
  const namespaces = (await netnsNames()).filter(
    (name) => name === world || (hosts.has(name.slice(`isthmus-${lab}-`.length)) && name.startsWith(`isthmus-${lab}-`)),
  );
  // Deleting one end of a pair deletes the other at once; deleting a namespace alone does it some time later.
  if (namespaces.includes(world) && state !== undefined) {
    const links = state.topology.hosts.flatMap((host) => host.nics.map((nic) => `link del ${worldInterface(state.topology, host, nic)}`));
    await ipBatch(links, world, { force: true });
  }
  await ipBatch(
    namespaces.map((name) => `netns del ${name}`),
    undefined,
    { force: true },
  );
  const existed = state !== undefined || namespaces.length > 0;
  await rm(data, { recursive: true, force: true });
  await rm(run, { recursive: true, force: true });
  for (const root of [DATA_ROOT, RUN_ROOT]) await rmdir(root).catch(() => {});
  if ((await labNames()).length === 0) await restoreInotify();
  const left = (await netnsNames()).filter((name) => namespaces.includes(name));
  if (left.length > 0) throw new IsthmusError("KernelRefused", `cannot remove the namespaces ${left.join(", ")}`);
  return existed;
}

/** Removes the labs whose builder, test or bench was killed. Gives back their names. */
export async function removeAbandoned(): Promise<string[]> {
  const names = await abandonedLabs();
  for (const name of names) await removeLab(name);
  return names;
}

async function hostsOnDisk(run: string): Promise<string[]> {
  return readdir(`${run}/hosts`).catch(() => []);
}

/** Hosts of a lab whose state file is lost, by the namespaces' names; those of a lab whose name begins alike stay out. */
async function strayHosts(lab: string): Promise<string[]> {
  const prefix = `isthmus-${lab}-`;
  const others = (await labNames()).filter((name) => name !== lab && name.startsWith(`${lab}-`)).map((name) => `isthmus-${name}-`);
  return (await netnsNames())
    .filter((name) => name.startsWith(prefix) && !others.some((other) => name.startsWith(other)))
    .map((name) => name.slice(prefix.length));
}

export async function netnsNames(): Promise<string[]> {
  return readdir(NETNS_DIR).catch(() => []);
}

/** The log of a host's service. */
export function serviceLog(state: LabState, host: string): string {
  return hostPaths(state.name, hostNamed(state.topology, host).name).serviceLog;
}
