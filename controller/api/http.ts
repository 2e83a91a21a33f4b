/**
 * Two listeners, one set of routes: HTTPS with client certificates, and a unix socket on which whoever may open it is root.
 * TLS 1.3 only and no resumption: a resumed session skips the check of the certificate (tried).
 */
import { constants, type X509Certificate } from "node:crypto";
import { chmodSync, existsSync, rmSync } from "node:fs";
import { createServer as createHttpServer, type IncomingMessage, type Server } from "node:http";
import { createServer as createHttpsServer, type Server as HttpsServer } from "node:https";
import { connect, type Socket } from "node:net";
import { dirname } from "node:path";
import { TLSSocket, type SecureContextOptions } from "node:tls";
import fastify, { type ConnectionError, type FastifyInstance, type FastifyRequest } from "fastify";
import { IsthmusError, asIsthmusError } from "../../mesh/errors.ts";
import { makeFolder } from "../files.ts";
import { canonicalIp } from "../../mesh/net/ip.ts";
import type { IpAddress } from "../../mesh/model/scalars.ts";
import { principalOf, type AdminRole, type Principal } from "../pki/principal.ts";
import type { Mirror } from "../reconcile/mirror.ts";
import { limitStrangers } from "./strangers.ts";

const HANDSHAKE_MS = 20_000;
/** Until a request has come whole, from its connection or the request before. Answers and upgraded connections last as long as they like. */
const REQUEST_MS = 15_000;
const BODY_LIMIT = 16 * 1024 * 1024;
/** Bytes of a body that comes from nobody in particular. */
export const OPEN_BODY_LIMIT = 64 * 1024;
/** What needs no certificate. */
const OPEN: ReadonlySet<string> = new Set(["/v1/join", "/v1/renew", "/healthz", "/readyz", "/v1/openapi.json"]);

export interface Listeners {
  readonly app: FastifyInstance;
  readonly https: HttpsServer;
  readonly unix: Server;
}

export interface HttpOptions {
  readonly cert: string;
  readonly key: string;
  readonly roots: readonly string[];
  readonly issuers: readonly X509Certificate[];
  readonly mirror: () => Mirror;
  readonly now: () => number;
  readonly log: (message: string, detail?: object) => void;
  /** Milliseconds of a clock that nobody sets. */
  readonly monotonic: () => number;
  /** Milliseconds until a request has come whole; shorter in tests. */
  readonly requestMs?: number;
  /** Open connections of one address without a certificate; fewer in tests. */
  readonly strangers?: number;
}

declare module "fastify" {
  interface FastifyRequest {
    principal: Principal;
  }
}

/** Without the hybrid curves, whose public key of 6 KiB stays in memory for as long as the connection (OpenSSL 3.5). */
const CURVES = "X25519:P-256";

/** What a certificate stands in at the start and after every renewal: `setSecureContext` forgets all that it is not told. */
export function secureContextOf(server: { readonly cert: string; readonly key: string }, roots: readonly string[]): SecureContextOptions {
  return { cert: server.cert, key: server.key, ca: [...roots], minVersion: "TLSv1.3", ecdhCurve: CURVES, secureOptions: constants.SSL_OP_NO_TICKET };
}

export function createListeners(options: HttpOptions): Listeners {
  let https: HttpsServer | undefined;
  let unix: Server | undefined;
  const requestMs = options.requestMs ?? REQUEST_MS;
  const app = fastify({
    logger: false,
    bodyLimit: BODY_LIMIT,
    forceCloseConnections: true,
    clientErrorHandler: refuseUnread,
    // What comes in is checked by zod. Without compilers of our own fastify loads its JSON schema compilers, 100 modules that nobody uses.
    schemaController: { compilersFactory: { buildValidator: noSchemas, buildSerializer: noSchemas } },
    serverFactory: (handler) => {
      unix = createHttpServer(handler);
      https = createHttpsServer(
        {
          ...secureContextOf(options, options.roots),
          requestCert: true,
          rejectUnauthorized: false,
          handshakeTimeout: HANDSHAKE_MS,
          requestTimeout: requestMs,
          headersTimeout: requestMs,
          connectionsCheckingInterval: Math.ceil(requestMs / 3),
          ALPNProtocols: ["http/1.1"],
        },
        handler,
      );
      return https;
    },
  });
  app.decorateRequest("principal");
  app.addHook("onRequest", (request, _reply, done) => {
    request.principal = principalOfRequest(request.raw, options.mirror(), options.issuers, options.now());
    // Before the body is read: whoever may not use the API cannot fill the memory either.
    if (!OPEN.has(request.routeOptions.url ?? "")) requireRole(request, "viewer");
    done();
  });
  app.setErrorHandler((thrown, request, reply) => {
    const error = asFastifyError(thrown);
    if (error.code === "Internal")
      options.log("a request failed", {
        method: request.method,
        path: request.url,
        reason: error.message,
        stack: error.stack,
        cause: String(error.cause),
      });
    return reply.status(error.http).send(error.toJSON());
  });
  app.setNotFoundHandler((request, reply) => {
    const error = new IsthmusError("NotFound", `${request.method} ${request.url.split("?")[0]} is not part of this API`, {
      remedy: "See /v1/openapi.json.",
    });
    return reply.status(error.http).send(error.toJSON());
  });
  if (https === undefined || unix === undefined) throw new IsthmusError("Internal", "the listeners were not made");
  const { monotonic, log, strangers } = options;
  limitStrangers(https, { addressOf: remoteAddress, monotonic, log, ...(strangers === undefined ? {} : { most: strangers }) });
  return { app, https, unix };
}

