/**
 * The agent's one connection: a WebSocket over mTLS to whichever controller answers. Errors end a connection, never the data plane:
 * the only message that makes the agent give up is `removed` for its own name, from a verified controller (I1).
 */
import { WebSocket } from "ws";
import { asIsthmusError, errorFromBody, IsthmusError } from "../mesh/errors.ts";
import { type AgentMessage, type AgentReport, type AskedOf, ControllerMessage, jsonOf } from "../mesh/model/wire.ts";
import { backoffMs, pause } from "./backoff.ts";
import { type Credentials, openContact } from "./contact.ts";
import { beatOf, bucketsOf, helloOf, type Holdings, receive } from "./holdings.ts";

const BACKOFF = { firstMs: 200, mostMs: 10_000 };
const BEAT_MS = 20_000;
/** Nothing heard for this long (pings are answered, beats are not): the connection is dead. */
const SILENCE_MS = 45_000;
/** Between two looks whether this machine still has the address that the connection leaves from; two in a row decide. */
const SOURCE_MS = 1_000;
/** Until an announced view that has not come is asked for, and again. */
const ASK_AGAIN = { firstMs: 3_000, mostMs: 60_000 };
/** A connection that lived this long was a good one: the next attempt starts from the shortest delay. */
const GOOD_MS = 10_000;

export interface SessionPorts {
  readonly who: { readonly node: string; readonly version: string; readonly bootId: string; readonly machineId: string };
  /** Controllers to try, in order. */
  controllers(): readonly string[];
  /** Current key, certificate and roots; read anew for each connection. */
  credentials(): Credentials & { readonly roots: string };
  now(): number;
  /** Whether this machine has the address. */
  hasAddress(address: string): boolean;
  /** Renews the certificate; called after a refusal that names its expiry. */
  renew(): Promise<void>;
  /** The holdings changed and are whole. */
  onHoldings(holdings: Holdings): void;
  /** @param remote where the verified controller was reached, whatever name it has */
  onConnected(address: string, now: number, remote: string | undefined): void;
  onDisconnected(why: IsthmusError): void;
  /** Authenticated: this node was removed from the network. */
  onRemoved(): void;
  onAsk(what: AskedOf, body: unknown): Promise<unknown>;
  log(line: string): void;
}

