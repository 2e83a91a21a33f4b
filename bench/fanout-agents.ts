/**
 * The load generator of the fan-out bench: many agents in one process. Each has its own keys, certificate, TLS connection and
 * stream; only the content of views is shared between them, because all hold the same.
 */
import { randomBytes, randomUUID, webcrypto } from "node:crypto";
import { Agent as HttpsAgent, request } from "node:https";
import type { ConnectionOptions, TLSSocket } from "node:tls";
import "reflect-metadata";
import { Pkcs10CertificateRequestGenerator } from "@peculiar/x509";
import WebSocket from "ws";
import { type ViewState, applyFill, applyPutDelete, createView, viewHash } from "../mesh/compile/views.ts";
import { ControllerMessage, JoinResponse, PLAN_FORMAT, type Position } from "../mesh/model/wire.ts";

export interface Identity {
  readonly name: string;
  readonly key: string;
  readonly certificate: string;
  readonly roots: readonly string[];
  /** As it joined with: the controller takes another one for a clone. */
  readonly machineId: string;
  readonly bootId: string;
}

interface Server {
  readonly host: string;
  readonly port: number;
}

/** What simulated agents know of the views, by view and revision; content is kept for the newest revision only. */
interface Shared {
  readonly newest: Map<string, { revision: number; state: ViewState }>;
  readonly hashes: Map<string, string>;
}

export interface SimulatedAgent {
  readonly identity: Identity;
  readonly revisions: Map<string, number>;
  position: Position | undefined;
  socket: WebSocket | undefined;
  /** Resolves `online` when every view that the controller named is there. */
  missing: Set<string> | undefined;
  bytes: () => number;
  /** Bytes of stream messages (without TLS and WebSocket framing). */
  payload: number;
}

/** Tells of every message that an agent took in, and when it was there, by `performance.now()`. */
export type OnDelta = (keys: readonly string[], at: number) => void;

const shared: Shared = { newest: new Map(), hashes: new Map() };
const unread: { count: number; messages: (() => void)[] } = { count: 0, messages: [] };

/**
 * From now on messages are kept with their times, and read when there are `count` of them. Agents have machines of their own: here, what
 * the first ones think would keep the last ones from hearing.
 */
export function hearFirst(count: number): void {
  unread.count = count;
}

function heard(read: () => void): void {
  unread.messages.push(read);
  if (unread.messages.length < unread.count) return;
  unread.count = 0;
  for (const one of unread.messages.splice(0)) one();
}

export function newAgent(identity: Identity): SimulatedAgent {
  return { identity, revisions: new Map(), position: undefined, socket: undefined, missing: undefined, bytes: () => 0, payload: 0 };
}

/** Joins as a new node: makes keys and a certificate request, redeems the token. `secret` is the token's secret. */
export async function join(server: Server, secret: string, name: string, agent?: HttpsAgent): Promise<Identity> {
  const made = await prepare(name);
  return redeem(server, secret, made, agent);
}

export interface Prepared {
  readonly name: string;
  readonly key: string;
  readonly csr: string;
  readonly publicKey: string;
  /** Where it says it can be dialed; a documentation address when absent. */
  readonly endpoint?: string;
}

export async function prepare(name: string): Promise<Prepared> {
  const keys = await webcrypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const csr = await Pkcs10CertificateRequestGenerator.create({ name: `CN=${name}`, keys, signingAlgorithm: { name: "ECDSA", hash: "SHA-256" } });
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
  return {
    name,
    key: `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`,
    csr: csr.toString("pem"),
    publicKey: randomBytes(32).toString("base64"),
  };
}

export async function redeem(server: Server, secret: string, made: Prepared, agent?: HttpsAgent): Promise<Identity> {
  const address = `192.0.2.${1 + (Math.abs(hash(made.name)) % 250)}`;
  const machineId = randomBytes(32).toString("hex");
  const bootId = randomUUID();
  const body = JSON.stringify({
    token: secret,
    name: made.name,
    publicKey: made.publicKey,
    csr: made.csr,
    machineId,
    bootId,
    endpoints: [made.endpoint ?? `${address}:51820`],
    version: "0.1.0",
  });
  const answer = JoinResponse.parse(await post(server, "/v1/join", body, agent));
  return { name: made.name, key: made.key, certificate: answer.certificate, roots: answer.roots, machineId, bootId };
}

