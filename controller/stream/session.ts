/** One agent's connection: hello first, then beats, reports and answers up, views down. */
import { randomUUID } from "node:crypto";
import type { Duplex } from "node:stream";
import type { WebSocket } from "ws";
import { IsthmusError, errorFromBody } from "../../mesh/errors.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import { AgentMessage, type AgentHello, type AgentReport, type AskedOf, jsonOf } from "../../mesh/model/wire.ts";
import { BYTES, MESSAGES, type Allowance } from "./allowance.ts";
import { messageFrames, sizeOf, type Frames } from "./frame.ts";
import type { Receiver } from "./hub.ts";
import { createOutbox } from "./outbox.ts";
import { createQuestions } from "./questions.ts";

const HELLO_DEADLINE_MS = 10_000;
/** Three heartbeats. Before that the agent is asked for a sign of life. */
const SILENCE_MS = 40_000;
const PING_AFTER_MS = 25_000;
/** Time to answer when others say that the node is gone. */
const DOUBT_MS = 6_000;
/** An agent that says too much is not read for a while; one that is further ahead than this is cut off. */
const MOST_AHEAD_MS = 10_000;
/** Time for the reason to reach an agent that is cut off. */
const FAREWELL_MS = 1_000;

export interface AgentSession extends Receiver {
  readonly bootId: string;
  /** On a clock that nobody sets, as all times here: a clock that is set would make every session look dead. */
  lastHeard: number;
  /** When it was asked for a sign of life because another node stopped using it. */
  doubtedAt?: number;
  /** Whether a report came on this connection, and one with links: the first of each says everything anew. */
  told?: boolean;
  toldLinks?: boolean;
  /** @throws {IsthmusError} `Timeout`, `Unreachable`, or what the agent answered */
  ask(what: AskedOf, body: unknown, timeoutMs: number): Promise<unknown>;
  close(code: number, reason: string): void;
  terminate(): void;
}

export interface SessionHandlers {
  /** Decides on a hello. Throwing refuses the connection; false means that the handler has ended it. */
  hello(hello: AgentHello, session: AgentSession): Promise<boolean>;
  report(session: AgentSession, report: AgentReport): void;
  beat(session: AgentSession, hashes: Readonly<Record<string, string>>): void;
  /** `answered` is called when the answer has left, or never will, or there is none. */
  buckets(session: AgentSession, view: string, hashes: readonly string[], answered: () => void): void;
  leave(session: AgentSession): void;
  closed(session: AgentSession): void;
  slow(session: AgentSession): void;
  /** It says more than it may, and was slowed down or cut off. */
  flood(what: "slowed" | "cut off"): void;
}

export function tooManyMessages(node: NodeName): IsthmusError {
  return new IsthmusError(
    "TooManyMessages",
    `node ${node} says more than a controller takes from one node: ${MESSAGES.perSecond} messages and ${BYTES.perSecond / 1024} KiB a second`,
    {
      remedy: `Look at that machine. \`isthmus delete node ${node}\` takes it out of the mesh; \`isthmus node revoke ${node}\` has the controller refuse it, and leaves it a peer of the others.`,
    },
  );
}

type Write = (message: Frames, sent?: () => void) => void;

/** Sends the reason and ends the connection; the agent's data plane stays as it is (I1). */
export function refuse(write: Write, ws: WebSocket, error: IsthmusError): void {
  const { code, message, remedy } = error;
  write(messageFrames({ t: "refused", code, message, ...(remedy === undefined ? {} : { remedy }) }), () => ws.close(4000, code));
}

export function sendRemoved(write: Write, ws: WebSocket, node: NodeName): void {
  write(messageFrames({ t: "removed", node }), () => ws.close(1000, "removed"));
}

interface Asked {
  readonly done: (body: unknown) => void;
  readonly failed: (error: IsthmusError) => void;
  readonly timer: NodeJS.Timeout;
}

export interface SessionOptions {
  readonly node: NodeName;
  readonly ws: WebSocket;
  readonly socket: Duplex;
  readonly handlers: SessionHandlers;
  readonly allowance: Allowance;
  /** Milliseconds of a clock that nobody sets. */
  readonly monotonic: () => number;
}