export interface Session {
  readonly holdings: Holdings;
  readonly connected: { readonly address: string; readonly since: number } | undefined;
  /** Sends now, or not at all when there is no connection. */
  send(message: AgentReport | Extract<AgentMessage, { t: "leave" }>): boolean;
  /** Gives the connection up and makes a new one at once: the other end may be long gone without a word. */
  reconnect(): void;
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

export function createSession(initial: Holdings, ports: SessionPorts): Session {
  let holdings = initial;
  let socket: WebSocket | undefined;
  let connected: Session["connected"];
  let awaitTimer: NodeJS.Timeout | undefined;
  let asked = 0;
  /** A cache and a join's answer are whole. */
  let planned = initial.views.size > 0;
  /** Something came that nobody was told of. */
  let untold = false;
  let hurry = new AbortController();

  const transmit = (message: AgentMessage): boolean => {
    if (socket?.readyState !== WebSocket.OPEN) return false;
    socket.send(JSON.stringify(message));
    return true;
  };

  const tell = (): void => {
    untold = false;
    ports.onHoldings(holdings);
  };

  const stopWaiting = (): void => {
    clearTimeout(awaitTimer);
    awaitTimer = undefined;
    asked = 0;
  };

  /** Half a change is never applied in place of a plan: what leaves one view and is not yet in the other would have no route (I4). */
  const askAgain = (): void => {
    const awaited = [...holdings.awaiting];
    ports.log(`the controller did not send ${awaited.join(", ")}; asking again`);
    for (const id of awaited) transmit(bucketsOf(holdings, id));
    if (!planned) tell();
    awaitTimer = setTimeout(askAgain, backoffMs(++asked, ASK_AGAIN, Math.random()));
  };

  /** Tells of a change once every announced view is here, so that no half plan is applied. */
  const settle = (changed: boolean): void => {
    untold ||= changed;
    if (holdings.awaiting.size > 0) {
      awaitTimer ??= setTimeout(askAgain, ASK_AGAIN.firstMs);
      return;
    }
    stopWaiting();
    if (!untold) return;
    planned ||= holdings.views.size > 0;
    tell();
  };

  const answer = (id: string, what: AskedOf, body: unknown): void => {
    ports.onAsk(what, body).then(
      (result) => transmit({ t: "answer", id, body: result }),
      (thrown: unknown) => transmit({ t: "answer", id, error: asIsthmusError(thrown).toJSON() }),
    );
  };

  const take = (text: string, address: string, remote: string | undefined, failed: (error: IsthmusError) => void): void => {
    const parsed = ControllerMessage.safeParse(jsonOf(text));
    // Unknown messages come from newer controllers; they are not ours to judge.
    if (!parsed.success) return;
    const message = parsed.data;
    if (message.t === "removed") {
      if (message.node === ports.who.node) ports.onRemoved();
      return;
    }
    if (message.t === "refused") return failed(errorFromBody(message));
    if (message.t === "ask") return answer(message.id, message.what, message.body);
    const result = receive(holdings, message);
    const moved = result.holdings.seen !== holdings.seen;
    holdings = result.holdings;
    if (message.t === "hello") {
      connected = { address, since: ports.now() };
      ports.onConnected(address, message.now, remote);
    }
    for (const one of result.send) transmit(one);
    settle(result.changed || (moved && message.t === "hello"));
  };

  /** One connection, from the first byte to its end. */
  const connection = async (address: string, signal: AbortSignal): Promise<IsthmusError> => {
    const { key, certificate, roots } = ports.credentials();
    const tls = await openContact(address, { roots, now: ports.now() }, { key, certificate }, signal);
    const ws = new WebSocket("ws://controller/v1/agent", {
      createConnection: () => tls,
      perMessageDeflate: false,
      handshakeTimeout: 5_000,
      maxPayload: 256 * 1024 * 1024,
    });
    socket = ws;
    let heard = performance.now();
    const timer = setInterval(() => {
      if (performance.now() - heard > SILENCE_MS) ws.terminate();
      else if (ws.readyState === WebSocket.OPEN) {
        ws.ping();
        transmit(beatOf(holdings));
      }
    }, BEAT_MS);
    const source = tls.localAddress;
    let looks = 0;
    // TCP would go on for many minutes from an address that the machine lost, and nobody would learn the new one.
    const sourceTimer = setInterval(() => {
      looks = source === undefined || ports.hasAddress(source) ? 0 : looks + 1;
      if (looks >= 2) ws.terminate();
    }, SOURCE_MS);
    const stop = (): void => ws.close(1000);
    signal.addEventListener("abort", stop, { once: true });
    try {
      return await new Promise<IsthmusError>((done) => {
        const failed = (error: IsthmusError): void => {
          done(error);
          ws.close(1000);
        };
        ws.on("open", () => transmit(helloOf(holdings, ports.who)));
        ws.on("message", (data: Buffer) => {
          heard = performance.now();
          take(data.toString("utf8"), address, tls.remoteAddress, failed);
        });
        for (const sign of ["ping", "pong"] as const) ws.on(sign, () => void (heard = performance.now()));
        ws.on("unexpected-response", (_call, reply) => {
          const parts: Buffer[] = [];
          reply.on("data", (part: Buffer) => parts.push(part));
          reply.on("end", () => {
            done(errorFromBody(jsonOf(Buffer.concat(parts).toString("utf8"))));
            ws.terminate();
          });
        });
        ws.on("error", (error) => done(new IsthmusError("Unreachable", `connection to ${address} failed: ${error.message}`, { cause: error })));
        ws.on("close", (code) => done(new IsthmusError("Unreachable", `controller ${address} closed the connection (${code})`)));
      });
    } finally {
      clearInterval(timer);
      clearInterval(sourceTimer);
      stopWaiting();
      signal.removeEventListener("abort", stop);
      socket = undefined;
      connected = undefined;
      if (ws.readyState !== WebSocket.CLOSED) setTimeout(() => ws.terminate(), 500).unref();
    }
  };

  return {
    get holdings() {
      return holdings;
    },
    get connected() {
      return connected;
    },
    send: transmit,
    reconnect() {
      connected = undefined;
      socket?.terminate();
      hurry.abort();
    },
    async run(signal) {
      let failures = 0;
      while (!signal.aborted) {
        // Also what is asked for while a connection ends is not waited for.
        hurry = new AbortController();
        for (const address of ports.controllers()) {
          if (signal.aborted) return;
          const started = performance.now();
          const error = await connection(address, signal).catch((thrown: unknown) => asIsthmusError(thrown, "Unreachable"));
          if (signal.aborted) return;
          if (performance.now() - started > GOOD_MS) failures = 0;
          ports.onDisconnected(error);
          if (error.code === "CertificateExpired") await ports.renew().catch((thrown: unknown) => ports.log(asIsthmusError(thrown).message));
        }
        failures++;
        await pause(backoffMs(failures, BACKOFF, Math.random()), signal, hurry.signal);
      }
    },
  };
}
