/** Probing and reconciling: what decides and what touches the kernel, and who of them wakes whom. */
import { uptime } from "node:os";
import { MARK_WIREGUARD, marksOf } from "../mesh/kernel/layout.ts";
import { overlayMtu } from "../mesh/kernel/wireguard.ts";
import type { KernelState } from "../mesh/kernel/types.ts";
import type { Plan } from "../mesh/model/plan.ts";
import type { Endpoint, IpAddress } from "../mesh/model/scalars.ts";
import type { SetCondition } from "./conditions.ts";
import { watchDrainedFlows } from "./drained-flows.ts";
import { spawnLines } from "./drivers/exec.ts";
import type { Kernel } from "./drivers/index.ts";
import { NO_ELECTIONS, parseElections } from "./elections.ts";
import { type Places, readHint } from "./files.ts";
import { createHandshakeTimes } from "./handshake-times.ts";
import { createHealthMonitor, type HealthMonitor, silentLinks } from "./health.ts";
import { createHostCare } from "./host-care.ts";
import { createHostNeeds } from "./host-needs.ts";
import type { KeptFiles } from "./kept-files.ts";
import { formatLinks, type Links, parseLinks } from "./links.ts";
import type { Membership } from "./membership.ts";
import { createPathMtu, formatNarrow, mtuTargets, parseNarrow } from "./path-mtu.ts";
import { createPeerKeeper, type PeerKeeper } from "./peers.ts";
import type { PlanIntake } from "./plan-intake.ts";
import { monotonic } from "./probe/clock.ts";
import type { Service } from "./protected-names.ts";
import { createReconciler, type Pass, type Reconciler } from "./reconcile.ts";
import type { Telling } from "./telling.ts";
import { unusableText } from "./unusable.ts";

/** What the data plane needs of this host. */
export interface HostPorts {
  readonly at: Places;
  readonly kernel: Kernel;
  /** Probes of a path's MTU. */
  pingUndivided(address: IpAddress, bytes: number, tries: number, until: AbortSignal): Promise<boolean>;
  learnedMtu(endpoint: Endpoint, mark: number): Promise<number | undefined>;
  /** What this host depends on, besides the controllers. */
  services(): readonly Service[];
  /** All addresses of a name. */
  lookup(name: string, until: AbortSignal): Promise<readonly string[]>;
}

export interface DataPlaneParts {
  readonly membership: Membership;
  readonly files: KeptFiles;
  readonly intake: Pick<PlanIntake, "plan">;
  readonly telling: Telling;
  readonly condition: SetCondition;
  controllers(): string[];
  /** From the monotonic clock to ms since 1970. */
  readonly wall: (monotonic: number) => number;
  readonly log: (line: string) => void;
}

export interface DataPlane {
  readonly reconciler: Reconciler;
  readonly peers: PeerKeeper;
  readonly health: HealthMonitor;
  /** @param renamed whether the controllers have other addresses now */
  setPlan(plan: Plan, renamed: boolean): void;
  /** A verified controller was reached there. */
  controllerIsAt(controller: string, address: string): void;
  run(signal: AbortSignal): Promise<void>;
}

