/** Joining: keys made here, one request, the answer kept. Trying again with the same keys changes nothing. */
import { hostname } from "node:os";
import { type FieldFault, IsthmusError, asIsthmusError } from "../mesh/errors.ts";
import { Cidr, Endpoint, NodeName } from "../mesh/model/scalars.ts";
import { parseJoinToken } from "../mesh/model/token.ts";
import { type JoinRequest, JoinResponse } from "../mesh/model/wire.ts";
import { backoffMs, pause } from "./backoff.ts";
import { writeCache } from "./cache.ts";
import { openContact, postJson, type Trust } from "./contact.ts";
import { checkModes, type Places, prepareDirectories } from "./files.ts";
import { holdingsOf } from "./holdings.ts";
import { type Identity, keepAnswer, readIdentity } from "./identity.ts";
import { loadOrMakeKeys, type NodeKeys } from "./keys.ts";
import { bootId, machineId, machineIdLike } from "./machine-id.ts";
import { VERSION } from "./version.ts";

export interface JoinOptions {
  /** The token's text. It goes nowhere but into the request. */
  readonly token: string;
  readonly name?: string | undefined;
  /** `ADDR:PORT` at which others can dial ism0. */
  readonly endpoints?: readonly string[] | undefined;
  readonly advertise?: readonly string[] | undefined;
  /** Candidates that the agent found on its interfaces. */
  readonly found: readonly Endpoint[];
}

/** Rounds over all controllers before a join gives up. */
const ROUNDS = 4;

/** Joins, and leaves everything in place for the agent. @throws what the controller answered, Unreachable, PinMismatch, AlreadyExists … */
export async function join(at: Places, options: JoinOptions, log: (line: string) => void, signal: AbortSignal): Promise<Identity> {
  const token = parseJoinToken(options.token);
  const name = nodeName(options.name ?? hostname());
  const { manualEndpoints, advertise } = checkedFlags(options);
  prepareDirectories(at, log);
  checkModes(at);
  const before = readIdentity(at);
  if (before !== undefined) {
    throw new IsthmusError("AlreadyExists", `this machine has joined already, as ${before.node} in network ${before.network}`, {
      remedy: "see `isthmus status`; run `isthmus leave` first to join again under another name or network",
    });
  }
  const keys = loadOrMakeKeys(at);
  const { certificateRequest } = await import("./csr.ts");
  const machine = machineId();
  const body: JoinRequest = {
    token: token.secret,
    name,
    publicKey: keys.wgPublicKey,
    csr: await certificateRequest(keys.tlsKey, name),
    machineId: machine,
    bootId: bootId(),
    endpoints: [...options.found],
    manualEndpoints,
    advertise,
    version: VERSION,
  };
  const { answer, address } = await askAny(token.controllers, "/v1/join", body, { pin: token.pin }, undefined, log, signal);
  writeCache(at.plan, holdingsOf(answer.position, answer.views));
  const identity = keepAnswer(
    at,
    { ...answer, controllers: firstTried(address, answer.controllers) },
    { machineId: machine, manualEndpoints, advertise },
  );
  log(`joined network ${identity.network} as ${identity.node}`);
  return identity;
}

/** Renews the certificate with the key on record; also when it has expired. */
export async function renew(
  at: Places,
  identity: Identity,
  keys: NodeKeys,
  files: { certificate: string; roots: string },
  now: number,
  signal: AbortSignal,
): Promise<Identity> {
  const { certificateRequest } = await import("./csr.ts");
  const body: JoinRequest = {
    name: identity.node,
    network: identity.network,
    publicKey: keys.wgPublicKey,
    csr: await certificateRequest(keys.tlsKey, identity.node),
    machineId: machineIdLike(identity.machineId),
    bootId: bootId(),
    endpoints: [],
    manualEndpoints: identity.manualEndpoints,
    advertise: identity.advertise,
    version: VERSION,
  };
  const { answer } = await askAny(
    identity.controllers,
    "/v1/renew",
    body,
    { roots: files.roots, now },
    { key: keys.tlsKey, certificate: files.certificate },
    () => {},
    signal,
    1,
  );
  return keepAnswer(at, answer, identity);
}

/** Asks one controller after the other; a terminal answer of one of them is the answer. */
async function askAny(
  controllers: readonly string[],
  path: string,
  body: JoinRequest,
  trust: Trust,
  credentials: { key: string; certificate: string } | undefined,
  log: (line: string) => void,
  signal: AbortSignal,
  rounds = ROUNDS,
): Promise<{ answer: JoinResponse; address: string }> {
  const failures: IsthmusError[] = [];
  for (let round = 1; round <= rounds; round++) {
    for (const address of controllers) {
      try {
        const socket = await openContact(address, trust, credentials, signal);
        const answer = JoinResponse.parse(await postJson(socket, path, body, signal));
        return { answer, address };
      } catch (thrown) {
        signal.throwIfAborted();
        const error = asIsthmusError(thrown, "BadRequest");
        // Another address may be the right one; what a verified controller said counts.
        if (error.retry === "terminal" && error.code !== "PinMismatch" && error.code !== "Unauthenticated") throw error;
        failures.push(error);
        log(`${error.message}${round < rounds ? "; trying again" : ""}`);
      }
    }
    if (failures.every((error) => error.retry === "terminal")) break;
    if (round < rounds) await pause(backoffMs(round, { firstMs: 300, mostMs: 3_000 }, Math.random()), signal);
  }
  throw failures.find((error) => error.retry === "terminal") ?? failures.at(-1) ?? new IsthmusError("Unreachable", "no controller address is known");
}

function firstTried(address: string, controllers: readonly string[]): string[] {
  return [...new Set([...(controllers.includes(address) ? [address] : []), ...controllers, address])];
}

function nodeName(text: string): NodeName {
  const parsed = NodeName.safeParse(text.split(".")[0]?.toLowerCase());
  if (parsed.success) return parsed.data;
  throw new IsthmusError("Invalid", `${JSON.stringify(text)} cannot be a node's name: ${parsed.error.issues[0]?.message ?? "not a DNS label"}`, {
    remedy: "give one with --name",
  });
}

interface Schema<T> {
  safeParse(value: unknown): { success: true; data: T } | { success: false; error: { issues: { message: string }[] } };
}

/** @throws {IsthmusError} Invalid, with every fault at its flag */
function checkedFlags({ endpoints = [], advertise = [] }: JoinOptions): { readonly manualEndpoints: Endpoint[]; readonly advertise: Cidr[] } {
  const faults: FieldFault[] = [];
  const checked = <T>(path: string, values: readonly string[], schema: Schema<T>): T[] =>
    values.flatMap((value) => {
      const parsed = schema.safeParse(value);
      if (parsed.success) return [parsed.data];
      faults.push({ path, message: parsed.error.issues[0]?.message ?? "not valid", value });
      return [];
    });
  const flags = { manualEndpoints: checked("--endpoint", endpoints, Endpoint), advertise: checked("--advertise", advertise, Cidr) };
  if (faults.length > 0) throw new IsthmusError("Invalid", "this machine cannot join with these flags", { faults });
  return flags;
}
