/** Agents' connections: what asks for a WebSocket on the listener, and may have one. */
import type { X509Certificate } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Server as HttpsServer } from "node:https";
import type { Duplex } from "node:stream";
import { WebSocketServer } from "ws";
import { IsthmusError } from "../../mesh/errors.ts";
import type { Mirror } from "../reconcile/mirror.ts";
import type { Agents } from "../stream/agents.ts";
import { principalOfRequest, rawAnswer, remoteAddress } from "./http.ts";

/** Bytes; what a change of ten thousand destinations does on a node is told in a few million. */
const MAX_MESSAGE = 16 * 1024 * 1024;

export interface UpgradeOptions {
  readonly agents: Agents;
  readonly mirror: Mirror;
  readonly issuers: readonly X509Certificate[];
  readonly now: () => number;
}

export function acceptAgents(https: HttpsServer, { agents, mirror, issuers, now }: UpgradeOptions): void {
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: MAX_MESSAGE, clientTracking: false });
  https.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    const refuse = (error: IsthmusError): void => void socket.end(rawAnswer(error));
    socket.on("error", () => socket.destroy());
    if (request.url?.split("?")[0] !== "/v1/agent") return refuse(new IsthmusError("NotFound", "agents connect to /v1/agent"));
    const principal = principalOfRequest(request, mirror, issuers, now());
    if (principal.kind === "nobody" && principal.why.code === "Unauthenticated") return refuse(principal.why);
    // Taken out here: what the callback names stays in memory with the connection, which a request with its headers need not.
    const address = remoteAddress(request.socket);
    sockets.handleUpgrade(request, socket, head, (ws) => agents.accept(ws, socket, principal, address));
  });
}
