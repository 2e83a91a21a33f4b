import { describe, expect, test } from "vitest";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import type { Choice, LinkView } from "../../mesh/elect/types.ts";
import { applyOperations } from "../../mesh/kernel/diff.ts";
import { EMPTY_KERNEL, type Operation } from "../../mesh/kernel/operations.ts";
import type { KernelState, WgInterface } from "../../mesh/kernel/types.ts";
import type { Plan } from "../../mesh/model/plan.ts";
import type { NodeName, WgPublicKey } from "../../mesh/model/scalars.ts";
import { formatElections, type Health, NO_ELECTIONS, parseElections } from "../../node-agent/elections.ts";
import { createWireguardRestart } from "../../node-agent/restart-wireguard.ts";
import { createReconciler, type Pass, type Reconciler } from "../../node-agent/reconcile.ts";
import { eventually } from "./fake-controller.ts";
import { HOST, key, name, rawViews, withPaths } from "./plans.ts";

const parsed = parsePlan(rawViews()).plan;
if (parsed === undefined) throw new Error("no plan");
const PLAN: Plan = parsed;
const view = (node: string, verdict: LinkView["verdict"], since = 0): [NodeName, LinkView] => [
  name(node),
  { node: name(node), verdict, since, gateway: "Serving", srttMs: 1 },
];

interface World {
  kernel: KernelState;
  health: Health;
  readonly applied: (readonly Operation[])[];
  observes: number;
  fail: (op: Operation) => boolean;
  readonly passes: Pass[];
  readonly drifts: (readonly Operation[])[];
  overlapping: boolean;
}

function world(kernel: KernelState = EMPTY_KERNEL): World {
  return {
    kernel,
    health: { links: new Map([view("g1", "Up"), view("g2", "Up")]), stalled: false, lan: new Map() },
    applied: [],
    observes: 0,
    fail: () => false,
    passes: [],
    drifts: [],
    overlapping: false,
  };
}

/** Runs a reconciler on a kernel in memory. */
async function withReconciler(
  state: World,
  work: (reconciler: Reconciler) => Promise<void>,
  stored = { links: new Map<NodeName, number>(), elections: NO_ELECTIONS },
): Promise<void> {
  const abort = new AbortController();
  let busy = false;
  const reconciler = createReconciler({
    kernel: {
      async observe() {
        state.overlapping ||= busy;
        state.observes++;
        return state.kernel;
      },
      hostFacts: async () => structuredClone(HOST),
      async apply(ops) {
        state.overlapping ||= busy;
        busy = true;
        await new Promise((done) => setImmediate(done));
        state.applied.push(ops);
        const worked = ops.filter((op) => !state.fail(op));
        state.kernel = applyOperations(state.kernel, worked);
        busy = false;
        return ops.map((op) => (worked.includes(op) ? { op, ok: true } : { op, ok: false, error: "no" }));
      },
    },
    publicKey: key(1) as WgPublicKey,
    health: () => state.health,
    dial: () => new Map(),
    now: () => performance.now(),
    random: () => 0,
    stored,
    onPass: (pass) => void state.passes.push(pass),
    onDrift: (operations) => void state.drifts.push(operations),
    log: () => {},
  });
  const running = reconciler.run(abort.signal);
  try {
    await work(reconciler);
  } finally {
    abort.abort();
    await running;
  }
  expect(state.overlapping).toBe(false);
}

const active = (state: World): readonly string[] | undefined => state.passes.at(-1)?.elections.paths.get("egress/web")?.active;