export function openSession({ node, ws, socket, handlers, allowance, monotonic }: SessionOptions): void {
  let session: (AgentSession & { greeted: boolean }) | undefined;
  const asked = new Map<string, Asked>();
  const outbox = createOutbox(socket);
  const deadline = setTimeout(() => ws.terminate(), HELLO_DEADLINE_MS);
  let pause: NodeJS.Timeout | undefined;
  let cut = false;
  let written = 0;
  const questions = createQuestions({
    answer(view, hashes, answered) {
      if (session === undefined || ws.readyState !== ws.OPEN) return;
      // What an agent has sent to it by asking counts like what it says.
      const before = written;
      handlers.buckets(session, view, hashes, answered);
      slowDown(allowance.spend({ messages: 0, bytes: written - before }, monotonic()));
    },
    mayAnswer: () => !cut && pause === undefined,
  });

  function makeSession(hello: AgentHello): AgentSession & { greeted: boolean } {
    return {
      greeted: false,
      node,
      bootId: hello.bootId,
      lastHeard: monotonic(),
      views: new Set(),
      suspects: new Set(),
      surplus: new Set(),
      write(message, sent) {
        written += sizeOf(message);
        if (outbox.write(message, sent)) return;
        handlers.slow(this);
        ws.terminate();
      },
      ask(what, body, timeoutMs) {
        const id = randomUUID();
        return new Promise((done, failed) => {
          const timer = setTimeout(() => {
            asked.delete(id);
            failed(new IsthmusError("Timeout", `node ${node} did not answer within ${timeoutMs} ms`));
          }, timeoutMs);
          asked.set(id, { done, failed, timer });
          this.write(messageFrames({ t: "ask", id, what, body }));
        });
      },
      close: (code, reason) => ws.close(code, reason),
      terminate: () => ws.terminate(),
    };
  }

  async function greet(hello: AgentHello): Promise<void> {
    clearTimeout(deadline);
    const made = makeSession(hello);
    session = made;
    try {
      if (hello.node !== node) throw new IsthmusError("Forbidden", `the certificate is of node ${node}, the hello of ${hello.node}`);
      made.greeted = await handlers.hello(hello, made);
      if (made.greeted && ws.readyState !== ws.OPEN) handlers.closed(made);
    } catch (thrown) {
      const error =
        thrown instanceof IsthmusError ? thrown : new IsthmusError("Internal", "the controller could not take the connection", { cause: thrown });
      refuse(outbox.write, ws, error);
    }
  }

  function take(message: AgentMessage): void {
    if (message.t === "hello") {
      if (session === undefined) void greet(message);
      return;
    }
    if (session?.greeted !== true) return;
    session.lastHeard = monotonic();
    switch (message.t) {
      case "beat":
        return handlers.beat(session, message.views);
      case "buckets":
        // There is no answer about a view that it was not given: such questions need not wait, and so cannot pile up.
        if (session.views.has(message.v)) return questions.ask(message.v, message.h);
        return handlers.buckets(session, message.v, message.h, () => {});
      case "report":
        return handlers.report(session, message);
      case "leave":
        return handlers.leave(session);
      case "answer": {
        const waiting = asked.get(message.id);
        if (waiting === undefined) return;
        asked.delete(message.id);
        clearTimeout(waiting.timer);
        if (message.error === undefined) waiting.done(message.body);
        else waiting.failed(errorFromBody(message.error));
      }
    }
  }

  /** The agent's own TCP window holds it up: nothing is dropped, and nobody else waits. */
  function slowDown(ahead: number): void {
    if (ahead === 0 || cut) return;
    if (ahead > MOST_AHEAD_MS) return cutOff();
    clearTimeout(pause);
    ws.pause();
    pause = setTimeout(goOn, ahead);
    handlers.flood("slowed");
  }

  function goOn(): void {
    pause = undefined;
    ws.resume();
    questions.next();
  }

  function cutOff(): void {
    cut = true;
    clearTimeout(deadline);
    refuse(outbox.write, ws, tooManyMessages(node));
    pause = setTimeout(() => ws.terminate(), FAREWELL_MS);
    handlers.flood("cut off");
    if (session?.greeted === true) handlers.closed(session);
  }

  ws.on("message", (data: Buffer) => {
    if (cut) return;
    slowDown(allowance.spend({ messages: 1, bytes: data.length }, monotonic()));
    if (cut) return;
    const parsed = AgentMessage.safeParse(jsonOf(data.toString("utf8")));
    // What a newer agent says beyond this version is not ours to judge; a hello that cannot be read is refused.
    if (parsed.success) take(parsed.data);
    else if (session === undefined) {
      clearTimeout(deadline);
      refuse(outbox.write, ws, new IsthmusError("BadRequest", "the first message is no hello that this controller understands"));
    }
  });
  ws.on("pong", () => {
    if (session !== undefined) session.lastHeard = monotonic();
  });
  ws.on("error", () => ws.terminate());
  ws.on("close", () => {
    clearTimeout(deadline);
    clearTimeout(pause);
    for (const { failed, timer } of asked.values()) {
      clearTimeout(timer);
      failed(new IsthmusError("Unreachable", `node ${node} went away before it answered`));
    }
    if (session?.greeted === true) handlers.closed(session);
  });
}

/** What to do about an agent by the time since it was heard. */
export function silence(session: AgentSession, now: number): "none" | "ping" | "dead" {
  const quiet = now - session.lastHeard;
  if (session.doubtedAt !== undefined && session.lastHeard < session.doubtedAt && now - session.doubtedAt > DOUBT_MS) return "dead";
  return quiet > SILENCE_MS ? "dead" : quiet > PING_AFTER_MS ? "ping" : "none";
}
