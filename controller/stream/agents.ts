/** All connected agents: who may connect, what their words do, and when the controller must recover (DESIGN §5, §6). */
import type { Duplex } from "node:stream";
import type { WebSocket } from "ws";
import { IsthmusError, asIsthmusError } from "../../mesh/errors.ts";
import type { IpAddress, NodeName } from "../../mesh/model/scalars.ts";
import type { AgentHello, AgentReport } from "../../mesh/model/wire.ts";
import { hopsAreCut, hopsOf, PLAN_FORMAT } from "../../mesh/model/wire.ts";
import type { Member } from "../join/records.ts";
import type { Principal } from "../pki/principal.ts";
import type { Events } from "../reconcile/events.ts";
import type { FactsKeeper } from "../reconcile/facts.ts";
import { FOLDER } from "../reconcile/keys.ts";
import type { Mirror } from "../reconcile/mirror.ts";
import type { Recovery } from "../reconcile/recovery.ts";
import type { Reports } from "../reconcile/reports.ts";
import type { Store } from "../store/types.ts";
import { createCloneGuard } from "./clones.ts";
import type { Hub } from "./hub.ts";
import { CONNECTION_MESSAGES } from "./allowance.ts";
import { createFloods } from "./floods.ts";
import { createOutbox } from "./outbox.ts";
import { openSession, refuse, sendRemoved, silence, tooManyMessages, type AgentSession, type SessionHandlers } from "./session.ts";

export interface Agents {
  /** Takes over a connection whose WebSocket handshake is done. */
  accept(ws: WebSocket, socket: Duplex, principal: Principal, address: IpAddress | undefined): void;
  session(node: string): AgentSession | undefined;
  readonly sessions: ReadonlyMap<NodeName, AgentSession>;
  /** Tells a node that it was removed, and ends its connection. */
  remove(node: NodeName): void;
  /** Ends a node's connection with a reason. */
  refuse(node: NodeName, error: IsthmusError): void;
  /** Lets every agent connect anew, spread over a moment. */
  restartAll(): void;
  /** Ends connections that fell silent. */
  sweep(): void;
  closeAll(): void;
  readonly counters: Counters;
}

export interface Counters {
  /** Views that differed although nothing was on its way. */
  hashFaults: number;
  slowReaders: number;
  refused: number;
  /** Times that an agent said more than it may: it was slowed down, cut off, or its events were dropped. */
  readonly floods: number;
}

export interface AgentsOptions {
  readonly store: Store;
  readonly mirror: Mirror;
  readonly hub: Hub;
  readonly facts: FactsKeeper;
  readonly reports: Reports;
  readonly events: Events;
  readonly recovery: Recovery;
  readonly now: () => number;
  /** Milliseconds of a clock that nobody sets. */
  readonly monotonic: () => number;
  /** Resolves when the plan of this revision was published. */
  readonly settled: (revision: number) => Promise<void>;
  readonly leave: (node: NodeName) => Promise<void>;
  readonly log: (message: string, detail?: object) => void;
}

type AgentPrincipal = Extract<Principal, { readonly kind: "node" | "stranger" }>;

interface Connection {
  readonly ws: WebSocket;
  readonly session: AgentSession;
}

