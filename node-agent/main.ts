/** Commands of a node. The command line starts them; everything that touches the outside is made here. */
import { readFileSync, rmSync } from "node:fs";
import { request } from "node:http";
import { flushCompileCache } from "node:module";
import { basename, join as joinPath } from "node:path";
import { asIsthmusError, errorFromBody, IsthmusError } from "../mesh/errors.ts";
import { runNode } from "./agent.ts";
import { createPingUndivided, learnedMtu } from "./drivers/path-mtu.ts";
import { pause } from "./backoff.ts";
import { run as exec } from "./drivers/exec.ts";
import { hostServices } from "./drivers/host-facts.ts";
import { createKernel, type Kernel } from "./drivers/index.ts";
import { kernelHasWireguard } from "./drivers/wireguard.ts";
import { checkModes, codeOf, namesIn, type Places, places, prepareDirectories, removeIfEmpty } from "./files.ts";
import { readIdentity } from "./identity.ts";
import { join } from "./join.ts";
import { agentPid, isRunning, pidFileOf, takeLock } from "./lock.ts";
import { interfaceAddresses, ownCandidates } from "./own-endpoints.ts";
import { requireRoot, requireTools, requireWireguard } from "./requirements.ts";
import { installUnit, removeUnit, stopCommand, systemdRuns } from "./systemd.ts";
import { dropHalves } from "./whole-file.ts";

export type { AgentStatus } from "./status.ts";

/** Node writes what it compiled at a clean exit only, which an agent rarely has; by now all of it has been used. */
const KEEP_COMPILED_MS = 20_000;
/** A resolver that does not answer is given up after 5 s by most hosts, each of three twice. */
const LOOKUP_MS = 30_000;
/** Port of ism0 before the plan says another. */
const DEFAULT_MESH_PORT = 51_820;

export interface CommonOptions {
  /** Data directory; ISTHMUS_DATA or /var/lib/isthmus when absent. */
  readonly data?: string | undefined;
  /** Run directory; ISTHMUS_RUN or /run/isthmus when absent. */
  readonly run?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly log?: ((line: string) => void) | undefined;
}

export interface JoinCommandOptions extends CommonOptions {
  readonly token?: string | undefined;
  /** `-` reads standard input. */
  readonly tokenFile?: string | undefined;
  readonly name?: string | undefined;
  readonly endpoints?: readonly string[] | undefined;
  readonly advertise?: readonly string[] | undefined;
  /** Runs the agent in this process after the join, also where systemd runs. */
  readonly foreground?: boolean | undefined;
  /** Install and start the units; where systemd runs when absent. */
  readonly systemd?: boolean | undefined;
}

export interface Joined {
  readonly node: string;
  readonly network: string;
}

/** Joins this machine. Returns once systemd has the agent; in the foreground it returns when the agent ends. */
export async function joinCommand(options: JoinCommandOptions): Promise<Joined & { readonly managed: boolean }> {
  hideArgument(options.token);
  const { signal, log, at } = common(options);
  requireRoot("joining");
  requireTools();
  requireWireguard(await kernelHasWireguard());
  const joined = await join(
    at,
    {
      token: tokenText(options),
      name: options.name,
      endpoints: options.endpoints,
      advertise: options.advertise,
      found: ownCandidates(interfaceAddresses(), DEFAULT_MESH_PORT, []),
    },
    log,
    signal,
  );
  const managed = options.systemd ?? (systemdRuns() && options.foreground !== true);
  if (managed) {
    await installUnit(at, signal);
    log("isthmus-agent.service is enabled and runs");
  } else {
    log("the agent runs in the foreground; stopping it leaves the network as it is");
    await runAgent(options);
  }
  return { node: joined.node, network: joined.network, managed };
}