describe("the loop", () => {
  test("makes the kernel what the plan says, and then does nothing", async () => {
    const state = world();
    await withReconciler(state, async (reconciler) => {
      reconciler.setPlan(PLAN);
      await reconciler.now();
      expect(state.kernel.wireguard.has("ismg1")).toBe(true);
      const applied = state.applied.length;
      await reconciler.now();
      await reconciler.now();
      expect(state.applied.length).toBe(applied);
      expect(state.drifts).toEqual([]);
    });
  });

  test("an interface whose process does not answer is told nothing, named, and holds up nothing else", async () => {
    const state = world();
    await withReconciler(state, async (reconciler) => {
      reconciler.setPlan(PLAN);
      await reconciler.now();
      const { wireguard } = state.kernel;
      const mute = { ...wireguard.get("ismg2")!, listenPort: 1, peers: new Map(), mute: true as const };
      state.kernel = { ...state.kernel, wireguard: new Map([...wireguard, ["ismg2", mute]]), rules: new Map() };
      const applied = state.applied.length;
      const reset = [...wireguard.get("ismg2")!.peers.values()][0]!;
      reconciler.also([{ op: "peer.reset", link: "ismg2", peer: reset }]);
      await reconciler.now();
      expect(state.passes.at(-1)?.mute).toEqual(["ismg2"]);
      expect(state.kernel.rules.size).toBeGreaterThan(0);
      state.health = { ...state.health, links: new Map([view("g1", "Down"), view("g2", "Up")]) };
      reconciler.wake("health");
      await eventually("moved", () => active(state)?.[0] === "g2");
      expect(
        state.applied
          .slice(applied)
          .flat()
          .map((op) => ("link" in op ? op.op : "")),
      ).not.toContain("peer.reset");
      expect(state.kernel.wireguard.get("ismg2")).toBe(mute);

      state.kernel = { ...state.kernel, wireguard: new Map([...wireguard, ["ismg2", { ...mute, mute: undefined! }]]) };
      await reconciler.now();
      expect(state.passes.at(-1)?.mute).toEqual([]);
      expect(state.kernel.wireguard.get("ismg2")?.listenPort).toBe(wireguard.get("ismg2")!.listenPort);
    });
  });

  test("who waits for a pass when the agent stops is told so, then and later", async () => {
    let asked: Promise<PromiseSettledResult<void>[]> | undefined;
    let reconciler: Reconciler | undefined;
    const state = world();
    await withReconciler(state, async (running) => {
      reconciler = running;
      running.setPlan(PLAN);
      await running.now();
      // Under way when the stop comes, and one behind it.
      state.kernel = { ...state.kernel, rules: new Map() };
      const { health } = state;
      const begun = new Promise<void>((yes) => void Object.defineProperty(state, "health", { get: () => (yes(), health) }));
      const first = running.now();
      await begun;
      asked = Promise.allSettled([first, running.now()]);
    });
    const [, behind] = (await asked) ?? [];
    expect(behind).toMatchObject({ status: "rejected", reason: { message: "the agent is stopping" } });
    await expect(reconciler?.now()).rejects.toThrow("the agent is stopping");
  });

  test("a verdict moves the path without an observe in between", async () => {
    const state = world();
    await withReconciler(state, async (reconciler) => {
      reconciler.setPlan(PLAN);
      await reconciler.now();
      expect(active(state)).toEqual(["g1"]);
      const before = state.observes;
      state.health = { ...state.health, links: new Map([view("g1", "Down"), view("g2", "Up")]) };
      reconciler.wake("health");
      await eventually("moved", () => active(state)?.[0] === "g2");
      expect(state.observes).toBe(before);
      expect(state.applied.at(-1)?.map(({ op }) => op)).toEqual(expect.arrayContaining(["nexthop.replace"]));
      expect(state.applied.at(-1)?.every(({ op }) => op === "nexthop.replace")).toBe(true);
    });
  });

  test("I10: what someone else removes comes back and is told as drift", async () => {
    const state = world();
    await withReconciler(state, async (reconciler) => {
      reconciler.setPlan(PLAN);
      await reconciler.now();
      const whole = state.kernel;
      state.kernel = { ...state.kernel, addresses: new Set(), rules: new Map() };
      reconciler.wake("kernel");
      await eventually("healed", () => state.kernel.addresses.size === whole.addresses.size && state.kernel.rules.size === whole.rules.size);
      expect(state.drifts.length).toBe(1);
      expect(reconciler.drift.count).toBe(1);
    });
  });

  test("an operation that fails is tried again, and named in the pass", async () => {
    const state = world();
    let failures = 2;
    state.fail = (op) => op.op === "rule.add" && failures-- > 0;
    await withReconciler(state, async (reconciler) => {
      reconciler.setPlan(PLAN);
      await eventually("all applied", () => state.passes.length > 1 && state.passes.at(-1)?.failures.length === 0);
      expect(state.passes[0]?.failures.map(({ op }) => op.op)).toEqual(["rule.add", "rule.add"]);
      expect(state.drifts).toEqual([]);
    });
  });

  test("I10: while one operation keeps failing, drift still heals soon and a verdict moves its path without an observe", async () => {
    const state = world();
    state.fail = (op) => op.op === "sysctl.set" || op.op === "hosts.set";
    await withReconciler(state, async (reconciler) => {
      reconciler.setPlan(PLAN);
      // By the tenth failure the next try is seconds away.
      for (let i = 0; i < 10; i++) await reconciler.now();
      await eventually("waits for its next try", async () => {
        const before = state.passes.length;
        await new Promise((done) => setTimeout(done, 500));
        return state.passes.length === before;
      });
      expect(state.passes.at(-1)?.failures).not.toEqual([]);

      const before = state.observes;
      state.health = { ...state.health, links: new Map([view("g1", "Down"), view("g2", "Up")]) };
      reconciler.wake("health");
      await eventually("moved", () => active(state)?.[0] === "g2");
      expect(state.observes).toBe(before);

      state.kernel = { ...state.kernel, addresses: new Set() };
      reconciler.wake("kernel");
      await eventually("healed", () => state.kernel.addresses.size > 0, 3_000);
    });
  });

  test("while operations fail, a kernel that changes all the time is observed about once a second", async () => {
    const state = world();
    state.fail = () => true;
    await withReconciler(state, async (reconciler) => {
      reconciler.setPlan(PLAN);
      for (let i = 0; i < 10; i++) await reconciler.now();
      const before = state.observes;
      const busy = setInterval(() => reconciler.wake("kernel"), 5);
      await new Promise((done) => setTimeout(done, 2_500));
      clearInterval(busy);
      expect(state.observes - before).toBeLessThanOrEqual(4);
      expect(state.observes - before).toBeGreaterThanOrEqual(1);
    });
  });

  test("I2: a restart adopts links and choice from disk, or else from the kernel, and changes nothing", async () => {
    const first = world();
    first.health = { ...first.health, links: new Map([view("g1", "Down"), view("g2", "Up")]) };
    let links: Pass["input"]["links"] = new Map();
    let text = "";
    await withReconciler(first, async (reconciler) => {
      reconciler.setPlan(PLAN);
      await reconciler.now();
      links = first.passes.at(-1)?.input.links ?? links;
      text = formatElections(first.passes.at(-1)?.elections ?? NO_ELECTIONS, (at) => at);
    });
    const unheard = new Map([view("g1", "Unknown"), view("g2", "Unknown")]);
    const stored = { links: new Map(links), elections: parseElections(JSON.parse(text), performance.now(), (at) => at) };
    // Killed before its last move and its links were on disk: the kernel knows better.
    const outdated = parseElections(
      { paths: { "egress/web": { active: ["g1"], reason: "Preferred", since: 0 } }, lans: {} },
      performance.now(),
      (at) => at,
    );
    for (const memory of [
      stored,
      { links: new Map([[name("g1"), 9]]), elections: outdated },
      { links: new Map<NodeName, number>(), elections: NO_ELECTIONS },
    ]) {
      const second = world(first.kernel);
      second.health = { ...second.health, links: unheard };
      await withReconciler(
        second,
        async (reconciler) => {
          reconciler.setPlan(PLAN);
          await reconciler.now();
          expect(active(second)).toEqual(["g2"]);
          expect(second.applied.flat()).toEqual([]);
        },
        memory,
      );
    }
  });

  test("I2: a restart while flows stay on a gateway that was left moves none of them, and they still end in time", async () => {
    const [g1, g2] = [view("g1", "Up"), view("g2", "Up")];
    const draining: [NodeName, LinkView] = [g1[0], { ...g1[1], gateway: "Draining" }];
    const first = world();
    let links: Pass["input"]["links"] = new Map();
    let text = "";
    await withReconciler(first, async (reconciler) => {
      reconciler.setPlan(PLAN);
      await reconciler.now();
      expect(active(first)).toEqual(["g1"]);
      first.health = { ...first.health, links: new Map([draining, g2]) };
      await reconciler.now();
      links = first.passes.at(-1)?.input.links ?? links;
      text = formatElections(first.passes.at(-1)?.elections ?? NO_ELECTIONS, (at) => at);
    });
    const left = (state: World): Choice["draining"] => state.passes.at(-1)?.elections.paths.get("egress/web")?.draining ?? [];
    expect(left(first)).toMatchObject([{ node: "g1" }]);
    const stored = { links: new Map(links), elections: parseElections(JSON.parse(text), performance.now(), (at) => at) };
    // The first pass comes before the probes begin; then the links are not heard yet.
    for (const heard of [[], [view("g1", "Unknown"), view("g2", "Unknown")], [draining, g2]]) {
      const second = world(first.kernel);
      second.health = { ...second.health, links: new Map(heard) };
      await withReconciler(
        second,
        async (reconciler) => {
          reconciler.setPlan(PLAN);
          await reconciler.now();
          expect(active(second)).toEqual(["g2"]);
          expect(second.applied.flat()).toEqual([]);
          expect(left(second)).toMatchObject([{ node: "g1", until: expect.closeTo(left(first)[0]?.until ?? 0, -1) }]);
        },
        stored,
      );
    }
  });

  test("a restart of wireguard-go makes every interface anew, those in use last, and is nobody's drift", async () => {
    const state = world();
    await withReconciler(state, async (reconciler) => {
      reconciler.setPlan(PLAN);
      const restartWireguard = createWireguardRestart(reconciler);
      await expect(restartWireguard()).rejects.toMatchObject({ code: "Conflict" });
      await reconciler.now();
      const before = state.kernel;
      const done = state.applied.length;
      const restarted = restartWireguard();
      await expect(restartWireguard()).rejects.toMatchObject({ code: "Conflict", message: expect.stringContaining("already") as string });
      const { wireguard, interfaces } = await restarted;
      expect(wireguard).toBe("userspace");
      expect(interfaces.toSorted()).toEqual([...before.wireguard.keys()].toSorted());
      expect(active(state)).toEqual(["g1"]);
      expect(interfaces.at(-1)).toBe("ismg1");
      const links = state.applied
        .slice(done)
        .flatMap((ops) => ops.flatMap((op) => (op.op === "link.remove" ? [`-${op.name}`] : op.op === "link.add" ? [`+${op.link.name}`] : [])));
      expect(links).toEqual(interfaces.flatMap((name) => [`-${name}`, `+${name}`]));
      expect(state.kernel).toEqual(before);
      expect(state.drifts).toEqual([]);
    });
  });

  test("a restart of wireguard-go is not stopped by what the kernel refused before it, but by an interface that stays away", async () => {
    const state = world();
    await withReconciler(state, async (reconciler) => {
      state.fail = ({ op }) => op === "sysctl.set";
      reconciler.setPlan(PLAN);
      await reconciler.now();
      expect(reconciler.last?.failures.map(({ op }) => op.op)).toContain("sysctl.set");
      const restartWireguard = createWireguardRestart(reconciler);
      expect((await restartWireguard()).interfaces).toContain("ismg1");
      state.fail = (op) => op.op === "link.add" && op.link.name === "ismg1";
      await expect(restartWireguard()).rejects.toMatchObject({ code: "KernelRefused", message: expect.stringContaining("ismg1") as string });
    });
  });

  test("a restart of wireguard-go is not stopped by a refusal that stands while what WireGuard counts goes on", async () => {
    let kernel = EMPTY_KERNEL;
    let rxBytes = 0;
    const state: World = {
      ...world(),
      /** Somebody else's keepalive stays on every peer. */
      get kernel() {
        rxBytes++;
        const peersOf = ({ peers }: WgInterface) => new Map([...peers].map(([k, peer]) => [k, { ...peer, keepalive: 1, rxBytes }]));
        return { ...kernel, wireguard: new Map([...kernel.wireguard].map(([one, link]) => [one, { ...link, peers: peersOf(link) }])) };
      },
      set kernel(next) {
        kernel = next;
      },
      fail: ({ op }) => op === "peer.set",
    };
    await withReconciler(state, async (reconciler) => {
      reconciler.setPlan(PLAN);
      await reconciler.now();
      await reconciler.now();
      expect(reconciler.last?.failures.map(({ op }) => op.op)).toContain("peer.set");
      expect((await createWireguardRestart(reconciler)()).interfaces).toContain("ismg1");
    });
  });

  test("wake-ups that come while a pass runs are not lost, and passes never overlap", async () => {
    const state = world();
    await withReconciler(state, async (reconciler) => {
      reconciler.setPlan(PLAN);
      for (let i = 0; i < 50; i++) {
        reconciler.setPlan(i % 2 === 0 ? withPaths(PLAN, {}) : PLAN);
        if (i % 7 === 0) await new Promise((done) => setImmediate(done));
      }
      await reconciler.now();
      expect(state.passes.at(-1)?.input.plan).toBe(PLAN);
      expect(state.kernel.wireguard.has("ismg1")).toBe(true);
    });
  });
});
