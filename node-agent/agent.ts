/**
 * The running agent: wires session, cache, probes, reconciler and reports together. What decides is elsewhere and pure;
 * here is only who tells whom.
 */
import { rmSync } from "node:fs";
import { release } from "node:os";
import { parsePlan } from "../mesh/compile/parse-plan.ts";
import { asIsthmusError, IsthmusError } from "../mesh/errors.ts";
import { desiredKernel } from "../mesh/kernel/desired.ts";
import { describeOperation, diffKernel } from "../mesh/kernel/diff.ts";
import { isGateway } from "../mesh/kernel/wireguard.ts";
import { linkInterface } from "../mesh/kernel/layout.ts";
import type { Operation } from "../mesh/kernel/operations.ts";
import type { Change, Explanation } from "../mesh/model/answers.ts";
import type { Plan } from "../mesh/model/plan.ts";
import { IpAddress, type NodeName } from "../mesh/model/scalars.ts";
import type { Position } from "../mesh/model/wire.ts";
import { type Family } from "../mesh/net/ip.ts";
import { pause } from "./backoff.ts";
import { type CacheRead, readCache, writeCache } from "./cache.ts";
import type { Kernel } from "./drivers/index.ts";
import { NO_ELECTIONS, parseElections, formatElections } from "./elections.ts";
import { createDialer, type WgStatus } from "./endpoints.ts";
import { explain } from "./explain.ts";
import { type Places, readHint, readIfThere, writeAtomic } from "./files.ts";
import { createHealthMonitor, silentLinks } from "./health.ts";
import { type Holdings, NOTHING_HELD, proposed, type ProposedChange, viewData } from "./holdings.ts";
import { certificateTimes, type Identity, writeIdentity } from "./identity.ts";
import { renew } from "./join.ts";
import { loadOrMakeKeys } from "./keys.ts";
import { formatLinks, gatewaysInUse, type Links, numberLinks, parseLinks } from "./links.ts";
import { bootId, machineId } from "./machine-id.ts";
import { interfaceAddresses, ownCandidates, underlayFamilies } from "./own-endpoints.ts";
import { monotonic } from "./probe/clock.ts";
import { spawnLines } from "./probe/ping.ts";
import { createReconciler, type Pass } from "./reconcile.ts";
import { createReporter } from "./report.ts";
import { failuresById, moveEvents, resultsOf } from "./results.ts";
import { createSession } from "./session.ts";
import { serveSocket } from "./socket.ts";
import { type AgentStatus, dataPlaneStatus, type NodeCondition } from "./status.ts";
import { VERSION } from "./version.ts";

const CACHE_AFTER_MS = 100;
const TICK_MS = 5_000;
/** While a peer has no handshake, its state is looked at this often. */
const BUSY_TICK_MS = 1_000;
/** A silent link is given a new session, at most this often. */
const RESET_MS = 5_000;
const SILENT_MS = 3_000;
const BLOCKERS_MS = 30_000;
const HOUR_MS = 3_600_000;
const LEAVE_MS = 8_000;
const LEAVE_ANSWER_MS = 2_000;

export interface AgentPorts {
  readonly at: Places;
  readonly identity: Identity;
  readonly kernel: Kernel;
  /** `ip route get`, for explain. */
  routeGet(destination: string): Promise<{ ok: boolean; text: string }>;
  log(line: string): void;
}

/** Why the agent ended. */
export type Ended = "stopped" | "removed";

