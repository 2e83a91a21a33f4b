/**
 * The running agent: wires session, cache, probes, reconciler and reports together. What decides is elsewhere and pure;
 * here is only who tells whom.
 */
import { rmSync } from "node:fs";
import { readCache } from "./cache.ts";
import { createConditions } from "./conditions.ts";
import { createControllerLink } from "./controller-link.ts";
import { createDataPlane, type HostPorts } from "./data-plane.ts";
import { NOTHING_HELD } from "./holdings.ts";
import type { Identity } from "./identity.ts";
import { keepFiles } from "./kept-files.ts";
import { openMembership } from "./membership.ts";
import { createPlanIntake } from "./plan-intake.ts";
import { createQuestions } from "./questions.ts";
import { createReporter } from "./report.ts";
import { serveSocket } from "./socket.ts";
import { createTelling } from "./telling.ts";

export interface AgentPorts extends HostPorts {
  readonly identity: Identity;
  /** `ip route get`, for explain. */
  routeGet(destination: string): Promise<{ ok: boolean; text: string }>;
  log(line: string): void;
}

/** Why the agent ended. */
export type Ended = "stopped" | "removed";

/** Runs until the signal aborts, or until the node is removed from its network. */
export async function runNode(ports: AgentPorts, outer: AbortSignal): Promise<Ended> {
  const { at } = ports;
  const log = (line: string): void => ports.log(line);
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  const started = Date.now();
  const wall = (monotonicMs: number): number => Date.now() - performance.now() + monotonicMs;
  const cache = readCache(at.plan, Date.now());
  let ended: Ended = "stopped";

  // ── who we are, what we are told, what we tell ───────────────────────────────────────────────────────────────────
  const reporter = createReporter((message) => link.session.send(message), Date.now);
  const conditions = createConditions((all) => reporter.set({ conditions: all }));
  const condition = conditions.set;
  const membership = openMembership({ at, identity: ports.identity, condition, log, signal });
  const files = keepFiles(at, condition, log);
  const intake = createPlanIntake({
    file: files.plan,
    condition,
    log,
    onPlan(plan, renamed) {
      if (!membership.foreign) dataPlane.setPlan(plan, renamed);
    },
  });
  const telling = createTelling({ reporter, condition, files, intake, identity: () => membership.identity, wall, log });

  const controllers = (): string[] => [...new Set([...membership.identity.controllers, ...(intake.plan?.network.controllers ?? [])])];
  const dataPlane = createDataPlane(ports, { membership, files, intake, telling, condition, controllers, wall, log });
  const { reconciler, peers, health } = dataPlane;

  // ── the controller, and questions ────────────────────────────────────────────────────────────────────────────────
  const link = createControllerLink(cache.state === "read" ? cache.holdings : NOTHING_HELD, {
    membership,
    condition,
    signal,
    controllers,
    onHoldings: (holdings) => intake.take(holdings, "controller"),
    onConnected(address, remote) {
      if (remote !== undefined) dataPlane.controllerIsAt(address, remote);
      reporter.connected();
    },
    onMachineAccepted() {
      if (intake.plan !== undefined) dataPlane.setPlan(intake.plan, false);
    },
    onRemoved() {
      ended = "removed";
      stop.abort();
    },
    onAsk: (what, body) => questions.ask(what, body),
    log,
  });

  const questions = createQuestions({
    membership,
    link,
    reconciler,
    peers,
    routeGet: (destination) => ports.routeGet(destination),
    current: () => ({
      plan: intake.plan,
      applied: telling.applied,
      health: health.view(),
      conditions: conditions.all(),
      events: reporter.events,
    }),
    started,
    wall,
  });

  // ── start ────────────────────────────────────────────────────────────────────────────────────────────────────────
  await serveSocket(at.socket, questions, signal);
  telling.beginning(cache, membership.foreign);
  if (cache.state === "read") intake.take(cache.holdings, "disk");
  await Promise.all([link.session.run(signal), dataPlane.run(signal), membership.run()]);
  files.flush();
  // A leave that is being answered ends with the process; give its last bytes a moment on the way out.
  rmSync(at.socket, { force: true });
  return ended;
}
