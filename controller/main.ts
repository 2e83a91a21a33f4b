/** Puts the controller together: the only place where its clocks, files and sockets are made. */
import { randomBytes, randomUUID } from "node:crypto";
import { pino } from "pino";
import { asIsthmusError } from "../mesh/errors.ts";
import type { NodeName } from "../mesh/model/scalars.ts";
import { PLAN_FORMAT } from "../mesh/model/wire.ts";
import { joinEndpoint } from "../mesh/net/ip.ts";
import { publicRanges } from "./api/guard.ts";
import { createListeners, listenTcp, listenUnix } from "./api/http.ts";
import { openAudit } from "./api/audit.ts";
import { remove } from "./api/apply.ts";
import { joinRoutes } from "./api/join-routes.ts";
import { endStreams } from "./api/lines.ts";
import { nodeRoutes } from "./api/node-routes.ts";
import { opsRoutes } from "./api/ops-routes.ts";
import { resourceRoutes } from "./api/resource-routes.ts";
import type { Services } from "./api/services.ts";
import { tokenRoutes } from "./api/tokens.ts";
import { acceptAgents } from "./api/upgrade.ts";
import { settleHome } from "./home.ts";
import { makeBackup, placesOf, refuseCutOff, restoreBackup } from "./backup.ts";
import { dropHalves, privateFolder } from "./files.ts";
import { announce, ensureNetwork, foundAddresses, hostName, splitListen, type NetworkOptions } from "./first-start.ts";
import { createJoinService } from "./join/service.ts";
import { createMetrics } from "./metrics.ts";
import { startTimers } from "./timers.ts";
import { openAuthority } from "./pki/authority.ts";
import { openSeals } from "./pki/seals.ts";
import { openEvents } from "./reconcile/events.ts";
import { keepFacts } from "./reconcile/facts.ts";
import { NETWORK } from "./reconcile/keys.ts";
import { openMirror } from "./reconcile/mirror.ts";
import { startPlanner } from "./reconcile/planner.ts";
import { openRecovery } from "./reconcile/recovery.ts";
import { createReports, type NodeContact } from "./reconcile/reports.ts";
import { keepServing } from "./reconcile/serving.ts";
import { keepStatus } from "./reconcile/status.ts";
import { openSqliteStore } from "./store/sqlite.ts";
import { createAgents, type Agents } from "./stream/agents.ts";
import { createHub } from "./stream/hub.ts";

export interface Logger {
  info(detail: object, message: string): void;
  warn(detail: object, message: string): void;
  error(detail: object, message: string): void;
}

export interface ControllerOptions {
  /** Data folder; made with mode 0700 when absent. */
  readonly data: string;
  /** `ADDR:PORT`; port 0 takes a free one. */
  readonly listen: string;
  /** `HOST:PORT` under which agents reach it; found when empty. */
  readonly advertise?: readonly string[];
  /** Path of the admin socket. */
  readonly socket?: string;
  readonly signal?: AbortSignal;
  readonly log?: Logger;
  /** Ranges of the network, used at the first start only. */
  readonly network?: NetworkOptions;
  /** Milliseconds since 1970; the system's clock when absent. */
  readonly clock?: () => number;
  /** Milliseconds of a clock that nobody sets; the process's when absent. */
  readonly monotonic?: () => number;
  /** Quiet time of a recovery in ms, after which it ends when nobody is missing; 30 s when absent. */
  readonly recoveryQuietMs?: number;
}

export interface RunningController {
  /** `ADDR:PORT` that it listens on. */
  readonly address: string;
  readonly socket: string | undefined;
  readonly advertise: readonly string[];
  close(): Promise<void>;
  /** Resolves when it has closed. */
  readonly closed: Promise<void>;
}

const RESTORED = "this store was restored from a backup, or was in Recovery when its controller stopped";
const RESTORED_NOW = "nothing is deleted and no address is issued until the nodes have reported";
const COPIED = "the store is a copy of another controller's, which may still run, or an older file that was put back";
const COPIED_NOW = "nothing is deleted and no address is issued until the nodes have reported here. Run one of the two.";

