/** Where a lab lives on the machine. Everything of it is under these names, so that `lab down` can find all of it. */
import { fileURLToPath } from "node:url";
import { IsthmusError } from "../mesh/errors.ts";

/** Volatile state (gone after a reboot, as the namespaces are). */
export const RUN_ROOT = "/run/isthmus-lab";
/** Disks of the hosts. */
export const DATA_ROOT = "/var/lib/isthmus-lab";
export const NETNS_DIR = "/run/netns";
export const REPOSITORY = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");
export const DEFAULT_LAB = "demo";
/** The WAN router and the switches of all LANs: the world outside the hosts. It cannot be failed. */
export const WORLD = "wan";

export interface LabPaths {
  readonly run: string;
  readonly data: string;
  readonly state: string;
  readonly faults: string;
}

export function labPaths(lab: string): LabPaths {
  const run = `${RUN_ROOT}/${lab}`;
  return { run, data: `${DATA_ROOT}/${lab}`, state: `${run}/state.json`, faults: `${run}/faults` };
}

export interface HostPaths {
  /** Control files, seen by the lab only: init.pid, ready. */
  readonly control: string;
  /** The host's /run (wiped by a power failure). */
  readonly run: string;
  /** The host's /var/lib and /var/log. */
  readonly lib: string;
  readonly log: string;
  /** What the host changed in /etc. */
  readonly etc: string;
  readonly serviceLog: string;
}

export function hostPaths(lab: string, host: string): HostPaths {
  const { run, data } = labPaths(lab);
  const disk = `${data}/${host}`;
  return {
    control: `${run}/hosts/${host}`,
    run: `${run}/hosts/${host}/run`,
    lib: `${disk}/lib`,
    log: `${disk}/log`,
    etc: `${disk}/etc`,
    serviceLog: `${disk}/log/isthmus.log`,
  };
}

/** Name of the host's network namespace, as `ip netns` shows it. */
export function netnsName(lab: string, host: string): string {
  return `isthmus-${lab}-${host}`;
}

/** A lab's name becomes part of paths and of a unix socket's path (108 bytes). @throws IsthmusError `Invalid`. */
export function checkLabName(name: string): string {
  if (/^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$/.test(name)) return name;
  throw new IsthmusError("Invalid", `"${name}" cannot be a lab's name`, { remedy: "Use up to 20 lower-case letters, digits and '-'." });
}
