/**
 * The running agent: wires session, cache, probes, reconciler and reports together. What decides is elsewhere and pure;
 * here is only who tells whom.
 */
import { rmSync } from "node:fs";
import { release } from "node:os";
import { asIsthmusError, IsthmusError } from "../mesh/errors.ts";
import { describeOperation } from "../mesh/kernel/diff.ts";
import type { Operation } from "../mesh/kernel/operations.ts";
import { clientMarks } from "../mesh/kernel/pairs.ts";
import type { HostFacts } from "../mesh/kernel/types.ts";
import { MARK_WIREGUARD, marksOf } from "../mesh/kernel/layout.ts";
import { isGateway, overlayMtu } from "../mesh/kernel/wireguard.ts";
import type { Explanation } from "../mesh/model/answers.ts";
import type { Plan } from "../mesh/model/plan.ts";
import type { Endpoint, IpAddress } from "../mesh/model/scalars.ts";
import type { Position } from "../mesh/model/wire.ts";
import { diffProposal, explainDestination } from "./answers.ts";
import { pause } from "./backoff.ts";
import { type CacheRead, formatCache, readCache } from "./cache.ts";
import { spawnLines } from "./drivers/exec.ts";
import type { Kernel } from "./drivers/index.ts";
import { formatElections, NO_ELECTIONS, parseElections } from "./elections.ts";
import { type Places, readHint, readIfThere } from "./files.ts";
import { createHealthMonitor, silentLinks } from "./health.ts";
import { createHostCare } from "./host-care.ts";
import { type Holdings, NOTHING_HELD, type ProposedChange, viewData } from "./holdings.ts";
import { certificateTimes, type Identity, knownNow, writeIdentity } from "./identity.ts";
import { renew } from "./join.ts";
import { createKeeper, type Keeper } from "./keeper.ts";
import { loadOrMakeKeys } from "./keys.ts";
import { formatLinks, type Links, parseLinks } from "./links.ts";
import { bootId, machineIdLike } from "./machine-id.ts";
import { hasAddress, interfaceAddresses, ownCandidates } from "./own-endpoints.ts";
import { createPeerKeeper } from "./peers.ts";
import { createPathMtu, formatNarrow, mtuConditions, mtuTargets, parseNarrow } from "./path-mtu.ts";
import { acceptPlan } from "./plan-guard.ts";
import { monotonic } from "./probe/clock.ts";
import { controllerServices, createNameKeeper, formatAnswers, parseAnswers, type Service, withServices } from "./protected-names.ts";
import { createReconciler, type Pass } from "./reconcile.ts";
import { createReporter } from "./report.ts";
import { failuresById, moveEvents, resultsOf } from "./results.ts";
import { createSession } from "./session.ts";
import { serveSocket } from "./socket.ts";
import { createStarting, NO_PLAN_YET } from "./starting.ts";
import { type AgentStatus, dataPlaneStatus, type NodeCondition } from "./status.ts";
import { VERSION } from "./version.ts";

const CACHE_AFTER_MS = 100;
const CARE_MS = 30_000;
const CARE_AFTER_MS = 300;
/** Between two looks at the flows of a gateway that is drained, and how many must find none: clients move within one. */
const FLOWS_MS = 1_000;
const QUIET_LOOKS = 3;
const HOUR_MS = 3_600_000;
const LEAVE_MS = 8_000;
const LEAVE_ANSWER_MS = 2_000;

export interface AgentPorts {
  readonly at: Places;
  readonly identity: Identity;
  readonly kernel: Kernel;
  /** `ip route get`, for explain. */
  routeGet(destination: string): Promise<{ ok: boolean; text: string }>;
  /** Probes of a path's MTU. */
  pingUndivided(address: IpAddress, bytes: number, until: AbortSignal): Promise<boolean>;
  learnedMtu(endpoint: Endpoint, mark: number): Promise<number | undefined>;
  /** What this host depends on, besides the controllers. */
  services(): readonly Service[];
  /** All addresses of a name. */
  lookup(name: string, until: AbortSignal): Promise<readonly string[]>;
  log(line: string): void;
}

/** Why the agent ended. */
export type Ended = "stopped" | "removed";