/** @throws {IsthmusError} `PortTaken`, `NotRoot`, `FileMode`, `StoreDamaged`, `AlreadyRunning`, `DiskFull` … */
export async function runController(options: ControllerOptions): Promise<RunningController> {
  const log = options.log ?? pino({ base: { part: "controller" } });
  const now = options.clock ?? Date.now;
  const monotonic = options.monotonic ?? (() => performance.now());
  const newUid = randomUUID;
  const places = placesOf(options.data);
  privateFolder(places.data);
  refuseCutOff(places);
  const store = openSqliteStore(places.store);
  const stack = new AsyncDisposableStack();
  try {
    stack.defer(() => store.close());
    dropHalves(places.data);
    const failed = (what: string) => (thrown: unknown) => log.error({ reason: asIsthmusError(thrown).message }, what);
    const mirror = await openMirror(store, failed("following the store failed"));
    stack.defer(() => mirror.close());
    const network = await ensureNetwork(store, mirror, { now, newUid, randomBytes }, options.network ?? {});
    for (const warning of publicRanges(network.spec)) log.warn({ network: network.metadata.name }, warning);

    const { host, port } = splitListen(options.listen);
    const audit = openAudit(places.audit, now, failed("the audit log cannot be written"));
    stack.defer(() => audit.close());
    const events = await openEvents(store, now, failed("events cannot be saved"));
    stack.defer(() => events.close());
    const copied = await settleHome(store, mirror, places);
    const cause = copied ? COPIED : RESTORED;
    if ((await store.state()).recovering) {
      const message = `${cause}: ${copied ? COPIED_NOW : RESTORED_NOW}`;
      events.record(undefined, { type: "Warning", reason: "Recovery", message, about: "controller" });
      log.warn({ recovering: true }, message);
    }
    const contacts = (await store.notes("contact/")) as ReadonlyMap<string, NodeContact>;
    const reports = createReports(new Map([...contacts].map(([key, contact]) => [key.slice("contact/".length), contact])));
    const hub = createHub({ network: NETWORK, format: PLAN_FORMAT, now, sealOf: (revision) => recovery.sealOf(revision) });
    const status = keepStatus({ mirror, reports, output: () => hub.output, now, epoch: () => recovery.epoch });
    const facts = keepFacts({ store, mirror, onFailure: failed("facts cannot be saved") });
    stack.defer(() => facts.close());
    const lazy: { agents?: Agents } = {};
    const recovery = await openRecovery({
      store,
      mirror,
      events,
      now,
      newUid,
      seals: openSeals(places.pki),
      cause,
      surplus: () => hub.surplus(),
      probe: () => hub.probeSurplus(),
      ...(options.recoveryQuietMs === undefined ? {} : { quietMs: options.recoveryQuietMs }),
      onChange: (active) => {
        hub.setRecovering(active);
        log.warn({ recovering: active }, active ? "recovery began: this store knows less than an agent has seen" : "recovery ended");
        lazy.agents?.restartAll();
      },
    });
    hub.setRecovering(recovery.active);
    const metrics = createMetrics({ agents: () => agents, mirror: () => mirror, recovery: () => recovery, output: () => hub.output });
    const serving = keepServing({ store, mirror, events, now, onFailure: failed("what retires cannot be written down") });
    stack.defer(() => serving.close());
    const planner = startPlanner({
      mirror,
      monotonic,
      random: Math.random,
      publish: (output, revision) => {
        hub.publish(output, revision);
        metrics.plans.inc();
        serving.planned(output);
      },
      onRound: (seconds) => metrics.planSeconds.observe(seconds),
      onFailure: (thrown) => {
        metrics.planFailures.inc();
        failed("making the plan failed")(thrown);
        const message = `the stored changes cannot be made into a plan: ${asIsthmusError(thrown).message}; the nodes keep the one before, and it is tried again`;
        events.record(undefined, { type: "Warning", reason: "PlanFailed", message, about: "controller" });
      },
    });
    stack.defer(() => planner.close());
    const agents: Agents = createAgents({
      store,
      mirror,
      hub,
      facts,
      reports,
      events,
      recovery,
      now,
      monotonic,
      settled: (revision) => planner.settled(revision),
      leave: async (node: NodeName) => void (await remove(services, { kind: "node", name: node, keyHash: "" }, "MeshNode", node, false)),
      log: (message, detail = {}) => log.info(detail, message),
    });
    lazy.agents = agents;

    let advertise = options.advertise ?? [];
    const hosts = advertise.length > 0 ? advertise.map(hostName) : foundAddresses(host);
    const authority = await openAuthority({ folder: places.pki, name: "controller", hosts: [...new Set(hosts)], now });
    const { app, https, unix } = createListeners({
      cert: authority.server.cert,
      key: authority.server.key,
      roots: authority.roots,
      issuers: authority.issuers,
      mirror: () => mirror,
      now,
      monotonic,
      log: (message, detail = {}) => log.error(detail, message),
    });
    const services: Services = {
      store,
      mirror,
      authority,
      planner,
      hub,
      agents,
      reports,
      status,
      events,
      recovery,
      joins: createJoinService({ store, mirror, authority, now, newUid }),
      audit,
      now,
      newUid,
      advertise: () => advertise,
      name: "controller",
      backup: () => makeBackup(places, store, now()),
      metrics: () => metrics.text(),
    };
    for (const routes of [joinRoutes, tokenRoutes, resourceRoutes, nodeRoutes, opsRoutes]) routes(app, services);
    acceptAgents(https, { agents, mirror, issuers: authority.issuers, now });
    // A closing server waits for upgraded sockets and open streams unless they are ended first.
    app.addHook("preClose", (done) => {
      agents.closeAll();
      endStreams();
      unix.closeAllConnections();
      done();
    });
    await app.ready();
    stack.defer(async () => {
      await app.close();
      await new Promise((resolve) => https.close(resolve));
      await new Promise((resolve) => unix.close(resolve));
    });
    // The admin socket first: whoever sees the port answer may use both.
    if (options.socket !== undefined) await listenUnix(unix, options.socket);
    const listening = await listenTcp(https, host, port);
    if (advertise.length === 0) advertise = hosts.map((one) => joinEndpoint(one, listening));
    await announce(store, mirror, services.name, advertise);
    const timers = startTimers(services, https, failed);
    stack.defer(timers);
    const resources = stack.move();
    const address = joinEndpoint(host, listening);
    log.info({ address, advertise, socket: options.socket, recovering: recovery.active }, "the controller is ready");
    let closing: Promise<void> | undefined;
    let settle = (): void => {};
    const closed = new Promise<void>((resolve) => (settle = resolve));
    const close = (): Promise<void> => (closing ??= resources.disposeAsync().then(settle));
    options.signal?.addEventListener("abort", () => void close(), { once: true });
    if (options.signal?.aborted === true) await close();
    return { address, socket: options.socket, advertise, close, closed };
  } catch (thrown) {
    await stack.disposeAsync();
    throw thrown;
  }
}

/** Puts a backup into the data folder; the next start is in Recovery. */
export async function restoreController(options: { readonly data: string; readonly from: string }): Promise<void> {
  await restoreBackup(placesOf(options.data), options.from, Date.now());
}
