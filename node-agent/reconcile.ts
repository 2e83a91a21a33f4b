/**
 * The loop that makes the kernel what the plan says: wake-ups only say that something may have changed; each pass looks at
 * the whole state and applies the difference. Passes never overlap.
 *
 * A verdict of the probes takes the short way: elect, difference to the last known kernel state, apply. It is observed
 * afterwards, because the netlink monitor reports our own changes too.
 */
import type { ApplyResult, Kernel } from "./drivers/index.ts";
import { desiredKernel } from "../mesh/kernel/desired.ts";
import { applyOperations, diffKernel } from "../mesh/kernel/diff.ts";
import type { Operation } from "../mesh/kernel/operations.ts";
import type { Desired, DesiredInput, HostFacts, KernelState, PeerDial, WgInterface } from "../mesh/kernel/types.ts";
import type { Plan } from "../mesh/model/plan.ts";
import type { NodeName, WgPublicKey } from "../mesh/model/scalars.ts";
import { asIsthmusError, IsthmusError } from "../mesh/errors.ts";
import { backoffMs } from "./backoff.ts";
import { adoptElections, deadLinks, electAll, type Elections, type Health, nextWake } from "./elections.ts";
import { adoptLinks, gatewaysInUse, type Links, numberLinks } from "./links.ts";
import { createWakes } from "./wakes.ts";

/** Observe at least this often, whatever the monitor says (I10). */
const OBSERVE_MS = 30_000;
/** Wake-ups of the monitor come in bursts. */
const DEBOUNCE_MS = 100;
/** On a host whose kernel changes all the time, observing takes at most a tenth of a core, and drift still heals within a second. */
const OBSERVE_SHARE = 10;
const MOST_DEBOUNCE_MS = 700;
/** While operations fail, our own attempts wake us too. */
const FAILING_OBSERVE_MS = 1_000;
const RETRY = { firstMs: 250, mostMs: 15_000 };

export interface ReconcilePorts {
  readonly kernel: Pick<Kernel, "observe" | "apply" | "hostFacts">;
  readonly publicKey: WgPublicKey;
  health(): Health;
  dial(plan: Plan, links: Links, observed: KernelState): ReadonlyMap<NodeName, PeerDial>;
  /** What gets through to whom, where it is less than expected; absent where nobody measures. */
  mtu?(): Pick<DesiredInput, "pathMtu" | "measuring">;
  /** Monotonic milliseconds. */
  now(): number;
  random(): number;
  /** Link numbers and choices of an earlier run. */
  readonly stored: { readonly links: Links; readonly elections: Elections };
  onPass(pass: Pass): void;
  onDrift(operations: readonly Operation[]): void;
  log(line: string): void;
}

/** What one pass decided and did. */
export interface Pass {
  readonly input: DesiredInput;
  readonly desired: Desired;
  readonly elections: Elections;
  readonly before: Elections;
  /** Gateways that got no link because there are more than 63. */
  readonly withoutLink: readonly NodeName[];
  /** Interfaces that WireGuard does not answer for, by name. */
  readonly mute: readonly string[];
  readonly failures: readonly ApplyResult[];
  readonly operations: number;
  /** From the start of the pass to its last operation; what a wake-up waited for the pass before is not in it. */
  readonly tookMs: number;
}

export interface Reconciler {
  setPlan(plan: Plan): void;
  /**
   * Something may have changed: `health` and `dial` take the short way, `kernel` and `facts` observe first, when a burst is over.
   * `drift` is no burst: somebody looked and found it.
   */
  wake(what: "health" | "dial" | "kernel" | "facts" | "drift"): void;
  /** Observes and applies now; resolves when done. */
  now(): Promise<void>;
  /** Puts operations between two passes; the kernel is observed after. */
  also(operations: readonly Operation[]): void;
  run(signal: AbortSignal): Promise<void>;
  readonly last: Pass | undefined;
  readonly drift: { readonly count: number; readonly at: number | undefined };
}