/** Runs until the signal aborts, or until the node is removed from its network. */
export async function runNode(ports: AgentPorts, outer: AbortSignal): Promise<Ended> {
  const { at, kernel, log } = ports;
  let identity = ports.identity;
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  const started = Date.now();
  const wall = (monotonicMs: number): number => Date.now() - performance.now() + monotonicMs;
  const keys = loadOrMakeKeys(at);
  const machine = machineId();
  /** Keys and cache came from another machine: nothing starts before the controller agrees. */
  let foreign = identity.machineId !== machine;
  let ended: Ended = "stopped";

  const conditions = new Map<string, NodeCondition>();
  const condition = (type: string, reason: string, message: string | undefined): void => {
    if (message === undefined) conditions.delete(type);
    else conditions.set(type, { type, status: "True", reason, message: message.slice(0, 1024) });
    reporter.set({ conditions: [...conditions.values()].toSorted((a, b) => (a.type < b.type ? -1 : 1)) });
  };
  const reporter = createReporter((message) => session.send(message), Date.now);

  // ── the plan ─────────────────────────────────────────────────────────────────────────────────────────────────────
  const cache: CacheRead = readCache(at.plan, Date.now());
  let plan: Plan | undefined;
  let planAt: Position | undefined;
  let applied: Position | undefined;
  let cacheTimer: NodeJS.Timeout | undefined;
  let unwritten: Holdings | undefined;

  const flushCache = (): void => {
    clearTimeout(cacheTimer);
    cacheTimer = undefined;
    if (unwritten === undefined) return;
    try {
      writeCache(at.plan, unwritten);
      unwritten = undefined;
      condition("CacheNotWritten", "", undefined);
    } catch (thrown) {
      const error = asIsthmusError(thrown);
      condition("CacheNotWritten", error.code, error.message);
      log(error.message);
    }
  };

  const takeHoldings = (holdings: Holdings, fromController: boolean): void => {
    const { plan: next, faults } = parsePlan(viewData(holdings));
    // An empty or half plan is no plan (I1): without network, self and our own peer entry nothing is decided.
    if (next === undefined || !next.peers.has(next.self.name)) {
      if (fromController) {
        condition("PlanRejected", "Incomplete", "the controller's plan lacks the network, this node or its peers; the last good plan stays");
        log("the controller's plan is incomplete; the last good plan stays");
      }
      return;
    }
    condition("PlanRejected", "Unsupported", faults.length === 0 ? undefined : `${faults.length} entries are not understood and stay as they were: ${faults.slice(0, 3).map((fault) => `${fault.view} ${fault.key}: ${fault.message}`).join("; ")}`);
    plan = next;
    planAt = holdings.seen;
    if (fromController) {
      unwritten = holdings;
      cacheTimer ??= setTimeout(flushCache, CACHE_AFTER_MS);
    }
    if (foreign) return;
    reconciler.setPlan(next);
    wakeTick();
  };

  // ── probing and reconciling ──────────────────────────────────────────────────────────────────────────────────────
  const health = createHealthMonitor({ clock: monotonic, spawn: spawnLines, onChange: () => reconciler.wake("health") });
  const dialer = createDialer(at.endpoints, log);
  let wg: WgStatus = new Map();
  let families: ReadonlySet<Family> = underlayFamilies(interfaceAddresses());
  let linksText = "";
  let choicesText = "";
  let watched: { plan: Plan | undefined; links: Links | undefined } = { plan: undefined, links: undefined };

  const onPass = (pass: Pass): void => {
    const { links } = pass.input;
    if (watched.plan !== pass.input.plan || watched.links === undefined || formatLinks(watched.links) !== formatLinks(links)) {
      watched = { plan: pass.input.plan, links };
      health.setPlan(pass.input.plan, links);
      openPorts(pass.input.plan, links);
      wakeTick();
    }
    linksText = store(at.links, formatLinks(links), linksText, log);
    choicesText = store(at.choices, formatElections(pass.elections, wall), choicesText, log);
    for (const event of moveEvents(pass)) reporter.event(event);
    const failed = failuresById(pass);
    const nodeFailure = failed.get("node");
    condition("KernelRefused", "KernelRefused", nodeFailure);
    condition("TooManyGateways", "LinksExhausted", pass.withoutLink.length === 0 ? undefined : `63 links are in use; none for ${pass.withoutLink.join(", ")}`);
    if (pass.failures.length === 0 && plan === pass.input.plan) applied = planAt;
    else for (const { op, error } of pass.failures.slice(0, 3)) log(`the kernel refused ${op.op}: ${error ?? ""}`);
    const { network } = pass.input.plan;
    families = underlayFamilies(interfaceAddresses());
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

  let opened = "";
  /** Tells the host's own firewall and network managers about us (DATAPLANE §6); recorded for cleanup. */
  const openPorts = (current: Plan, links: Links): void => {
    const { mesh, gateway, links: first } = current.network.ports;
    const udp = [mesh, gateway, ...[...links.values()].map((k) => first + k)].toSorted((a, b) => a - b);
    if (udp.join() === opened) return;
    opened = udp.join();
    kernel.configureHost(udp).then(
      (done) => {
        condition("HostNotConfigured", "", undefined);
        for (const line of done) log(line);
      },
      (thrown: unknown) => condition("HostNotConfigured", "Failed", `this host's network managers could not be told about us: ${asIsthmusError(thrown).message}`),
    );
  };

  const onDrift = (operations: readonly Operation[]): void => {
    const rows = operations.slice(0, 3).flatMap((one) => describeOperation(one).map((row) => `${row.action} ${row.what}`));
    const message = `put back what someone else changed: ${rows.join("; ")}${operations.length > 3 ? `; ${operations.length - 3} more` : ""}`;
    reporter.event({ type: "Warning", reason: "Drift", message, about: "node" });
    log(message);
  };

  const reconciler = createReconciler({
    kernel,
    publicKey: keys.wgPublicKey,
    health: () => health.view(),
    dial: (current, links, observed) => {
      dialer.ensure(current, links, families, wg, Date.now());
      return dialer.dialFor(observed);
    },
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

  // ── peers: endpoints, handshakes, stale sessions ─────────────────────────────────────────────────────────────────
  let tickNow: (() => void) | undefined;
  const wakeTick = (): void => tickNow?.();
  const resetAt = new Map<NodeName, number>();

  const tick = async (): Promise<boolean> => {
    const input = reconciler.last?.input;
    if (input === undefined) return true;
    wg = await kernel.wireguardStatus();
    const now = Date.now();
    const round = dialer.round(input.plan, input.links, families, wg, now);
    const resets: Operation[] = round.resets.flatMap(({ ifname, publicKey }) => resetOf(ifname, publicKey));
    for (const [node, since] of silentLinks(health.view().links)) {
      const ifname = linkInterface(input.links.get(node) ?? 0);
      const publicKey = input.plan.peers.get(node)?.k;
      const handshake = publicKey === undefined ? undefined : wg.get(ifname)?.get(publicKey);
      const stale = handshake === undefined || handshake.latestHandshake * 1_000 < wall(since);
      if (publicKey === undefined || !stale || performance.now() - since < SILENT_MS || now - (resetAt.get(node) ?? 0) < RESET_MS) continue;
      resetAt.set(node, now);
      resets.push(...resetOf(ifname, publicKey));
    }
    if (resets.length > 0) reconciler.also(resets);
    else if (round.changed) reconciler.wake("dial");
    const reach = dialer.reach(input.plan, wg, now);
    reporter.set({
      observed: Object.fromEntries(reach.observed),
      handshakes: { peers: reach.fresh.length + reach.lost.length, fresh: reach.fresh.length, ...(reach.lost.length === 0 ? {} : { lost: reach.lost.slice(0, 20) }) },
    });
    condition("NoPathTo", "BothBehindNat", reach.noPath.length === 0 ? undefined : `no path to ${reach.noPath.slice(0, 20).join(", ")}: both ends are behind NAT in different sites, and neither can be dialed`);
    return round.unproven;
  };

  /** The peer as it is wanted, so that its session starts anew at the endpoint of its turn. */
  const resetOf = (link: string, publicKey: string): Operation[] => {
    const peer = [...(reconciler.last?.desired.state.wireguard.get(link)?.peers.values() ?? [])].find((one) => one.publicKey === publicKey);
    const endpoint = peer === undefined ? undefined : (dialer.endpointOf(link, peer.publicKey) ?? peer.endpoint);
    return peer === undefined ? [] : [{ op: "peer.reset", link, peer: endpoint === undefined ? peer : { ...peer, endpoint } }];
  };

  const tickLoop = async (): Promise<void> => {
    while (!signal.aborted) {
      const busy = await tick().catch((thrown: unknown) => {
        if (!signal.aborted) log(`reading WireGuard's state failed: ${asIsthmusError(thrown).message}`);
        return false;
      });
      const woken = new AbortController();
      tickNow = () => woken.abort();
      await pause(busy ? BUSY_TICK_MS : TICK_MS, AbortSignal.any([signal, woken.signal]));
    }
  };

  const blockersLoop = async (): Promise<void> => {
    while (!signal.aborted) {
      await pause(BLOCKERS_MS, signal);
      if (signal.aborted || plan === undefined || foreign) continue;
      const blockers = isGateway({ plan }) ? await kernel.forwardingBlockers().catch(() => []) : [];
      condition("ForwardingBlocked", "ForeignRule", blockers.length === 0 ? undefined : `forwarded packets are dropped by ${blockers.join(", ")}`);
    }
  };

  // ── the controller ───────────────────────────────────────────────────────────────────────────────────────────────
  const credentials = (): { key: string; certificate: string; roots: string } => ({ key: keys.tlsKey, certificate: readIfThere(at.certificate) ?? "", roots: readIfThere(at.roots) ?? "" });
  const trustedNow = (): number => Math.max(Date.now(), identity.lastNow);
  let contactError: string | undefined;
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
          if (trustedNow() >= expires) condition("CertificateExpired", error.code, `the certificate expired and cannot be renewed: ${error.message}. The data plane goes on.`);
          log(`renewing the certificate failed: ${error.message}`);
        });
      }
      await pause(trustedNow() >= renewAt ? 60_000 * (0.5 + Math.random()) : Math.min(HOUR_MS, Math.max(1_000, renewAt - trustedNow())), signal);
    }
  };

  const session = createSession(cache.state === "read" ? cache.holdings : NOTHING_HELD, {
    who: { node: identity.node, version: VERSION, bootId: bootId(), machineId: machine },
    controllers: () => [...new Set([...identity.controllers, ...(plan?.network.controllers ?? [])])],
    credentials,
    now: trustedNow,
    renew: renewNow,
    onHoldings: (holdings) => takeHoldings(holdings, true),
    onConnected(address, now) {
      contactError = undefined;
      log(`connected to controller ${address}`);
      condition("ClockWrong", "ClockWrong", Math.abs(now - Date.now()) < 60_000 ? undefined : `this node's clock is ${Math.round(Math.abs(now - Date.now()) / 1000)} s ${now > Date.now() ? "behind" : "ahead of"} the controller's`);
      if (now > identity.lastNow + HOUR_MS || foreign) {
        identity = { ...identity, lastNow: Math.max(now, identity.lastNow), machineId: machine };
        try {
          writeIdentity(at, identity);
        } catch (thrown) {
          log(asIsthmusError(thrown).message);
        }
      }
      if (foreign) {
        foreign = false;
        log("the controller accepted this machine; starting");
        if (plan !== undefined) reconciler.setPlan(plan);
      }
      reporter.connected();
    },
    onDisconnected(error) {
      if (error.message !== contactError) log(`${error.message}${error.remedy === undefined ? "" : ` (${error.remedy})`}`);
      contactError = error.message;
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
    switch (what) {
      case "status":
        return status();
      case "explain":
        return explainNow(typeof body === "object" && body !== null && "destination" in body ? String(body.destination) : "");
      case "diff":
        return { changes: diffOf(body as ProposedChange) };
    }
  }

  /** What a proposed change of the plan would change in this node's kernel. */
  function diffOf(change: ProposedChange): Change[] {
    const last = reconciler.last;
    const next = parsePlan(proposed(session.holdings, change)).plan;
    if (last === undefined || next === undefined) throw new IsthmusError("Invalid", "this node has no plan to compare with yet");
    const numbered = numberLinks(gatewaysInUse(next), last.input.links, new Map());
    const choices = new Map(last.input.choices);
    for (const [id, path] of next.paths) {
      const known = choices.get(id)?.active.some((node) => path.gateways.some((gateway) => gateway.node === node));
      const first = path.gateways[0]?.node;
      // A path that carries nothing yet would be carried by its first gateway.
      if (known !== true && first !== undefined) choices.set(id, { active: first === next.self.name ? [] : [first], reason: "Preferred", since: 0, rejected: [], draining: [], wakeAt: undefined });
    }
    const after = desiredKernel({ ...last.input, plan: next, links: numbered.links, choices });
    return diffKernel(after.state, last.desired.state).flatMap(describeOperation);
  }

  async function explainNow(text: string): Promise<Explanation> {
    const destination = IpAddress.safeParse(text);
    if (!destination.success) throw new IsthmusError("Invalid", `${JSON.stringify(text)} is not an address`, { remedy: "give an IPv4 or IPv6 address" });
    const last = reconciler.last;
    if (last === undefined) throw new IsthmusError("NotFound", "this node has no plan yet", { remedy: "wait until it has reached its controller once" });
    const kernelSays = await ports.routeGet(destination.data);
    return explain({ input: last.input, refusals: last.desired.refusals, linkViews: health.view().links, destination: destination.data, kernel: kernelSays, wall });
  }

  function status(): AgentStatus {
    const last = reconciler.last;
    const { connected } = session;
    const now = Date.now();
    const part =
      last === undefined
        ? { site: plan?.self.site, overlay: [], peers: [], links: [], paths: [] }
        : dataPlaneStatus(last.input.plan, last.input.links, last.elections, health.view(), wg, dialer.reach(last.input.plan, wg, now), now, wall);
    return {
      node: identity.node,
      network: identity.network,
      version: VERSION,
      started,
      controller: {
        connected: connected !== undefined,
        ...(connected === undefined ? {} : { address: connected.address, since: connected.since }),
        ...(contactError === undefined ? {} : { error: contactError }),
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
  await serveSocket(at.socket, { status, explain: explainNow, leave, reconcile: async () => (await reconciler.now(), { ok: true }) }, signal);
  if (cache.state === "damaged") {
    const message = `the plan on disk is damaged (${cache.why}); it was set aside as ${cache.aside}`;
    log(message);
    reporter.event({ type: "Warning", reason: "CacheDamaged", message, about: "node" });
    condition("CacheDamaged", "CacheDamaged", message);
  }
  if (foreign) {
    log("this machine is not the one that joined; nothing starts before the controller agrees");
    condition("MachineChanged", "MachineChanged", "keys and plan were made on other hardware");
  }
  if (cache.state === "read") takeHoldings(cache.holdings, false);
  kernel.watch(() => reconciler.wake("kernel"), signal);
  const work = [session.run(signal), reconciler.run(signal), tickLoop(), blockersLoop(), renewLoop()];
  await Promise.all(work);
  flushCache();
  dialer.flush();
  health.close();
  // A leave that is being answered ends with the process; give its last bytes a moment on the way out.
  rmSync(at.socket, { force: true });
  return ended;
}

/** Writes a small state file when its text changed; what fails now is tried with the next change. */
function store(path: string, text: string, before: string, log: (line: string) => void): string {
  if (text === before) return before;
  try {
    writeAtomic(path, text);
    return text;
  } catch (thrown) {
    log(asIsthmusError(thrown).message);
    return before;
  }
}