/** A request that did not come whole, or is no HTTP: the caller is told in words that it knows, so that a slow one tries again. */
function refuseUnread(thrown: ConnectionError, socket: Socket): void {
  if (thrown.code === "ECONNRESET" || socket.destroyed) return;
  const late = thrown.code === "ERR_HTTP_REQUEST_TIMEOUT";
  const error = late
    ? new IsthmusError("Timeout", "the request did not come whole in time")
    : new IsthmusError("BadRequest", "that is no HTTP request");
  if (socket.writable) socket.write(rawAnswer(error));
  socket.destroy(thrown);
}

/** An error as the whole text of an HTTP answer, for connections that fastify does not answer on. */
export function rawAnswer(error: IsthmusError): string {
  const body = JSON.stringify(error.toJSON());
  return `HTTP/1.1 ${error.http} ${error.code}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`;
}

function noSchemas(): never {
  throw new IsthmusError("Internal", "a route has a JSON schema; inputs are checked by zod");
}

export function principalOfRequest(request: IncomingMessage, mirror: Mirror, issuers: readonly X509Certificate[], now: number): Principal {
  const { socket } = request;
  return socket instanceof TLSSocket ? principalOf(socket, mirror, issuers, now) : { kind: "root" };
}

const RANK: Record<AdminRole, number> = { viewer: 1, operator: 2, admin: 3 };

/** @throws {IsthmusError} `Unauthenticated`, `Forbidden` */
export function requireRole(request: FastifyRequest, role: AdminRole): Principal {
  const { principal } = request;
  switch (principal.kind) {
    case "root":
      return principal;
    case "admin":
      if (RANK[principal.role] >= RANK[role]) return principal;
      throw new IsthmusError("Forbidden", `admin ${principal.name} has role ${principal.role}; this needs ${role}`);
    case "nobody":
      throw principal.why;
    case "node":
    case "stranger":
    case "removed":
      throw new IsthmusError("Forbidden", "a node's certificate does not open the API");
  }
}

/** The peer's address without the v4-mapped form of dual-stack sockets. */
export function remoteAddress(socket: Socket): IpAddress | undefined {
  const parsed = canonicalIp((socket.remoteAddress ?? "").replace(/^::ffff:/i, "").replace(/%.*$/, ""));
  return parsed.ok ? (parsed.text as IpAddress) : undefined;
}

/** @throws {IsthmusError} `PortTaken`, `Forbidden` */
export async function listenTcp(server: HttpsServer, host: string, port: number): Promise<number> {
  await listening(server, () => server.listen({ host, port, backlog: 1024 }), `${host}:${port}`);
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : port;
}

/** Listens on a unix socket of mode 0600; a socket file that nobody answers on is a leftover and is replaced. */
export async function listenUnix(server: Server, path: string): Promise<void> {
  makeFolder(dirname(path));
  if (existsSync(path)) {
    if (await answers(path))
      throw new IsthmusError("AlreadyRunning", `another controller listens on ${path}`, { remedy: "Stop it, or give this one another --socket." });
    rmSync(path);
  }
  const before = process.umask(0o177);
  try {
    await listening(server, () => server.listen({ path }), path);
  } finally {
    process.umask(before);
  }
  chmodSync(path, 0o600);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

function listening(server: Server | HttpsServer, listen: () => void, where: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (thrown: NodeJS.ErrnoException): void => {
      server.off("listening", done);
      reject(listenError(thrown, where));
    };
    const done = (): void => {
      server.off("error", failed);
      resolve();
    };
    server.once("error", failed);
    server.once("listening", done);
    listen();
  });
}

function listenError(thrown: NodeJS.ErrnoException, where: string): IsthmusError {
  if (thrown.code === "EADDRINUSE")
    return new IsthmusError("PortTaken", `${where} is already in use`, {
      remedy: "Stop what listens there (`ss -ltnp`), or choose another address with --listen.",
      cause: thrown,
    });
  if (thrown.code === "EACCES" || thrown.code === "EPERM")
    return new IsthmusError("NotRoot", `listening on ${where} is not permitted`, {
      remedy: "Run as root, or choose a port above 1023 and a socket path of your own.",
      cause: thrown,
    });
  if (thrown.code === "EADDRNOTAVAIL")
    return new IsthmusError("Invalid", `${where} is no address of this machine`, {
      remedy: "Give one of its own addresses with --listen.",
      cause: thrown,
    });
  return new IsthmusError("Internal", `cannot listen on ${where}: ${thrown.message}`, { cause: thrown });
}

function asFastifyError(thrown: unknown): IsthmusError {
  if (thrown instanceof IsthmusError) return thrown;
  const status = (thrown as { statusCode?: number }).statusCode ?? 500;
  return status < 500 ? new IsthmusError("BadRequest", (thrown as Error).message, { cause: thrown }) : asIsthmusError(thrown);
}
