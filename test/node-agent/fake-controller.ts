/** A controller for tests of the agent's side: real TLS, real WebSocket, messages from `wire.ts`, and no opinions. */
import "reflect-metadata";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { createHash, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { WebSocket, WebSocketServer } from "ws";
import { AgentMessage, type ControllerMessage, type JoinRequest, type JoinResponse } from "../../mesh/model/wire.ts";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
type Keys = webcrypto.CryptoKeyPair;

export interface FakePki {
  readonly rootPem: string;
  /** SHA-256 of the root's SPKI. */
  readonly pin: string;
  /** Leaf with a role, signed by an intermediate: chain and key, PEM. `days` counts from two days ago. */
  leaf(role: string, name: string, days?: number): Promise<{ chain: string; key: string }>;
  /** Certificate for a PKCS#10 request. */
  sign(csr: string, name: string, days?: number): Promise<string>;
}

export async function fakePki(): Promise<FakePki> {
  const rootKeys = await newKeys();
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    name: "CN=root",
    keys: rootKeys,
    signingAlgorithm: ALGORITHM,
    ...dates(3650),
    extensions: [new x509.BasicConstraintsExtension(true, 1, true)],
  });
  const middleKeys = await newKeys();
  const middle = await x509.X509CertificateGenerator.create({
    subject: "CN=intermediate",
    issuer: root.subject,
    publicKey: middleKeys.publicKey,
    signingKey: rootKeys.privateKey,
    signingAlgorithm: ALGORITHM,
    ...dates(365),
    extensions: [new x509.BasicConstraintsExtension(true, 0, true)],
  });
  const issue = async (publicKey: x509.PublicKey | webcrypto.CryptoKey, role: string, name: string, days: number): Promise<x509.X509Certificate> =>
    x509.X509CertificateGenerator.create({
      subject: `CN=${name}`,
      issuer: middle.subject,
      publicKey,
      signingKey: middleKeys.privateKey,
      signingAlgorithm: ALGORITHM,
      ...dates(days),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.SubjectAlternativeNameExtension([{ type: "url", value: `isthmus://${role}/${name}` }]),
      ],
    });
  return {
    rootPem: root.toString("pem"),
    pin: createHash("sha256").update(Buffer.from(root.publicKey.rawData)).digest("hex"),
    async leaf(role, name, days = 90) {
      const keys = await newKeys();
      const leaf = await issue(keys.publicKey, role, name, days);
      return { chain: [leaf, middle, root].map((one) => one.toString("pem")).join("\n"), key: await pemOf(keys) };
    },
    async sign(csr, name, days = 90) {
      const request = new x509.Pkcs10CertificateRequest(csr);
      if (!(await request.verify())) throw new Error("bad request");
      return [await issue(request.publicKey, "node", name, days), middle].map((one) => one.toString("pem")).join("\n");
    },
  };
}

export interface FakeController {
  readonly address: string;
  /** Messages of agents, in order. */
  readonly heard: AgentMessage[];
  readonly requests: { readonly path: string; readonly body: JoinRequest }[];
  /** Called for each hello; what it returns is sent. */
  onHello: (hello: Extract<AgentMessage, { t: "hello" }>) => readonly ControllerMessage[];
  /** Answer of /v1/join and /v1/renew: a JoinResponse, or `{ status, body }`. */
  onPost: (path: string, body: JoinRequest) => Promise<JoinResponse | { status: number; body: unknown }>;
  /** To every connected agent. */
  say(message: ControllerMessage): void;
  /** Breaks every connection without a word. */
  drop(): void;
  /** Refuses upgrades with this status; 0 accepts. */
  refuseWith: number;
  readonly connections: number;
  close(): Promise<void>;
}

export async function fakeController(pki: FakePki, options: { role?: string; port?: number } = {}): Promise<FakeController> {
  const { chain, key } = await pki.leaf(options.role ?? "controller", "c1");
  const server: Server = createServer({ key, cert: chain, requestCert: true, rejectUnauthorized: false, minVersion: "TLSv1.3" });
  const wss = new WebSocketServer({ noServer: true });
  const sockets = new Set<WebSocket>();
  const fake: FakeController = {
    address: "",
    heard: [],
    requests: [],
    onHello: () => [],
    onPost: async () => ({ status: 500, body: {} }),
    refuseWith: 0,
    say(message) {
      for (const ws of sockets) ws.send(JSON.stringify(message));
    },
    drop() {
      for (const ws of sockets) ws.terminate();
    },
    get connections() {
      return sockets.size;
    },
    close: () =>
      new Promise((done) => {
        for (const ws of sockets) ws.terminate();
        server.closeAllConnections();
        server.close(() => done());
      }),
  };
  server.on("upgrade", (request, socket, head) => {
    if (fake.refuseWith !== 0) {
      socket.end(
        `HTTP/1.1 ${fake.refuseWith} No\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{"code":"Unauthenticated","message":"who are you"}`,
      );
      return;
    }
    wss.handleUpgrade(request, socket, head, (ws) => {
      sockets.add(ws);
      ws.on("close", () => sockets.delete(ws));
      ws.on("message", (data: Buffer) => {
        const message = AgentMessage.parse(JSON.parse(data.toString("utf8")));
        fake.heard.push(message);
        if (message.t === "hello") for (const one of fake.onHello(message)) ws.send(JSON.stringify(one));
      });
    });
  });
  server.on("request", (request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const body = JSON.parse(Buffer.concat(parts).toString("utf8")) as JoinRequest;
      fake.requests.push({ path: request.url ?? "", body });
      void fake.onPost(request.url ?? "", body).then((result) => {
        const [status, answer] = "status" in result ? [result.status, result.body] : [200, result];
        response.writeHead(status, { "content-type": "application/json" });
        response.end(JSON.stringify(answer));
      });
    });
  });
  await new Promise<void>((done) => server.listen(options.port ?? 0, "127.0.0.1", done));
  return Object.assign(fake, { address: `127.0.0.1:${(server.address() as AddressInfo).port}` });
}

/** Waits until the condition holds. */
export async function eventually(what: string, holds: () => boolean | Promise<boolean>, withinMs = 5_000): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

async function newKeys(): Promise<Keys> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
}

async function pemOf(keys: Keys): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
  return `-----BEGIN PRIVATE KEY-----\n${der.match(/.{1,64}/g)?.join("\n")}\n-----END PRIVATE KEY-----\n`;
}

function dates(days: number): { notBefore: Date; notAfter: Date } {
  const from = Date.now() - 2 * 86_400_000;
  return { notBefore: new Date(from), notAfter: new Date(from + days * 86_400_000) };
}
