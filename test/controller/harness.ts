/** A real controller on loopback, and agents that speak the real protocol with the real holdings, without a data plane. */
import "reflect-metadata";
import { createHash, randomBytes, randomUUID, webcrypto } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest, type RequestOptions } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import { WebSocket } from "ws";
import { restoreController, runController, type ControllerOptions, type Logger, type RunningController } from "../../controller/main.ts";
import { errorFromBody } from "../../mesh/errors.ts";
import { viewHash } from "../../mesh/compile/views.ts";
import { parseJoinToken } from "../../mesh/model/token.ts";
import { ControllerMessage, JoinResponse, type AgentReport } from "../../mesh/model/wire.ts";
import { beatOf, helloOf, holdingsOf, receive, type Holdings } from "../../node-agent/holdings.ts";

const QUIET: Logger = { info: () => {}, warn: () => {}, error: (detail, message) => console.error(message, detail) };

export function temporaryFolder(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), "ist-ctl-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

export async function startController(data: string, more: Partial<ControllerOptions> = {}): Promise<RunningController> {
  return runController({ data: join(data, "data"), listen: "127.0.0.1:0", socket: join(data, "controller.sock"), log: QUIET, ...more });
}

/** What an admin does with `isthmus backup`. */
export async function saveBackup(controller: RunningController, file: string): Promise<void> {
  writeFileSync(file, await call<Buffer>(controller, "GET", "/v1/backup"), { mode: 0o600 });
}

/** A controller on a backup that took the place of what the folder had: it is in Recovery. */
export async function startRestored(data: string, backup: string, more: Partial<ControllerOptions> = {}): Promise<RunningController> {
  await restoreController({ data: join(data, "data"), from: backup });
  return startController(data, more);
}

export interface Answer {
  readonly status: number;
  readonly body: unknown;
}

/** JSON over the admin socket; throws the controller's error. */
export async function call<T = Record<string, unknown>>(controller: RunningController, method: string, path: string, body?: unknown): Promise<T> {
  const answer = await exchange({ socketPath: controller.socket, path, method }, body, httpRequest);
  if (answer.status >= 300) throw errorFromBody(answer.body);
  return answer.body as T;
}

export interface Keys {
  readonly key: string;
  readonly csr: string;
}

export async function makeKeys(name: string): Promise<Keys> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const pair = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({ name: `CN=${name}`, keys: pair, signingAlgorithm: algorithm });
  const key = x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", pair.privateKey), "PRIVATE KEY");
  return { key, csr: csr.toString("pem") };
}

/** HTTPS to the listener, with a client certificate when one is given. */
export function https(
  controller: RunningController,
  method: string,
  path: string,
  body?: unknown,
  credentials?: { key: string; cert: string },
): Promise<Answer> {
  const [host, port] = hostPort(controller.address);
  return exchange(
    { host, port, path, method, rejectUnauthorized: false, agent: new HttpsAgent({ keepAlive: false }), ...credentials },
    body,
    httpsRequest,
  );
}

function hostPort(address: string): [string, number] {
  const at = address.lastIndexOf(":");
  return [address.slice(0, at), Number(address.slice(at + 1))];
}

function exchange(options: RequestOptions, body: unknown, send: typeof httpsRequest): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body);
    const call = send(
      { ...options, headers: text === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(text) } },
      (answer) => {
        const parts: Buffer[] = [];
        answer.on("data", (part: Buffer) => parts.push(part));
        answer.on("error", reject);
        answer.on("end", () => {
          const raw = Buffer.concat(parts);
          const json = (answer.headers["content-type"] ?? "").includes("json");
          resolve({ status: answer.statusCode ?? 0, body: json ? (JSON.parse(raw.toString("utf8")) as unknown) : raw });
        });
      },
    );
    call.on("error", reject);
    call.end(text);
  });
}

export async function makeSite(controller: RunningController, name: string, spec: Record<string, unknown> = {}): Promise<void> {
  await call(controller, "POST", "/v1/apply", {
    documents: [{ apiVersion: "isthmus.dev/v1alpha1", kind: "Site", metadata: { name }, spec: { kind: "cloud", ...spec } }],
  });
}

/** Makes a token and gives its secret. */
export async function makeToken(
  controller: RunningController,
  spec: Record<string, unknown>,
): Promise<{ secret: string; name: string; text: string }> {
  const expires = new Date(Date.now() + 3_600_000).toISOString();
  const { token } = await call<{ token: string }>(controller, "POST", "/v1/tokens", { spec: { uses: 1_000, expires, ...spec } });
  const { secret, name } = parseJoinToken(token);
  return { secret, name, text: token };
}

/** A controller that knows site dc1, and the secret of a token for its nodes. */
export async function startWithSite(data: string, more: Partial<ControllerOptions> = {}): Promise<{ controller: RunningController; secret: string }> {
  const controller = await startController(data, more);
  await makeSite(controller, "dc1");
  return { controller, secret: (await makeToken(controller, { site: "dc1" })).secret };
}

export interface Machine extends Keys {
  readonly name: string;
  readonly publicKey: string;
  readonly machineId: string;
  readonly bootId: string;
}