export function createReconciler(ports: ReconcilePorts): Reconciler {
  let plan: Plan | undefined;
  let observed: KernelState | undefined;
  let host: HostFacts | undefined;
  let links = ports.stored.links;
  let elections = ports.stored.elections;
  let adopted = false;
  let last: Pass | undefined;
  let lastState: KernelState | undefined;
  let drift = { count: 0, at: undefined as number | undefined };
  let failures = 0;
  let observeCost = 0;
  let observedAt = -Infinity;
  /** The last look that was begun, also when it failed. */
  let lookedAt = -Infinity;

  const wakes = createWakes(() => ports.now());
  let over = false;
  let extra: Operation[] = [];
  let waiting: { done: () => void; failed: (error: unknown) => void }[] = [];

  const debounceMs = (): number => {
    const usual = Math.min(MOST_DEBOUNCE_MS, Math.max(DEBOUNCE_MS, observeCost * OBSERVE_SHARE));
    return failures === 0 ? usual : Math.max(usual, lookedAt + FAILING_OBSERVE_MS - ports.now());
  };

  const observe = async (): Promise<{ state: KernelState; facts: HostFacts }> => {
    const started = performance.now();
    lookedAt = ports.now();
    const [state, facts] = await Promise.all([ports.kernel.observe(), ports.kernel.hostFacts()]);
    observeCost = performance.now() - started;
    observedAt = ports.now();
    // The same facts stay the same object: what is derived from them is kept.
    host = host !== undefined && JSON.stringify(host) === JSON.stringify(facts) ? host : facts;
    return { state, facts: host };
  };

  const pass = async (signal: AbortSignal): Promise<void> => {
    const started = performance.now();
    const current = plan;
    if (current === undefined) return;
    const looked = wakes.takeLook() || observed === undefined || host === undefined;
    if (looked) observed = (await observe()).state;
    const state = observed;
    const facts = host;
    if (state === undefined || facts === undefined) return;
    const now = ports.now();

    const needed = gatewaysInUse(current, elections.paths);
    // What stands in the kernel comes before what was stored: interfaces hang on these numbers.
    const numbered = adopted ? numberLinks(needed, links, new Map()) : numberLinks(needed, adoptLinks(current, state), links);
    links = numbered.links;
    if (!adopted) elections = adoptElections(current, state, links, elections, now);
    adopted = true;
    const before = elections;
    const health = ports.health();
    elections = electAll(current, health, before, now);
    const input: DesiredInput = {
      plan: current,
      host: facts,
      publicKey: ports.publicKey,
      links,
      choices: elections.paths,
      deadLinks: deadLinks(links, health),
      dial: ports.dial(current, links, state),
      lanChoices: new Map([...elections.lans].map(([id, { gateways }]) => [id, gateways])),
      ...ports.mtu?.(),
    };
    // A link that this election let go is given up in a pass of its own, after the new way stands.
    if (elections !== before && gatewaysInUse(current, elections.paths).length < needed.length) wakes.rouse();
    const desired = desiredKernel(input);
    const mute = muteOf(state.wireguard);
    const wanted = spareMute(desired.state, state, mute);
    const operations = diffKernel(wanted, state);
    const asked = extra.filter((op) => !(op.op === "peer.reset" && mute.includes(op.link)));
    extra = [];
    if (looked && operations.length > 0 && lastState !== undefined && diffKernel(wanted, lastState).length === 0) {
      drift = { count: drift.count + 1, at: now };
      ports.onDrift(operations);
    }
    const results = operations.length + asked.length === 0 ? [] : await ports.kernel.apply([...operations, ...asked], signal);
    const failed = results.filter(({ ok }) => !ok);
    if (failed.length > 0) {
      failures++;
      // What worked stands: a verdict need not wait until everything has been observed again.
      const worked = results.flatMap(({ op, ok }) => (ok ? [op] : []));
      observed = asked.length > 0 ? undefined : applyOperations(state, worked);
      lastState = undefined;
      wakes.lookIn(backoffMs(failures, RETRY, ports.random()));
    } else {
      failures = 0;
      lastState = wanted;
      // Also where nothing was to do: equal parts become the same objects, and the next difference costs nothing.
      observed = afterApply(wanted, state);
      if (asked.length > 0) observed = undefined;
      // What is made anew is missing on purpose.
      if (asked.some(({ op }) => op === "link.remove")) lastState = undefined;
    }
    last = {
      input,
      desired,
      elections,
      before,
      withoutLink: numbered.without,
      mute,
      failures: failed,
      operations: operations.length,
      tookMs: performance.now() - started,
    };
    ports.onPass(last);
    arm();
  };

  /** The next pass that nothing else asks for: an election's own time, or the regular look. */
  const arm = (): void =>
    wakes.at(Math.min(nextWake(elections) ?? Infinity, observedAt + OBSERVE_MS), () =>
      ports.now() - observedAt >= OBSERVE_MS ? wakes.look() : wakes.rouse(),
    );

  return {
    get last() {
      return last;
    },
    get drift() {
      return drift;
    },
    setPlan(next) {
      plan = next;
      wakes.rouse();
    },
    wake(what) {
      if (what === "health" || what === "dial") wakes.rouse();
      else wakes.lookIn(what === "drift" && failures === 0 ? 0 : debounceMs());
    },
    now() {
      if (over) return Promise.reject(stopping());
      const done = new Promise<void>((resolve, reject) => waiting.push({ done: resolve, failed: reject }));
      wakes.look();
      return done;
    },
    also(operations) {
      extra.push(...operations);
      wakes.rouse();
    },
    async run(signal) {
      while (await wakes.next(signal)) {
        const asking = waiting;
        waiting = [];
        try {
          await pass(signal);
          for (const { done } of asking) done();
        } catch (thrown) {
          for (const { failed } of asking) failed(thrown);
          if (signal.aborted) break;
          failures++;
          observed = undefined;
          ports.log(`reconciling failed: ${asIsthmusError(thrown).message}`);
          wakes.lookIn(backoffMs(failures, RETRY, ports.random()));
        }
      }
      for (const { failed } of waiting.splice(0)) failed(stopping());
      over = true;
      wakes.stop();
    },
  };
}