/** Runs the agent of a machine that has joined, until the signal aborts. Leaves the data plane as it is (I2). */
export async function runAgent(options: CommonOptions): Promise<void> {
  const { signal, log, at } = common(options);
  requireRoot("the agent");
  requireTools();
  prepareDirectories(at, log);
  checkModes(at);
  const identity = readIdentity(at);
  if (identity === undefined)
    throw new IsthmusError("NotFound", `this machine has not joined a network (${at.identity} does not exist)`, {
      remedy: "run `isthmus join TOKEN`",
    });
  const lock = await takeLock(at.run, log);
  // Nobody else writes there now; what a killed one left half-written stays no longer than that.
  dropHalves(at.data);
  const keep = setTimeout(flushCompileCache, KEEP_COMPILED_MS).unref();
  try {
    const kernel = kernelOf(at, log);
    const ended = await runNode(
      { at, identity, kernel, routeGet, pingUndivided: createPingUndivided(), learnedMtu, services: hostServices, lookup: lookupAll, log },
      signal,
    );
    if (ended === "removed") {
      for (const line of await withdraw(at, kernel, signal, log)) log(line);
    }
  } finally {
    clearTimeout(keep);
    await lock.release();
  }
}

/** Leaves the network: the controller removes the node, then everything of ours goes. @throws Unreachable */
export async function leaveCommand(options: CommonOptions): Promise<Joined> {
  const { signal, at } = common(options);
  requireRoot("leaving");
  if (readIdentity(at) === undefined)
    throw new IsthmusError("NotFound", "this machine has not joined a network", { remedy: "nothing to leave; `isthmus cleanup` removes leftovers" });
  if (await isRunning(at.run)) {
    const left = (await askAgent(at, "POST", "/leave", signal)) as Joined;
    await agentEnds(at, signal);
    return left;
  }
  // No agent: one runs here just long enough to say farewell.
  const stop = new AbortController();
  const running = runAgent({ ...options, signal: AbortSignal.any([signal, stop.signal]) });
  try {
    return (await retryAgent(at, signal, running)) as Joined;
  } finally {
    stop.abort();
    await running;
  }
}

/** Removes everything of ours from this machine (I3), without asking anybody. Says what it did. */
export async function cleanupCommand(options: CommonOptions): Promise<string[]> {
  const { signal, log, at } = common(options);
  requireRoot("cleaning up");
  const done = (await removeUnit({ stop: true }, signal)) ? ["removed isthmus-agent.service"] : [];
  if (await isRunning(at.run)) throw stillRuns(agentPid(at.run));
  return [...done, ...(await kernelOf(at, log).cleanup()), ...removeFiles(at)];
}

function stillRuns(pid: string | undefined): IsthmusError {
  const [which, how] = pid === undefined ? ["", "where it runs, which cannot be seen from here"] : [` (process ${pid})`, `(\`${stopCommand(pid)}\`)`];
  return new IsthmusError("AlreadyRunning", `the agent still runs${which}`, {
    remedy: `Run \`isthmus leave\` to be forgotten by the controller too (it refuses a node whose certificate was revoked: there an admin deletes it), or stop the agent ${how} and clean up again.`,
  });
}

/** After the controller removed this node. */
async function withdraw(at: Places, kernel: Kernel, signal: AbortSignal, log: (line: string) => void): Promise<string[]> {
  const done = await kernel.cleanup();
  // The unit must not start again for a machine that is no member; the caller may be the unit itself.
  await removeUnit({ stop: false }, AbortSignal.any([signal, AbortSignal.timeout(30_000)])).catch((thrown: unknown) =>
    log(asIsthmusError(thrown).message),
  );
  return [...done, ...removeFiles(at)];
}

function removeFiles(at: Places): string[] {
  const { data: _data, run: _run, socket, ...files } = at;
  const own = [...Object.values(files).map((file) => basename(file)), "kernel.json.damaged"];
  // With what was set aside or half written beside them.
  const ours = namesIn(at.data).filter((name) => own.some((one) => name === one || name.startsWith(`${one}.`)));
  for (const name of ours) rmSync(joinPath(at.data, name), { force: true });
  dropHalves(at.data);
  // The agent that removes itself still has its lock, which is not this file; one that was killed has left its own.
  for (const path of [socket, pidFileOf(at.run)]) rmSync(path, { force: true });
  for (const log of namesIn(at.run).filter((name) => /^wireguard-go\..*\.log$/.test(name))) rmSync(joinPath(at.run, log), { force: true });
  // Someone else's file in them keeps them.
  for (const directory of [at.data, at.run]) removeIfEmpty(directory);
  return ours.length === 0 ? [] : [`removed keys, certificate and plan from ${at.data}`];
}