export function createAgents(options: AgentsOptions): Agents {
  const { store, mirror, hub, facts, reports, events, recovery, now, monotonic, log } = options;
  const connections = new Map<NodeName, Connection>();
  const sessions = new Map<NodeName, AgentSession>();
  const clones = createCloneGuard(events);
  const floods = createFloods(events, log, monotonic);
  const counters: Counters = {
    hashFaults: 0,
    slowReaders: 0,
    refused: 0,
    get floods() {
      return floods.count;
    },
  };

  function drop(node: NodeName, error: IsthmusError): void {
    const connection = connections.get(node);
    if (connection === undefined) return;
    refuse((message, sent) => connection.session.write(message, sent), connection.ws, error);
    closed(connection.session);
  }

  function checkMachine(hello: AgentHello): void {
    const member = mirror.get(FOLDER.members + hello.node)?.value as Member | undefined;
    if (member === undefined)
      throw new IsthmusError("Unauthenticated", `node ${hello.node} is not on record`, { remedy: "Join again with a token." });
    const { evict } = clones.check(hello, member);
    if (evict !== undefined && connections.get(hello.node)?.session.bootId === evict) drop(hello.node, clones.found(hello.node));
  }

  async function greet(
    hello: AgentHello,
    session: AgentSession,
    connection: Connection,
    principal: Principal,
    address: IpAddress | undefined,
  ): Promise<boolean> {
    if (hello.format < PLAN_FORMAT - 1) {
      throw new IsthmusError(
        "PlanUnsupported",
        `node ${hello.node} speaks plan format ${hello.format}; this controller speaks ${PLAN_FORMAT} and the one before`,
        { remedy: "Upgrade the agent." },
      );
    }
    await recovery.onHello(hello, principal);
    // A node that was taken back just now: a greeting before the plan knows it would name no views.
    if (hub.output?.audience.has(hello.node) !== true) await options.settled(mirror.revision);
    checkMachine(hello);
    const previous = connections.get(hello.node);
    // The newest connection wins: the older one is a half-open leftover.
    if (previous !== undefined) {
      closed(previous.session);
      previous.ws.terminate();
    }
    connections.set(hello.node, connection);
    sessions.set(hello.node, session);
    const { recovering: _, ...position } = await store.state();
    hub.attach(
      session,
      hello,
      recovery.sealed(position),
      hello.seen !== undefined && recovery.supersedes(hello.seen.lineage) ? [hello.seen.lineage] : [],
    );
    reports.touch(hello.node, { connected: true, lastSeen: now(), version: hello.version, bootId: hello.bootId });
    facts.seen(hello.node, address);
    recovery.reported(hello.node);
    return true;
  }

  function closed(session: AgentSession): void {
    hub.detach(session);
    if (connections.get(session.node)?.session !== session) return;
    connections.delete(session.node);
    sessions.delete(session.node);
    const contact = reports.contact(session.node);
    reports.touch(session.node, { ...contact, connected: false, lastSeen: now() });
  }

  /** Gateways that a node left as dead are asked at once: their silence would be noticed much later. */
  function doubt(reporter: NodeName, report: AgentReport): void {
    const before = reports.get(reporter)?.results;
    for (const [id, result] of Object.entries(report.results ?? {})) {
      if (result?.reason !== "GatewayDown") continue;
      const left = hopsOf(before?.get(id) ?? {}).filter((node) => !hopsAreCut(result) && !hopsOf(result).includes(node));
      for (const { session, ws } of left.flatMap((node) => connections.get(node as NodeName) ?? [])) {
        session.doubtedAt = monotonic();
        ws.ping();
      }
    }
  }

  function takeReport(session: AgentSession, report: AgentReport): void {
    doubt(session.node, report);
    reports.merge(session.node, report, session.told !== true);
    facts.report(session.node, report, { wholeLinks: session.toldLinks !== true });
    session.told = true;
    session.toldLinks ||= report.links !== undefined;
    const said = report.events ?? [];
    const taken = floods.allowanceOf(session.node).events(said.length, monotonic());
    for (const event of said.slice(0, taken)) events.record(session.node, event);
    if (taken < said.length) floods.tell(session.node, "events dropped");
  }

  function handlersOf(ws: WebSocket, principal: AgentPrincipal, address: IpAddress | undefined): SessionHandlers {
    return {
      hello: async (hello, session) => {
        try {
          return await greet(hello, session, { ws, session }, principal, address);
        } catch (thrown) {
          counters.refused++;
          const error = asIsthmusError(thrown);
          log("an agent was refused", { node: hello.node, code: error.code, reason: error.message });
          throw error;
        }
      },
      report: takeReport,
      beat: (session, hashes) => {
        const contact = reports.contact(session.node);
        if (contact !== undefined) reports.touch(session.node, { ...contact, connected: true, lastSeen: now() });
        hub.checkHashes(session, hashes);
      },
      buckets: (session, view, hashes, answered) => {
        if (hub.answerBuckets(session, view, hashes, answered) !== "fault") return;
        counters.hashFaults++;
        log("a view differed on an agent and was mended", { node: session.node, view });
      },
      leave: ({ node }) => {
        options.leave(node).catch((thrown: unknown) => log("a node could not leave", { node, reason: asIsthmusError(thrown).message }));
      },
      closed,
      slow: ({ node }) => {
        counters.slowReaders++;
        log("an agent reads too slowly and was dropped", { node });
      },
      flood: (what) => floods.tell(principal.name, what),
    };
  }

  return {
    counters,
    sessions,
    session: (node) => sessions.get(node as NodeName),
    accept(ws, socket, principal, address) {
      const reject = (error: IsthmusError): void => {
        counters.refused++;
        log("an agent was refused", { code: error.code, reason: error.message });
        refuse(createOutbox(socket).write, ws, error);
      };
      ws.on("error", () => ws.terminate());
      switch (principal.kind) {
        case "removed":
          return sendRemoved(createOutbox(socket).write, ws, principal.name);
        case "nobody":
          return reject(principal.why);
        case "root":
        case "admin":
          return reject(new IsthmusError("Forbidden", "only agents speak on this path"));
        case "stranger":
        case "node":
          break;
      }
      const allowance = floods.allowanceOf(principal.name);
      if (allowance.ahead(monotonic()) > 0) return reject(tooManyMessages(principal.name));
      allowance.spend({ messages: CONNECTION_MESSAGES, bytes: 0 }, monotonic());
      openSession({ node: principal.name, ws, socket, allowance, monotonic, handlers: handlersOf(ws, principal, address) });
    },
    remove(node) {
      const connection = connections.get(node);
      clones.forget(node);
      reports.forget(node);
      if (connection === undefined) return;
      sendRemoved((message, sent) => connection.session.write(message, sent), connection.ws, node);
      closed(connection.session);
      reports.forget(node);
    },
    refuse: drop,
    restartAll() {
      for (const { ws } of connections.values()) ws.close(1012, "resume");
    },
    sweep() {
      floods.sweep(sessions);
      const now = monotonic();
      for (const { session, ws } of connections.values()) {
        const state = silence(session, now);
        if (state === "dead") ws.terminate();
        else if (state === "ping") ws.ping();
      }
    },
    closeAll() {
      for (const { ws } of connections.values()) ws.terminate();
    },
  };
}