function hash(text: string): number {
  let sum = 0;
  for (const char of text) sum = (Math.imul(sum, 31) + char.charCodeAt(0)) | 0;
  return sum;
}

function post(server: Server, path: string, body: string, agent?: HttpsAgent): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const options = {
      ...server,
      path,
      method: "POST",
      agent,
      rejectUnauthorized: false,
      headers: { "content-type": "application/json", "content-length": Buffer.byteLength(body) },
    };
    const sent = request(options, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        if (answer.statusCode === 200 || answer.statusCode === 201) resolve(JSON.parse(text));
        else reject(new Error(`${path}: ${answer.statusCode} ${text}`));
      });
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

/** Connects, says hello, and resolves when the agent holds all its views. Rejects when the connection ends before. */
export function connect(server: Server, agent: SimulatedAgent, onDelta: OnDelta): Promise<void> {
  return new Promise((resolve, reject) => {
    const { key, certificate, roots } = agent.identity;
    // The chain is verified; the name is not, as with a real agent (a controller is known by its role, not by its address).
    const tls = { key, cert: certificate, ca: [...roots], checkServerIdentity: () => undefined } satisfies ConnectionOptions;
    const socket = new WebSocket(`wss://${server.host}:${server.port}/v1/agent`, { ...(tls as object), perMessageDeflate: false });
    agent.socket = socket;
    agent.missing = undefined;
    socket.on("error", reject);
    socket.on("close", () => reject(new Error(`${agent.identity.name}: the stream was closed`)));
    socket.on("upgrade", (answer) => {
      const tls = answer.socket as TLSSocket;
      agent.bytes = () => tls.bytesRead;
    });
    socket.on("open", () => socket.send(JSON.stringify(hello(agent))));
    socket.on("message", (data: Buffer) => {
      const at = performance.now();
      agent.payload += data.length;
      heard(() => {
        try {
          const keys = take(agent, ControllerMessage.parse(JSON.parse(data.toString())));
          if (keys.length > 0) onDelta(keys, at);
          if (agent.missing?.size === 0) resolve();
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
          socket.terminate();
        }
      });
    });
  });
}

function hello(agent: SimulatedAgent): unknown {
  const views = Object.fromEntries([...agent.revisions].map(([view, r]) => [view, { r, h: shared.hashes.get(`${view}@${r}`) ?? "" }]));
  return {
    t: "hello",
    node: agent.identity.name,
    format: PLAN_FORMAT,
    version: "0.1.0",
    bootId: agent.identity.bootId,
    machineId: agent.identity.machineId,
    ...(agent.position === undefined ? {} : { seen: agent.position }),
    views,
  };
}

/** Takes one message in; returns the keys that it put. */
function take(agent: SimulatedAgent, message: ControllerMessage): string[] {
  switch (message.t) {
    case "hello":
      agent.position = message.at;
      agent.missing = new Set(message.views.filter((view) => !agent.revisions.has(view)));
      return [];
    case "delta":
    case "fill": {
      learn(message);
      agent.revisions.set(message.v, message.r);
      if (agent.position !== undefined && message.r > agent.position.revision) agent.position = { ...agent.position, revision: message.r };
      agent.missing?.delete(message.v);
      return Object.keys(message.p ?? {});
    }
    case "views":
      for (const view of message.drop) agent.revisions.delete(view);
      return [];
    case "refused":
      throw new Error(`${agent.identity.name}: refused: ${message.message}`);
    case "want":
    case "removed":
    case "ask":
      return [];
  }
}

/** The first agent that gets a revision applies it for all. */
function learn(message: Extract<ControllerMessage, { t: "delta" | "fill" }>): void {
  const known = shared.newest.get(message.v);
  if (known !== undefined && known.revision >= message.r) return;
  const before = known?.state ?? createView();
  const put = Object.entries(message.p ?? {});
  const state = message.t === "delta" ? applyPutDelete(before, put, message.d ?? []) : applyFill(before, message.b, put);
  shared.newest.set(message.v, { revision: message.r, state });
  shared.hashes.set(`${message.v}@${message.r}`, viewHash(state));
}