export function createDataPlane(ports: HostPorts, parts: DataPlaneParts): DataPlane {
  const { kernel } = ports;
  const { membership, files, intake, telling, condition, controllers, wall, log } = parts;

  const health = createHealthMonitor({
    clock: monotonic,
    spawn: spawnLines,
    onChange() {
      reconciler.wake("health");
      // A link that fell silent may have lost its peer.
      if (silentLinks(health.view().links).size > 0) peers.wake();
    },
  });
  const care = createHostCare({ kernel, condition, log, now: () => performance.now() });
  let watched: { plan: Plan | undefined; links: Links | undefined } = { plan: undefined, links: undefined };
  const onPass = (pass: Pass): void => {
    const { plan, links } = pass.input;
    if (watched.plan !== plan || watched.links === undefined || formatLinks(watched.links) !== formatLinks(links)) {
      watched = { plan, links };
      health.setPlan(plan, links);
      care.setPlan(plan, links);
      peers.wake();
    }
    telling.pass(pass);
    condition("GatewayUnusable", "GatewayUnusable", unusableText(pass.elections.paths, health.view().links));
  };

  const needs = createHostNeeds({
    kernel,
    path: ports.at.names,
    file: files.names,
    controllers,
    services: () => ports.services(),
    lookup: (name, until) => ports.lookup(name, until),
    onMoved: () => reconciler.wake("facts"),
  });

  const handshakes = createHandshakeTimes(() => ({ wall: Date.now(), boot: uptime() * 1_000 }));
  const observe = async (): Promise<KernelState> => {
    const state = await kernel.observe();
    return { ...state, wireguard: handshakes.seen(state.wireguard) };
  };
  const reconciler = createReconciler({
    kernel: { observe, apply: (operations, until) => kernel.apply(operations, until), hostFacts: needs.facts },
    publicKey: membership.keys.wgPublicKey,
    health: () => health.view(),
    dial: (current, links, observed) => peers.dial(current, links, observed),
    mtu: () => ({ pathMtu: pathMtu.narrow, ...(pathMtu.measuring === undefined ? {} : { measuring: pathMtu.measuring }) }),
    now: () => performance.now(),
    random: Math.random,
    stored: {
      links: readHint(ports.at.links, parseLinks, new Map()),
      elections: readHint(ports.at.choices, (value) => parseElections(value, performance.now(), wall), NO_ELECTIONS),
    },
    onPass,
    onDrift: telling.drift,
    log,
  });

  const pathMtu = createPathMtu({
    stored: readHint(ports.at.mtu, parseNarrow, new Map()),
    full: () => (reconciler.last === undefined ? undefined : overlayMtu(reconciler.last.input)),
    probe: (address, bytes, tries, until) => ports.pingUndivided(address, bytes, tries, until),
    learned: async (endpoint) =>
      intake.plan === undefined ? undefined : ports.learnedMtu(endpoint, marksOf(intake.plan.network).bits(MARK_WIREGUARD)),
    settled: () => reconciler.now(),
    onChange() {
      files.mtu.set(() => formatNarrow(pathMtu.narrow));
      reconciler.wake("dial");
    },
    now: () => performance.now(),
    random: Math.random,
    log,
  });

  const peers = createPeerKeeper({
    kernel: {
      async observeSilent() {
        const state = await kernel.observeSilent();
        return { ...state, wireguard: handshakes.seen(state.wireguard) };
      },
    },
    now: handshakes.now,
    file: ports.at.endpoints,
    lastPass: () => reconciler.last,
    health: () => health.view(),
    also: (operations) => reconciler.also(operations),
    onDial: () => reconciler.wake("dial"),
    onDrift: () => reconciler.wake("drift"),
    onReach(reach) {
      telling.reach(reach);
      const { plan, links } = reconciler.last?.input ?? {};
      if (plan !== undefined && links !== undefined)
        pathMtu.setTargets(mtuTargets(plan, links, reach.observed, reach.fresh), new Set(plan.peers.keys()));
    },
    log,
  });

  return {
    reconciler,
    peers,
    health,
    setPlan(plan, renamed) {
      reconciler.setPlan(plan);
      peers.wake();
      if (renamed) needs.names.wake();
    },
    controllerIsAt: (controller, address) => needs.names.contact(controller, address),
    async run(signal) {
      const onKernel = (what: string): void => {
        reconciler.wake("kernel");
        if (what === "nft") care.nftChanged();
      };
      kernel.watch(onKernel, signal);
      await Promise.all([
        reconciler.run(signal),
        peers.run(signal),
        pathMtu.run(signal),
        needs.names.run(signal),
        care.run(() => !membership.foreign, signal),
        watchDrainedFlows({ kernel, condition, plan: () => intake.plan, lastPass: () => reconciler.last }, signal),
      ]);
      health.close();
    },
  };
}