function kernelOf(at: Places, log: (line: string) => void): Kernel {
  return createKernel({ dataDir: at.data, runDir: at.run, privateKeyFile: at.wgKey, log });
}

async function routeGet(destination: string): Promise<{ ok: boolean; text: string }> {
  const { ok, stdout, stderr } = await exec("ip", ["route", "get", destination], { timeoutMs: 2_000 });
  return { ok, text: ok ? stdout : stderr };
}

/**
 * As programs of this host resolve it: also from its hosts file. In a process of its own, because a lookup inside of ours cannot
 * be given up: with DNS dead it would hold a thread that files are written by, and hold up the end of the agent.
 */
async function lookupAll(name: string, signal: AbortSignal): Promise<string[]> {
  const { stdout } = await exec("getent", ["ahosts", "--", name], { timeoutMs: LOOKUP_MS, signal });
  return stdout.split("\n").flatMap((line) => line.split(/\s+/)[0] || []);
}

/** One request to the running agent. */
function askAgent(at: Places, method: string, path: string, signal: AbortSignal): Promise<unknown> {
  return new Promise((done, failed) => {
    const call = request({ socketPath: at.socket, method, path, signal }, (answer) => {
      const parts: Buffer[] = [];
      answer.on("data", (part: Buffer) => parts.push(part));
      answer.on("end", () => {
        try {
          const body: unknown = JSON.parse(Buffer.concat(parts).toString("utf8"));
          if (answer.statusCode === 200) done(body);
          else failed(errorFromBody(body));
        } catch (error) {
          failed(asIsthmusError(error));
        }
      });
    });
    call.on("error", (error) =>
      failed(new IsthmusError("Unreachable", `the agent does not answer on ${at.socket}`, { remedy: "see its log", cause: error })),
    );
    call.end();
  });
}

/** A removed agent takes its traces away before it ends. */
async function agentEnds(at: Places, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (await isRunning(at.run)) {
    if (performance.now() > deadline)
      throw new IsthmusError("Timeout", "the node was removed, but the agent still cleans up", {
        remedy: "see its log; `isthmus cleanup` removes what is left",
      });
    await pause(50, signal);
    signal.throwIfAborted();
  }
}

/** The agent that was just started connects in a moment; asks until it takes the farewell or its time is over. */
async function retryAgent(at: Places, signal: AbortSignal, running: Promise<void>): Promise<unknown> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    try {
      return await Promise.race([
        askAgent(at, "POST", "/leave", signal),
        running.then(() => Promise.reject(new IsthmusError("Unreachable", "the agent ended before it could leave"))),
      ]);
    } catch (thrown) {
      if (performance.now() > deadline || asIsthmusError(thrown).retry === "terminal") throw thrown;
      await pause(200, signal);
    }
  }
}

/**
 * Anyone on the machine can read our arguments in /proc, for as long as the agent lives that a join becomes. Setting the
 * title overwrites them (libuv: the whole memory of argv, the rest with zeros).
 */
function hideArgument(token: string | undefined): void {
  if (token !== undefined && token.length > 1 && process.argv.some((argument) => argument.includes(token))) process.title = "isthmus agent";
}

function tokenText(options: JoinCommandOptions): string {
  if (options.token !== undefined && options.token !== "-") return options.token;
  const file = options.tokenFile ?? "-";
  try {
    return readFileSync(file === "-" ? 0 : file, "utf8").trim();
  } catch (error) {
    throw new IsthmusError("Invalid", `the token file ${file} cannot be read (${codeOf(error) ?? "error"})`, {
      remedy: "give a token, --token-file FILE, or the token on standard input",
    });
  }
}

function common(options: CommonOptions): { signal: AbortSignal; log: (line: string) => void; at: Places } {
  return {
    signal: options.signal ?? new AbortController().signal,
    log: options.log ?? ((line) => process.stderr.write(`${line}\n`)),
    at: places(options.data ?? process.env["ISTHMUS_DATA"], options.run ?? process.env["ISTHMUS_RUN"]),
  };
}