export async function makeMachine(name: string): Promise<Machine> {
  const publicKey = randomBytes(32);
  return {
    name,
    ...(await makeKeys(name)),
    publicKey: publicKey.toString("base64"),
    machineId: createHash("sha256").update(name).digest("hex"),
    bootId: randomUUID(),
  };
}

export function joinBody(machine: Machine, secret: string | undefined, more: Record<string, unknown> = {}): Record<string, unknown> {
  const { name, publicKey, csr, machineId, bootId } = machine;
  return { ...(secret === undefined ? {} : { token: secret }), name, publicKey, csr, machineId, bootId, endpoints: [], version: "0.1.0", ...more };
}

/** @throws the controller's error */
export async function joinMachine(
  controller: RunningController,
  machine: Machine,
  secret: string | undefined,
  more: Record<string, unknown> = {},
): Promise<JoinResponse> {
  const answer = await https(controller, "POST", secret === undefined ? "/v1/renew" : "/v1/join", joinBody(machine, secret, more));
  if (answer.status >= 300) throw errorFromBody(answer.body);
  return JoinResponse.parse(answer.body);
}

/** An agent's session without its data plane. */
export interface TestAgent {
  readonly machine: Machine;
  readonly messages: ControllerMessage[];
  holdings: Holdings;
  /** Bytes of the stream's messages so far. */
  bytes: number;
  connect(controller: RunningController): Promise<void>;
  disconnect(): Promise<void>;
  report(report: Omit<AgentReport, "t">): void;
  beat(): void;
  /** Answers no pings from its next connection on, as one whose machine lost power. */
  deaf: boolean;
  send(message: unknown): void;
  /** Answers `ask` messages. */
  onAsk: (what: string, body: unknown) => unknown;
  readonly connected: boolean;
  view(id: string): ReadonlyMap<string, unknown> | undefined;
}

export function makeAgent(machine: Machine, joined: JoinResponse, start: Holdings = holdingsOf(joined.position, joined.views)): TestAgent {
  let socket: WebSocket | undefined;
  const agent: TestAgent = {
    machine,
    messages: [],
    holdings: start,
    bytes: 0,
    deaf: false,
    onAsk: () => ({}),
    get connected() {
      return socket?.readyState === WebSocket.OPEN;
    },
    view: (id) => agent.holdings.views.get(id)?.view.data,
    send: (message) => socket?.send(JSON.stringify(message)),
    report: (report) => agent.send({ t: "report", ...report }),
    beat: () => agent.send(beatOf(agent.holdings)),
    connect: (controller) =>
      new Promise<void>((resolve, reject) => {
        const ws = new WebSocket(`wss://${controller.address}/v1/agent`, {
          key: machine.key,
          cert: joined.certificate,
          rejectUnauthorized: false,
          perMessageDeflate: false,
          autoPong: !agent.deaf,
        });
        socket = ws;
        ws.on("open", () =>
          ws.send(
            JSON.stringify(helloOf(agent.holdings, { node: machine.name, version: "0.1.0", bootId: machine.bootId, machineId: machine.machineId })),
          ),
        );
        ws.on("message", (data: Buffer) => {
          agent.bytes += data.length;
          const message = ControllerMessage.parse(JSON.parse(data.toString("utf8")));
          agent.messages.push(message);
          if (message.t === "ask") ws.send(JSON.stringify({ t: "answer", id: message.id, body: agent.onAsk(message.what, message.body) }));
          const result = receive(agent.holdings, message);
          agent.holdings = result.holdings;
          for (const one of result.send) ws.send(JSON.stringify(one));
          if (message.t === "hello" || message.t === "refused" || message.t === "removed") resolve();
        });
        ws.on("unexpected-response", (_call, answer) => {
          const parts: Buffer[] = [];
          answer.on("data", (part: Buffer) => parts.push(part));
          answer.on("end", () => reject(errorFromBody(JSON.parse(Buffer.concat(parts).toString("utf8")))));
        });
        ws.on("error", reject);
      }),
    disconnect: () =>
      new Promise<void>((resolve) => {
        if (socket === undefined || socket.readyState === WebSocket.CLOSED) return resolve();
        socket.on("close", () => resolve());
        socket.terminate();
      }),
  };
  return agent;
}

/** Joins and connects a node. */
export async function newNode(controller: RunningController, secret: string, name: string, more: Record<string, unknown> = {}): Promise<TestAgent> {
  const machine = await makeMachine(name);
  const agent = makeAgent(machine, await joinMachine(controller, machine, secret, more));
  await agent.connect(controller);
  return agent;
}

/** Waits until the check passes; its last error is the failure. */
export async function eventually(check: () => void | Promise<void>, withinMs = 5_000): Promise<void> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    try {
      await check();
      return;
    } catch (thrown) {
      if (performance.now() > deadline) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
  }
}

export function hashesOf(holdings: Holdings): Record<string, string> {
  return Object.fromEntries([...holdings.views].map(([id, held]) => [id, viewHash(held.view)]));
}
