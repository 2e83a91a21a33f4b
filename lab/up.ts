/** `lab up` and `lab down`: the steps, each said while it happens. */
import { accessSync, constants } from "node:fs";
import { readFile, rm, rmdir } from "node:fs/promises";
import { type Contexts, contextsFile, readContexts, withContext, writeContexts } from "../cli/context.ts";
import { IsthmusError } from "../mesh/errors.ts";
import { buildHosts, markUp, removeAbandoned, removeLab } from "./build.ts";
import { type Lab, labOf } from "./lab.ts";
import { applyManifests, makeTokens, serviceOf, siteDocuments, startAgents, waitForController, waitForNodes } from "./mesh.ts";
import { checkLabName } from "./names.ts";
import { eventually, TOOLS } from "./shell.ts";
import { abandonedLabs, initOf, labCondition, type LabState, readState } from "./state.ts";
import { hostNamed, type Topology } from "./topology.ts";

export interface UpOptions {
  readonly name: string;
  readonly topology: Topology;
  /** Start a controller and join the nodes. */
  readonly join: boolean;
  /** Apply the topology's manifests (default true). */
  readonly manifests?: boolean;
  /** Set the command line's context. */
  readonly setContext?: boolean;
  /** The lab is there until `lab down`, not only as long as this process. */
  readonly lasting?: boolean;
  /** Leave a lab that failed half-way as it is, to look at it. */
  readonly keep?: boolean;
  /** Told of what is not as it should be, but no reason to give up. */
  readonly warn?: (text: string) => void;
  /** Stops the building; what stands already is removed. */
  readonly signal?: AbortSignal;
  /** Told of each step: a line when it is over, with what it took. */
  readonly step?: <T>(text: string, work: (say: (text: string) => void) => Promise<T>) => Promise<T>;
}

/** How long manifests may take to be in effect: this, and so much more per node. */
const MANIFEST_MS = 20_000;
const NODE_MS = 500;

/** Builds a lab and waits until it works. @throws IsthmusError; a lab that failed half-way is removed again. */
export async function labUp(options: UpOptions): Promise<Lab> {
  const { topology } = options;
  const name = checkLabName(options.name);
  checkMachine(options.join);
  const condition = await labCondition(name);
  if (condition === "up" || condition === "building") {
    throw new IsthmusError(
      "AlreadyRunning",
      condition === "up" ? `the lab "${name}" is up already` : `the lab "${name}" is being built by another "lab up"`,
      {
        remedy: `Run \`isthmus lab down --name ${name}\` first, or make another one: \`isthmus lab up --name OTHER\`.`,
      },
    );
  }
  const show = options.step ?? ((_text, work) => work(() => {}));
  const step: typeof show = (text, work) => {
    options.signal?.throwIfAborted();
    return show(text, work);
  };
  const left = await abandonedLabs();
  if (condition === "dead" || left.length > 0) {
    await step(`removing what is left of ${left.length === 0 ? name : left.join(", ")}`, async () => {
      await removeAbandoned();
      if (condition === "dead") await removeLab(name);
    });
  }
  try {
    return await build(options, name, step);
  } catch (error) {
    if (options.keep !== true || options.signal?.aborted === true) await removeLab(name).catch(() => {});
    throw error;
  }

  async function build(options: UpOptions, name: string, step: NonNullable<UpOptions["step"]>): Promise<Lab> {
    const nodes = topology.hosts.filter((host) => host.role === "node").length;
    let state = await step(`${topology.hosts.length} hosts, ${topology.segments.length} LANs and the internet between them`, async () => {
      const built = await buildHosts({
        lab: name,
        topology,
        joined: options.join,
        lasting: options.lasting === true,
        serviceOf: (host) => serviceOf(host, options.join),
      });
      await waitForInternet(built);
      return built;
    });
    const lab = labOf(state);
    const socket = lab.controllerSocket;
    if (socket !== undefined) {
      const client = await step("controller", () => waitForController(state, socket, options.signal));
      const tokens = await step(`${topology.sites.length} sites and their tokens`, async () => {
        await client.call("POST", "/v1/apply", { documents: siteDocuments(topology) });
        return makeTokens(client, topology);
      });
      await step(`${nodes} nodes join, all at once`, async (say) => {
        await startAgents(state, tokens);
        await waitForNodes(state, client, (ready, total) => say(`${ready} of ${total} nodes ready`), options.signal);
      });
      if (options.manifests !== false) {
        const late = await step("examples applied", async (say) => {
          say("waiting until they are in effect");
          return applyManifests(client, topology.manifests, MANIFEST_MS + NODE_MS * nodes, options.signal);
        });
        for (const one of late) options.warn?.(`not in effect yet: ${one}`);
      }
      if (options.setContext === true) {
        const contextBefore = await setContext(name, socket);
        state = { ...state, ...(contextBefore === undefined ? {} : { contextBefore }) };
      }
    }
    state = await markUp(state);
    return labOf(state);
  }
}