/** Runs until the signal aborts, or until the node is removed from its network. */
export async function runNode(ports: AgentPorts, outer: AbortSignal): Promise<Ended> {
  const { at, kernel } = ports;
  const log = (line: string): void => ports.log(line);
  let identity = ports.identity;
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  const started = Date.now();
  const wall = (monotonicMs: number): number => Date.now() - performance.now() + monotonicMs;
  const keys = loadOrMakeKeys(at);
  const machine = machineIdLike(identity.machineId);
  /** Keys and cache came from another machine: nothing starts before the controller agrees. */
  let foreign = identity.machineId !== machine;
  let ended: Ended = "stopped";

  const conditions = new Map<string, NodeCondition>();
  const condition = (type: string, reason: string, message: string | undefined): void => {
    if (message === undefined) conditions.delete(type);
    else conditions.set(type, { type, status: "True", reason, message: message.slice(0, 1024) });
    reporter.set({ conditions: [...conditions.values()].toSorted((a, b) => (a.type < b.type ? -1 : 1)) });
  };
  const starting = createStarting();
  const reporter = createReporter((message) => session.send(message), Date.now);

  // ── the plan ─────────────────────────────────────────────────────────────────────────────────────────────────────
  const cache: CacheRead = readCache(at.plan, Date.now());
  let plan: Plan | undefined;
  let planAt: Position | undefined;
  let applied: Position | undefined;

  const keeper = (path: string, afterMs: number, type: string): Keeper =>
    createKeeper({
      path,
      afterMs,
      onResult(error) {
        condition(type, error?.code ?? "", error?.message);
        if (error !== undefined) log(error.message);
      },
    });
  const planFile = keeper(at.plan, CACHE_AFTER_MS, "PlanNotStored");
  const linksFile = keeper(at.links, CACHE_AFTER_MS, "LinksNotStored");
  const choicesFile = keeper(at.choices, CACHE_AFTER_MS, "ChoicesNotStored");
  const namesFile = keeper(at.names, CACHE_AFTER_MS, "NamesNotStored");
  const mtuFile = keeper(at.mtu, CACHE_AFTER_MS, "MtuNotStored");

  const takeHoldings = (holdings: Holdings, fromController: boolean): void => {
    const { plan: next, faults } = acceptPlan(viewData(holdings), plan);
    if (next === undefined) {
      if (fromController) {
        condition("PlanRejected", "Incomplete", `the controller's plan is not taken: ${faults}`);
        log(`the controller's plan is not taken: ${faults}`);
      }
      return;
    }
    condition("PlanRejected", "Unsupported", faults);
    if (fromController) condition("CacheDamaged", "", undefined);
    const renamed = next.network.controllers.join() !== plan?.network.controllers.join();
    plan = next;
    planAt = holdings.seen;
    if (fromController) planFile.set(() => formatCache(holdings));
    if (foreign) return;
    reconciler.setPlan(next);
    peers.wake();
    if (renamed) names.wake();
  };

  // ── probing and reconciling ──────────────────────────────────────────────────────────────────────────────────────
  const onHealth = (): void => {
    reconciler.wake("health");
    // A link that fell silent may have lost its peer.
    if (silentLinks(health.view().links).size > 0) peers.wake();
  };
  const health = createHealthMonitor({ clock: monotonic, spawn: spawnLines, onChange: onHealth });
  let watched: { plan: Plan | undefined; links: Links | undefined } = { plan: undefined, links: undefined };

  const onPass = (pass: Pass): void => {
    const { links } = pass.input;
    if (watched.plan !== pass.input.plan || watched.links === undefined || formatLinks(watched.links) !== formatLinks(links)) {
      watched = { plan: pass.input.plan, links };
      health.setPlan(pass.input.plan, links);
      care.setPlan(pass.input.plan, links);
      peers.wake();
    }
    linksFile.set(() => formatLinks(links));
    choicesFile.set(() => formatElections(pass.elections, wall));
    for (const event of moveEvents(pass)) reporter.event(event);
    const failed = failuresById(pass);
    const nodeFailure = failed.get("node");
    condition("KernelRefused", "KernelRefused", nodeFailure);
    condition(
      "TooManyGateways",
      "LinksExhausted",
      pass.withoutLink.length === 0 ? undefined : `63 links are in use; none for ${pass.withoutLink.join(", ")}`,
    );
    for (const { type, message } of mtuConditions(pass.input)) condition(type, type, message);
    if (pass.failures.length === 0 && plan === pass.input.plan) applied = planAt;
    else for (const { op, error } of pass.failures.slice(0, 3)) log(`the kernel refused ${op.op}: ${error ?? ""}`);
    const { network } = pass.input.plan;
    reporter.set({
      ...(applied === undefined ? {} : { applied }),
      kernel: release().slice(0, 64),
      wireguard: pass.input.host.wireguard,
      endpoints: ownCandidates(interfaceAddresses(), network.ports.mesh, [network.overlay.v4, network.overlay.v6, network.links.v4]),
      manualEndpoints: identity.manualEndpoints,
      advertise: identity.advertise,
      links: Object.fromEntries([...links].map(([node, k]) => [node, network.ports.links + k])),
      results: resultsOf(pass, wall),
    });
  };

  const care = createHostCare({ kernel, condition, log, now: () => performance.now() });

  const onDrift = (operations: readonly Operation[]): void => {
    const rows = operations.slice(0, 3).flatMap((one) => describeOperation(one).map((row) => `${row.action} ${row.what}`));
    const message = `put back what someone else changed: ${rows.join("; ")}${operations.length > 3 ? `; ${operations.length - 3} more` : ""}`;
    reporter.event({ type: "Warning", reason: "Drift", message, about: "node" });
    log(message);
  };

  const controllers = (): string[] => [...new Set([...identity.controllers, ...(plan?.network.controllers ?? [])])];
  const services = (): Service[] => [...controllerServices(controllers()), ...ports.services()];
  const names = createNameKeeper({
    stored: readHint(at.names, parseAnswers, new Map()),
    services,
    lookup: (name, until) => ports.lookup(name, until),
    now: Date.now,
    onAnswers(answers, moved) {
      namesFile.set(() => formatAnswers(answers));
      if (moved) reconciler.wake("facts");
    },
  });
  const hostFacts = async (): Promise<HostFacts> => {
    const facts = await kernel.hostFacts();
    return { ...facts, protectedAddresses: withServices(facts.protectedAddresses, services(), names.answers) };
  };

  const reconciler = createReconciler({
    kernel: { observe: () => kernel.observe(), apply: (operations, until) => kernel.apply(operations, until), hostFacts },
    publicKey: keys.wgPublicKey,
    health: () => health.view(),
    dial: (current, links, observed) => peers.dial(current, links, observed),
    mtu: () => ({ pathMtu: pathMtu.narrow, ...(pathMtu.measuring === undefined ? {} : { measuring: pathMtu.measuring }) }),
    now: () => performance.now(),
    random: Math.random,
    stored: {
      links: readHint(at.links, parseLinks, new Map()),
      elections: readHint(at.choices, (value) => parseElections(value, performance.now(), wall), NO_ELECTIONS),
    },
    onPass,
    onDrift,
    log,
  });

  const pathMtu = createPathMtu({
    stored: readHint(at.mtu, parseNarrow, new Map()),
    full: () => (reconciler.last === undefined ? undefined : overlayMtu(reconciler.last.input)),
    probe: (address, bytes, until) => ports.pingUndivided(address, bytes, until),
    learned: async (endpoint) => (plan === undefined ? undefined : ports.learnedMtu(endpoint, marksOf(plan.network).bits(MARK_WIREGUARD))),
    settled: () => reconciler.now(),
    onChange() {
      mtuFile.set(() => formatNarrow(pathMtu.narrow));
      reconciler.wake("dial");
    },
    now: () => performance.now(),
    random: Math.random,
    log,
  });

  const peers = createPeerKeeper({
    kernel,
    file: at.endpoints,
    lastPass: () => reconciler.last,
    health: () => health.view(),
    also: (operations) => reconciler.also(operations),
    onDial: () => reconciler.wake("dial"),
    onDrift: () => reconciler.wake("drift"),
    onReach({ observed, fresh, lost, noPath }) {
      const handshakes = { peers: fresh.length + lost.length, fresh: fresh.length, ...(lost.length === 0 ? {} : { lost: lost.slice(0, 20) }) };
      reporter.set({ observed: Object.fromEntries(observed), handshakes });
      const { plan: at, links } = reconciler.last?.input ?? {};
      if (at !== undefined && links !== undefined) pathMtu.setTargets(mtuTargets(at, links, observed, fresh), new Set(at.peers.keys()));
      const silent = lost.filter((node) => !noPath.includes(node));
      condition("Starting", "Handshakes", starting.look(silent, performance.now()));
      const names = noPath.slice(0, 20).join(", ");
      condition(
        "NoPathTo",
        "BothBehindNat",
        noPath.length === 0 ? undefined : `no path to ${names}: both ends are behind NAT in different sites, and neither can be dialed`,
      );
    },
    log,
  });

  /** Someone changed nft rules (a firewall started, Docker): the host is looked at soon, not at the next regular time. */
  let nftChanged = new AbortController();
  const careLoop = async (): Promise<void> => {
    while (!signal.aborted) {
      await pause(CARE_MS, AbortSignal.any([signal, nftChanged.signal]));
      nftChanged = new AbortController();
      await pause(CARE_AFTER_MS, signal);
      if (signal.aborted || foreign) continue;
      await care.look();
    }
  };

  const ownAddresses = (): ReadonlySet<string> =>
    new Set([...(reconciler.last?.desired.state.addresses ?? [])].map((one) => one.split("/")[0] ?? ""));
  /** While this gateway is drained: whether clients still have flows here, so that a drain need not wait for its timeout. */
  const flowsLoop = async (): Promise<void> => {
    let quiet = 0;
    while (!signal.aborted) {
      await pause(FLOWS_MS, signal);
      const drained = plan?.self.drain !== undefined && isGateway({ plan }) ? plan : undefined;
      const marks = drained === undefined ? [] : clientMarks({ plan: drained, links: reconciler.last?.input.links ?? new Map() });
      const flows = drained === undefined ? undefined : await kernel.clientFlows(marks, ownAddresses());
      // A look that failed says nothing.
      if (drained === undefined || (flows ?? 0) > 0) quiet = 0;
      else if (flows === 0) quiet++;
      condition("NoFlows", "NoFlows", quiet < QUIET_LOOKS ? undefined : "no flow of a client goes through this node");
    }
  };

  // ── the controller ───────────────────────────────────────────────────────────────────────────────────────────────
  const credentials = (): { key: string; certificate: string; roots: string } => ({
    key: keys.tlsKey,
    certificate: readIfThere(at.certificate) ?? "",
    roots: readIfThere(at.roots) ?? "",
  });
  const trustedNow = (): number => Math.max(Date.now(), identity.lastNow);
  let contactError: IsthmusError | undefined;
  let leaving: (() => void) | undefined;

  const renewNow = async (): Promise<void> => {
    identity = await renew(at, identity, keys, credentials(), trustedNow(), signal);
    condition("CertificateExpired", "", undefined);
    log("certificate renewed");
  };
  const renewLoop = async (): Promise<void> => {
    while (!signal.aborted) {
      const { renewAt, expires } = certificateTimes(credentials().certificate);
      if (trustedNow() >= renewAt && !foreign) {
        await renewNow().catch((thrown: unknown) => {
          const error = asIsthmusError(thrown);
          if (trustedNow() >= expires)
            condition("CertificateExpired", error.code, `the certificate expired and cannot be renewed: ${error.message}. The data plane goes on.`);
          log(`renewing the certificate failed: ${error.message}`);
        });
      }
      await pause(trustedNow() >= renewAt ? 60_000 * (0.5 + Math.random()) : Math.min(HOUR_MS, Math.max(1_000, renewAt - trustedNow())), signal);
    }
  };

  const session = createSession(cache.state === "read" ? cache.holdings : NOTHING_HELD, {
    who: { node: identity.node, version: VERSION, bootId: bootId(), machineId: machine },
    controllers,
    credentials,
    now: trustedNow,
    hasAddress,
    renew: renewNow,
    onHoldings: (holdings) => takeHoldings(holdings, true),
    onConnected(address, now, remote) {
      if (remote !== undefined) names.contact(address, remote);
      contactError = undefined;
      log(`connected to controller ${address}`);
      condition(
        "ClockWrong",
        "ClockWrong",
        Math.abs(now - Date.now()) < 60_000
          ? undefined
          : `this node's clock is ${Math.round(Math.abs(now - Date.now()) / 1000)} s ${now > Date.now() ? "behind" : "ahead of"} the controller's`,
      );
      const lastNow = knownNow(identity.lastNow, now);
      if (lastNow !== identity.lastNow || foreign) {
        identity = { ...identity, lastNow, machineId: machine };
        try {
          writeIdentity(at, identity);
        } catch (thrown) {
          log(asIsthmusError(thrown).message);
        }
      }
      if (foreign) {
        foreign = false;
        condition("MachineChanged", "", undefined);
        log("the controller accepted this machine; starting");
        if (plan !== undefined) reconciler.setPlan(plan);
      }
      reporter.connected();
    },
    onDisconnected(error) {
      if (error.message !== contactError?.message) log(`${error.message}${error.remedy === undefined ? "" : ` (${error.remedy})`}`);
      contactError = error;
    },
    onRemoved() {
      log(`node ${identity.node} was removed from network ${identity.network}`);
      ended = "removed";
      leaving?.();
      stop.abort();
    },
    onAsk: answer,
    log,
  });

  async function answer(what: "explain" | "status" | "diff", body: unknown): Promise<unknown> {
    if (what === "status") return status();
    if (what === "diff") return { changes: diffProposal(body as ProposedChange, session.holdings, reconciler.last) };
    return explainNow(typeof body === "object" && body !== null && "destination" in body ? String(body.destination) : "");
  }

  const explainNow = (destination: string): Promise<Explanation> =>
    explainDestination(destination, reconciler.last, health.view(), { routeGet: (one) => ports.routeGet(one), wall });

  function status(): AgentStatus {
    const last = reconciler.last;
    const { connected } = session;
    const now = Date.now();
    const part =
      last === undefined
        ? { site: plan?.self.site, overlay: [], peers: [], links: [], paths: [] }
        : dataPlaneStatus(
            last.input.plan,
            last.input.links,
            last.elections,
            health.view(),
            peers.wireguard,
            peers.reach(last.input.plan, last.input.links),
            now,
            wall,
          );
    return {
      node: identity.node,
      network: identity.network,
      version: VERSION,
      started,
      controller: {
        connected: connected !== undefined,
        ...(connected === undefined ? {} : { address: connected.address, since: connected.since }),
        ...(contactError === undefined ? {} : { error: contactError.message }),
        ...(contactError?.remedy === undefined ? {} : { remedy: contactError.remedy }),
        known: identity.controllers,
      },
      position: session.holdings.seen,
      applied,
      wireguard: last?.input.host.wireguard,
      results: last === undefined ? {} : resultsOf(last, wall),
      conditions: [...conditions.values()],
      drift: { count: reconciler.drift.count, ...(reconciler.drift.at === undefined ? {} : { at: wall(reconciler.drift.at) }) },
      lastPass: last === undefined ? undefined : { operations: last.operations, failures: last.failures.length, tookMs: last.tookMs },
      certificate: certificateTimes(credentials().certificate),
      events: reporter.events,
      ...part,
    };
  }

  /** Observes and applies now: what there was to do, and what the kernel refused. Nothing to do means that it is as planned. */
  async function reconcileNow(): Promise<{ ok: boolean; operations: number; failures: number }> {
    await reconciler.now();
    const { operations = 0, failures = [] } = reconciler.last ?? {};
    return { ok: failures.length === 0, operations, failures: failures.length };
  }

  /** Asks the controller to remove this node, and resolves when it has. A connection that is silent is made anew. */
  async function leave(): Promise<unknown> {
    const removed = new Promise<boolean>((done) => {
      leaving = () => done(true);
    });
    const deadline = performance.now() + LEAVE_MS;
    while (performance.now() < deadline) {
      // Before the controller's hello a message is not heard.
      const sent = session.connected !== undefined && session.send({ t: "leave" });
      const gone = await Promise.race([removed, pause(sent ? LEAVE_ANSWER_MS : 100, signal).then(() => false)]);
      if (gone) return { node: identity.node, network: identity.network, left: true };
      if (sent) session.reconnect();
    }
    throw new IsthmusError("Unreachable", "no controller took the farewell; this node is still a member", {
      remedy: "try again when a controller is reachable, or run `isthmus cleanup` here and `isthmus delete node` elsewhere",
    });
  }

  // ── start ────────────────────────────────────────────────────────────────────────────────────────────────────────
  await serveSocket(at.socket, { status, explain: explainNow, leave, reconcile: reconcileNow }, signal);
  if (cache.state === "damaged") {
    const message = `the plan on disk is damaged (${cache.why}); it was set aside as ${cache.aside}`;
    log(message);
    reporter.event({ type: "Warning", reason: "CacheDamaged", message, about: "node" });
    condition("CacheDamaged", "CacheDamaged", message);
  }
  if (foreign) {
    log("this machine is not the one that joined; nothing starts before the controller agrees");
    condition(
      "MachineChanged",
      "MachineChanged",
      "keys and plan were made on another machine: nothing starts before a controller agrees. If this is a copy, run `isthmus cleanup` and join under another name",
    );
  }
  condition("Starting", "NoPlan", NO_PLAN_YET);
  if (cache.state === "read") takeHoldings(cache.holdings, false);
  const onKernel = (what: string): void => {
    reconciler.wake("kernel");
    if (what === "nft") nftChanged.abort();
  };
  kernel.watch(onKernel, signal);
  const work = [
    session.run(signal),
    reconciler.run(signal),
    peers.run(signal),
    pathMtu.run(signal),
    names.run(signal),
    careLoop(),
    flowsLoop(),
    renewLoop(),
  ];
  await Promise.all(work);
  for (const file of [planFile, linksFile, choicesFile, namesFile, mtuFile]) file.flush();
  health.close();
  // A leave that is being answered ends with the process; give its last bytes a moment on the way out.
  rmSync(at.socket, { force: true });
  return ended;
}