function stopping(): IsthmusError {
  return new IsthmusError("Internal", "the agent is stopping");
}

/** Interfaces that WireGuard does not answer for, by name. */
export function muteOf(seen: ReadonlyMap<string, Pick<WgInterface, "mute">>): string[] {
  return [...seen].flatMap(([name, { mute }]) => (mute ? [name] : [])).sort();
}

/** Who does not answer cannot be told anything: it is wanted as it is until it speaks, or until it is made anew. */
function spareMute(desired: KernelState, observed: KernelState, mute: readonly string[]): KernelState {
  if (mute.length === 0) return desired;
  const wireguard = [...desired.wireguard].map(
    ([name, link]) => [name, mute.includes(name) ? (observed.wireguard.get(name) ?? link) : link] as const,
  );
  return { ...desired, wireguard: new Map(wireguard) };
}

/** What the kernel looks like after a successful apply, until it is observed: as desired, with what only the kernel knows. */
export function afterApply(desired: KernelState, observed: KernelState): KernelState {
  const wireguard = new Map(
    [...desired.wireguard].map(([name, link]) => {
      const before = observed.wireguard.get(name);
      const peers = new Map(
        [...link.peers].map(([key, peer]) => {
          const { presharedKey: _, ...known } = before?.peers.get(key) ?? peer;
          return [key, { ...known, ...peer }];
        }),
      );
      return [name, { ...link, peers }];
    }),
  );
  return { ...desired, wireguard };
}
