/** What is remembered of a lab between commands: one file for the lab, one per fault, and the pid files of its hosts. */
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { IsthmusError } from "../mesh/errors.ts";
import { type Fault, faultId } from "./blueprint.ts";
import { DEFAULT_LAB, hostPaths, labPaths, RUN_ROOT } from "./names.ts";
import { identify, isAlive, type ProcessId } from "./process.ts";
import type { Topology } from "./topology.ts";

export interface LabState {
  readonly name: string;
  readonly phase: "building" | "up";
  /** The `lab up` that builds it. */
  readonly builder: ProcessId;
  /** Whose end is the lab's end, of a test or a bench; a lab of `lab up` has none. */
  readonly keeper?: ProcessId;
  readonly createdAt: string;
  readonly topology: Topology;
  /** The command line's context before this lab; current again after it. */
  readonly contextBefore?: string;
  /** Whether a controller and agents run, or only bare namespaces. */
  readonly joined: boolean;
}

export async function readState(lab: string): Promise<LabState | undefined> {
  try {
    return JSON.parse(await readFile(labPaths(lab).state, "utf8")) as LabState;
  } catch {
    return undefined;
  }
}

export async function writeState(state: LabState): Promise<void> {
  const { run, state: file, faults } = labPaths(state.name);
  await mkdir(run, { recursive: true, mode: 0o700 });
  await mkdir(faults, { recursive: true });
  await writeFile(`${file}.new`, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  await rename(`${file}.new`, file);
}

/** `up`: in use. `building`: another `lab up` is at work. `dead`: left behind half-way, or its processes are gone. */
export type LabCondition = "absent" | "building" | "up" | "dead";

export async function labCondition(lab: string): Promise<LabCondition> {
  const state = await readState(lab);
  if (state === undefined) return (await labNames()).includes(lab) ? "dead" : "absent";
  if (abandoned(state)) return "dead";
  if (state.phase === "building") return "building";
  const failed = new Set((await listFaults(lab)).flatMap((fault) => (fault.kind === "node" ? [fault.host] : [])));
  for (const host of state.topology.hosts) {
    if (!failed.has(host.name) && (await initOf(lab, host.name)) === undefined) return "dead";
  }
  return "up";
}

/** Its builder died half-way, or the test or bench that it was for is gone. */
function abandoned({ phase, builder, keeper }: LabState): boolean {
  return (phase === "building" && !isAlive(builder)) || (keeper !== undefined && !isAlive(keeper));
}

export async function abandonedLabs(): Promise<string[]> {
  const names = await labNames();
  const states = await Promise.all(names.map(readState));
  return states.flatMap((state) => (state !== undefined && abandoned(state) ? [state.name] : []));
}

export async function labNames(): Promise<string[]> {
  try {
    return (await readdir(RUN_ROOT)).sort();
  } catch {
    return [];
  }
}

/** The lab meant when none is named: that of ISTHMUS_LAB, the default one, or the only one. @throws IsthmusError `NotFound`. */
export async function pickLab(named: string | undefined): Promise<LabState> {
  const names = await labNames();
  const lab = named ?? process.env["ISTHMUS_LAB"] ?? (names.includes(DEFAULT_LAB) || names.length !== 1 ? DEFAULT_LAB : names[0]!);
  const state = await readState(lab);
  if (state !== undefined) return state;
  const others = names.filter((name) => name !== lab);
  throw new IsthmusError("NotFound", `no lab "${lab}" is up`, {
    remedy: others.length === 0 ? "Start one: isthmus lab up." : `Name one with --name: ${others.join(", ")}; or start one: isthmus lab up.`,
  });
}

/** The first process of a host, or undefined when the host is powered off. */
export async function initOf(lab: string, host: string): Promise<ProcessId | undefined> {
  try {
    const [pid, start] = (await readFile(`${hostPaths(lab, host).control}/init.pid`, "utf8")).trim().split(" ");
    const id = identify(Number(pid));
    return id !== undefined && id.start === start ? id : undefined;
  } catch {
    return undefined;
  }
}

export async function listFaults(lab: string): Promise<Fault[]> {
  const { faults } = labPaths(lab);
  let names: string[];
  try {
    names = (await readdir(faults)).sort();
  } catch {
    return [];
  }
  return Promise.all(names.map(async (name) => JSON.parse(await readFile(`${faults}/${name}`, "utf8")) as Fault));
}

export async function addFault(lab: string, fault: Fault): Promise<void> {
  await writeFile(`${labPaths(lab).faults}/${faultId(fault)}`, `${JSON.stringify(fault)}\n`);
}

export async function removeFault(lab: string, fault: Fault): Promise<void> {
  await rm(`${labPaths(lab).faults}/${faultId(fault)}`, { force: true });
}