/** Takes a lab away, whatever state it is in. Gives back whether there was one. */
export async function labDown(name: string): Promise<boolean> {
  checkLabName(name);
  checkRoot();
  const before = (await readState(name))?.contextBefore;
  const existed = await removeLab(name);
  await dropContext(name, before);
  return existed;
}

/** @throws IsthmusError `NotRoot` or `ToolMissing` with the Debian packages. */
export function checkMachine(join: boolean): void {
  checkRoot();
  const missing = Object.keys(TOOLS).filter((tool) => (join || !tool.startsWith("wireguard")) && !onPath(tool));
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((tool) => TOOLS[tool]!))].sort();
  throw new IsthmusError("ToolMissing", `not installed: ${missing.join(", ")}`, { remedy: `apt-get install ${packages.join(" ")}` });
}

function checkRoot(): void {
  if (process.getuid?.() !== 0)
    throw new IsthmusError("NotRoot", "the lab makes network namespaces and needs root", { remedy: "Run it in a root shell." });
}

function onPath(tool: string): boolean {
  return `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`.split(":").some((dir) => {
    try {
      accessSync(`${dir}/${tool}`, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** The internet's services listen: port 80 in the host's table of sockets. */
async function waitForInternet(state: LabState): Promise<void> {
  for (const host of state.topology.hosts) {
    if (host.role !== "internet") continue;
    const init = await initOf(state.name, hostNamed(state.topology, host.name).name);
    await eventually(`${host.name} serves`, 15_000, async () => {
      const table = await readFile(`/proc/${init?.pid ?? 0}/net/tcp`, "utf8").catch(() => "");
      return /: 00000000:0050 00000000:0000 0A/.test(table) ? true : undefined;
    });
  }
}

export const contextName = (lab: string): string => `lab-${lab}`;

/** Gives back the context that was current before. */
async function setContext(lab: string, socket: string): Promise<string | undefined> {
  const io = { env: process.env };
  const before = await readContexts(io);
  await writeContexts(io, { ...withContext(before, { name: contextName(lab), socket }), current: contextName(lab) });
  return before.current === contextName(lab) ? undefined : before.current;
}

/** Leaves the file out of existence when nothing else is in it, as it was before the first `lab up`. */
async function dropContext(lab: string, previous: string | undefined): Promise<void> {
  const io = { env: process.env };
  const before: Contexts = await readContexts(io).catch(() => ({ contexts: [] }));
  const contexts = before.contexts.filter((context) => context.name !== contextName(lab));
  if (contexts.length === before.contexts.length) return;
  if (contexts.length === 0) {
    const file = contextsFile(io);
    await rm(file, { force: true });
    await rmdir(file.slice(0, file.lastIndexOf("/"))).catch(() => {});
    return;
  }
  const next = before.current === contextName(lab) ? previous : before.current;
  const known = contexts.some((context) => context.name === next);
  await writeContexts(io, { ...(next === undefined || !known ? {} : { current: next }), contexts });
}
