import "reflect-metadata";
import { once } from "node:events";
import { join } from "node:path";
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls";
import { Pkcs10CertificateRequest } from "@peculiar/x509";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createListeners, listenTcp, type HttpOptions, type Listeners } from "../../../controller/api/http.ts";
import { openAuthority, type Authority } from "../../../controller/pki/authority.ts";
import type { Mirror } from "../../../controller/reconcile/mirror.ts";
import { eventually, makeKeys, temporaryFolder } from "../harness.ts";

/** Connections of one address without a certificate. */
const MOST = 6;

let folder: ReturnType<typeof temporaryFolder>;
let listeners: Listeners;
let authority: Authority;
let port = 0;
let said: string[] = [];

beforeEach(async () => {
  folder = temporaryFolder();
  said = [];
  authority = await openAuthority({ folder: join(folder.path, "pki"), name: "c", hosts: ["127.0.0.1"], now: Date.now });
});

afterEach(async () => {
  await listeners.app.close();
  listeners.https.close();
  folder.remove();
});

function make(more: Pick<HttpOptions, "requestMs" | "strangers">): void {
  listeners = createListeners({
    ...authority.server,
    roots: authority.roots,
    issuers: authority.issuers,
    mirror: () => ({ get: () => undefined }) as unknown as Mirror,
    now: Date.now,
    monotonic: () => 0,
    log: (message) => void said.push(message),
    ...more,
  });
}

async function listen(): Promise<void> {
  await listeners.app.ready();
  port = await listenTcp(listeners.https, "127.0.0.1", 0);
}

interface Caller {
  readonly socket: TLSSocket;
  readonly heard: () => string;
  readonly gone: () => boolean;
  /** Whether its handshake was answered. */
  readonly secured: () => boolean;
}

function call(text: string, more: ConnectionOptions & { readonly localAddress?: string } = {}): Caller {
  let heard = "";
  let gone = false;
  let secured = false;
  const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false, ...more }, () => {
    secured = true;
    socket.write(text);
  });
  socket.on("data", (data: Buffer) => (heard += data.toString()));
  socket.on("error", () => {});
  socket.on("close", () => (gone = true));
  return { socket, heard: () => heard, gone: () => gone, secured: () => secured };
}

/** A node's. */
async function certificate(): Promise<{ key: string; cert: string }> {
  const { key, csr } = await makeKeys("a");
  const { publicKey } = new Pkcs10CertificateRequest(csr);
  return { key, cert: await authority.issue({ role: "node", name: "a" }, publicKey, 1) };
}

test("who does not finish a request is not waited for; streams and upgraded connections last", async () => {
  make({ requestMs: 1_000 });
  const { app, https } = listeners;
  app.get("/healthz", (_request, reply) => {
    reply.hijack();
    reply.raw.writeHead(200);
    const timer = setInterval(() => reply.raw.write("tick\n"), 20);
    reply.raw.once("close", () => clearInterval(timer));
  });
  app.post("/v1/join", () => "joined");
  https.on("upgrade", (_request, socket) => {
    socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    socket.pipe(socket);
  });
  await listen();

  const stream = call("GET /healthz HTTP/1.1\r\nhost: c\r\n\r\n");
  const upgraded = call("GET /v1/agent HTTP/1.1\r\nhost: c\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
  await eventually(() => expect([stream.heard(), upgraded.heard()]).toEqual([expect.stringContaining("tick"), expect.stringContaining("101")]));

  const head = "POST /v1/join HTTP/1.1\r\nhost: c\r\ncontent-type: application/json\r\ncontent-length: 2\r\n";
  const slow = [call(`${head}\r\n{`), call(head), call("")];
  await eventually(() => expect(slow.map((one) => one.gone())).toEqual([true, true, true]));
  // As an error that says "try again": an agent on a slow line does not give up.
  expect(slow[0]?.heard()).toMatch(/^HTTP\/1\.1 504 [^]*"code":"Timeout"/);

  const before = stream.heard().length;
  upgraded.socket.write("still here");
  await eventually(() => expect(upgraded.heard()).toContain("still here"));
  await eventually(() => expect(stream.heard().length).toBeGreaterThan(before));
  expect([stream.gone(), upgraded.gone()]).toEqual([false, false]);
  const closed = once(upgraded.socket, "close");
  upgraded.socket.destroy();
  stream.socket.destroy();
  await closed;
});

test("one address has so many connections without a certificate, and the oldest give way to new ones; who has one is never ended", async () => {
  make({ strangers: MOST });
  listeners.app.get("/healthz", (_request, reply) => {
    reply.hijack();
    reply.raw.writeHead(200);
    reply.raw.write("here\n");
  });
  await listen();
  const certified = await certificate();
  const known = Array.from({ length: 2 }, () => call("GET /healthz HTTP/1.1\r\nhost: c\r\n\r\n", certified));
  await eventually(() => expect(known.map(({ heard }) => heard().includes("here"))).toEqual([true, true]));
  const first = Array.from({ length: MOST }, () => call(""));
  await eventually(() => expect(first.map(({ secured }) => secured())).toEqual(first.map(() => true)));
  expect(said).toEqual([]);

  // Who shares the address is not kept out by connections that stay open.
  const [more, again] = [call(""), call("")];
  await eventually(() => expect([more.secured(), again.secured()]).toEqual([true, true]));
  await eventually(() => expect(first.map(({ gone }) => gone())).toEqual(first.map((_, i) => i < 2)));
  expect([more.gone(), again.gone()]).toEqual([false, false]);
  expect(said).toEqual([expect.stringContaining("too many are open from one address")]);
  const elsewhere = call("", { localAddress: "127.0.0.2" });
  await eventually(() => expect(elsewhere.secured()).toBe(true));
  expect(known.map(({ gone }) => gone())).toEqual([false, false]);

  // A place is free once a connection has ended, however it did: nobody is ended for the next one.
  first[2]?.socket.destroy();
  await eventually(() => expect(first[2]?.gone()).toBe(true));
  const next = call("");
  await eventually(() => expect(next.secured()).toBe(true));
  expect([first[3]?.gone(), known[0]?.gone(), known[1]?.gone()]).toEqual([false, false, false]);
});
