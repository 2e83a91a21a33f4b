/** One run: hosts, agents and a controller on a virtual clock; every choice of chance comes from one seed. */
import type { GatewayState } from "../../mesh/elect/types.ts";
import { applyOperations } from "../../mesh/kernel/diff.ts";
import { linkInterface } from "../../mesh/kernel/layout.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import { createAgent, INTERVAL_MS, restart, setPlan, tick, type Agent, type Plant } from "./agent.ts";
import { createChecks, NOTICE_MS, Violation, type Checks, type Outage } from "./checks.ts";
import { cordon, createController, join, putEgress, remove, type Controller } from "./controller.ts";
import { FAULTS } from "./faults.ts";
import { arrival, createNetwork, hostOf, touch, truth, truthSince, wayOf, type Way } from "./network.ts";
import { createQueue } from "./queue.ts";
import { seeded, type Random } from "./random.ts";

const FAULTS_MS = 30_000;
/** Long enough for a hold-down that has doubled with every flap of the run. */
const QUIET_MS = 400_000;
const ASK_MS = 1_000;
const UPLINK_NOTICE_MS = 400;
/** Also on a quiet network a loop comes late now and then: something else ran, memory was collected, processes were started. */
const LATE_CHANCE = 0.02;
const LATE_MS = [51, 200] as const;

export interface World {
  readonly random: Random;
  readonly clients: readonly NodeName[];
  readonly gateways: readonly NodeName[];
  readonly controller: Controller;
  readonly killAfter: Map<NodeName, number>;
  everyone(): NodeName[];
  after(ms: number, run: () => void): void;
  way(from: NodeName, to: NodeName): Way;
  touch(client: NodeName, gateway: NodeName): void;
  /** The client's own uplink fails now, for so long. */
  noteOutage(client: NodeName, ms: number): void;
  power(name: NodeName, on: boolean): void;
  crash(name: NodeName): void;
  start(name: NodeName): void;
  stop(name: NodeName, ms: number): void;
  uplink(name: NodeName, up: boolean): void;
  cordon(name: NodeName, cordoned: boolean): void;
  editIntent(): void;
  join(): void;
  removeOne(): void;
  loseLink(name: NodeName): void;
}

export interface Outcome {
  readonly seed: number;
  /** What was broken, when it was. */
  readonly violation: string | undefined;
  readonly log: readonly string[];
  readonly steps: number;
}

/** Runs one seed. The same seed does the same, always. */
export function runSeed(seed: number, plant?: Plant, verbose = false): Outcome {
  const log: string[] = [];
  const sim = createSim(seed, plant, verbose ? log : undefined);
  try {
    sim.run();
    return { seed, violation: undefined, log, steps: sim.steps() };
  } catch (thrown) {
    if (!(thrown instanceof Violation)) throw thrown;
    return { seed, violation: thrown.message, log, steps: sim.steps() };
  }
}

function createSim(seed: number, plant: Plant | undefined, log: string[] | undefined): { run(): void; steps(): number } {
  const random = seeded(seed);
  const net = createNetwork();
  const controller = createController();
  const queue = createQueue();
  const agents = new Map<NodeName, Agent>();
  const clients = ["c1", "c2"] as NodeName[];
  const gateways = ["g1", "g2", "g3"] as NodeName[];
  const killAfter = new Map<NodeName, number>();
  const calmAt = new Map<NodeName, number>();
  const outages = new Map<NodeName, Outage>();
  const words = new Map<NodeName, GatewayState>();
  let steps = 0;
  let joined = 0;
  let faulty = true;

  const say = (text: () => string): void => void log?.push(`${String(net.now).padStart(6)} ${text()}`);
  const calm = (name: NodeName): void => void calmAt.set(name, net.now);
  const checks: Checks = createChecks({
    net,
    calmSince: ({ name }) => calmAt.get(name) ?? 0,
    outageOf: ({ name }) => outages.get(name),
    killed: ({ name }) => {
      const left = killAfter.get(name);
      if (left === undefined) return false;
      if (left > 1) killAfter.set(name, left - 1);
      else {
        killAfter.delete(name);
        say(() => `${name} is killed while it changes the kernel`);
        world.crash(name);
        world.after(random.int(100, 4_000), () => world.start(name));
        return true;
      }
      return false;
    },
  });
  const watch = {
    ...checks,
    chosen: (...[agent, id, before, after, views, now]: Parameters<Checks["chosen"]>): void => {
      if (before?.active.join() !== after.active.join())
        say(() => `${agent.name} ${id}: [${before?.active.join() ?? ""}] → [${after.active.join()}] ${after.reason}`);
      checks.chosen(agent, id, before, after, views, now);
    },
  };

  const runs = (name: NodeName): boolean => hostOf(net, name).powered && hostOf(net, name).agent && agents.has(name);
  const turn = (agent: Agent): void => {
    const host = hostOf(net, agent.name);
    if (!runs(agent.name) || agents.get(agent.name) !== agent) return;
    if (host.stoppedUntil > net.now) return queue.add(host.stoppedUntil, () => turn(agent));
    tick(agent, net.now, (to, seq) => probe(agent, to, seq), watch, plant);
    checks.afterTick(agent);
    if (runs(agent.name)) queue.add(net.now + INTERVAL_MS + lateness(), () => turn(agent));
  };
  const lateness = (): number => (random.chance(LATE_CHANCE) ? random.int(...LATE_MS) : 0);
  const probe = (agent: Agent, to: NodeName, seq: number): void => {
    const there = arrival(net, random, agent.name, to, net.now);
    const back = there === undefined ? undefined : arrival(net, random, to, agent.name, there);
    if (back !== undefined) agent.inbox.push({ at: back, from: to, seq });
  };
  const word = (gateway: NodeName): GatewayState => words.get(gateway) ?? "Serving";
  const tell = (gateway: NodeName, client: NodeName, at: number): void => {
    if (!runs(gateway) || hostOf(net, gateway).stoppedUntil > net.now) return;
    const back = arrival(net, random, gateway, client, at);
    if (back !== undefined) agents.get(client)?.inbox.push({ at: back, from: gateway, seq: 0, word: word(gateway) });
  };
  const setWord = (gateway: NodeName): void => {
    const draining = agents.get(gateway)?.plan?.self.drain !== undefined;
    const next: GatewayState = draining ? "Draining" : hostOf(net, gateway).uplink ? "Serving" : "UplinkDown";
    if (word(gateway) === next || !runs(gateway)) return;
    words.set(gateway, next);
    say(() => `${gateway} says ${next}`);
    for (const client of agents.keys()) tell(gateway, client, net.now);
  };
  const ask = (agent: Agent): void => {
    if (agents.get(agent.name) !== agent) return;
    queue.add(net.now + ASK_MS, () => ask(agent));
    if (!runs(agent.name) || hostOf(net, agent.name).stoppedUntil > net.now) return;
    for (const gateway of agent.health.keys()) {
      const there = arrival(net, random, agent.name, gateway, net.now);
      if (there !== undefined) tell(gateway, agent.name, there);
    }
    setWord(agent.name);
    deliver(agent.name);
  };
  const deliver = (name: NodeName): void => {
    if (!controller.up || !runs(name)) return;
    queue.add(net.now + random.int(1, 50), () => {
      const agent = agents.get(name);
      if (
        agent === undefined ||
        !runs(name) ||
        !controller.up ||
        hostOf(net, name).stoppedUntil > net.now ||
        agent.revision === controller.store.revision
      )
        return;
      const plan = controller.plan(name);
      if (plan === undefined) return;
      setPlan(agent, plan, controller.store.revision, net.now, plant);
      calm(name);
      setWord(name);
    });
  };
  const publish = (): void => {
    checks.afterStoreWrite(controller.store);
    for (const name of agents.keys()) deliver(name);
  };
  const admit = (name: NodeName): void => {
    const agent = createAgent(name, net.now);
    agents.set(name, agent);
    hostOf(net, name);
    calm(name);
    queue.add(net.now + random.int(0, 99), () => {
      agent.dueAt = net.now;
      turn(agent);
      ask(agent);
    });
  };

  const intent = (name: string): object => ({
    destinations: [{ e1: "34.160.111.0/24", e2: "198.18.0.0/15", e3: "203.0.113.128/25" }[name]],
    sources: { nodeSelector: { role: "client" } },
    gateways: [
      ...gateways
        .filter(() => random.chance(0.8))
        .map((gateway) => ({ nodeSelector: { name: gateway }, priority: random.pick([100, 100, 200, 300]) })),
      { nodeSelector: { name: random.pick(gateways) }, priority: 50 },
    ],
    health: { interval: "100ms", threshold: 3, holdDown: random.pick(["500ms", "1s", "2s"]) },
    strategy: random.pick(["Failover", "Failover", "Spread"]),
    failback: random.pick([{ type: "Immediate" }, { type: "Delayed", delay: "0s" }, { type: "Delayed", delay: "2s" }, { type: "Manual" }]),
    drainTimeout: random.pick(["1s", "5s"]),
  });

  const world: World = {
    random,
    clients,
    gateways,
    controller,
    killAfter,
    everyone: () => [...agents.keys()],
    after: (ms, run) => queue.add(net.now + ms, run),
    way: (from, to) => wayOf(net, from, to),
    touch: (client, gateway) => {
      // The uplink is no longer what all of its links share: one of them breaks or heals by itself.
      const outage = outages.get(client);
      if (outage !== undefined && net.now > outage.from && net.now < outage.to) outages.delete(client);
      touch(net, client, gateway);
      say(() => `${client} and ${gateway}: ${describe(wayOf(net, client, gateway))} there, ${describe(wayOf(net, gateway, client))} back`);
    },
    noteOutage(client, ms) {
      const fine = gateways.every((gateway) => truth(net, client, gateway) === "fine" && net.now - truthSince(net, client, gateway) > NOTICE_MS);
      if (fine) outages.set(client, { from: net.now, to: net.now + ms });
      else outages.delete(client);
    },
    power(name, on) {
      const host = hostOf(net, name);
      if (host.powered === on) return;
      host.powered = on;
      say(() => `${name} is ${on ? "on" : "off"}`);
      for (const client of agents.keys()) touch(net, client, name);
      if (on && host.agent) begin(name);
    },
    crash(name) {
      const host = hostOf(net, name);
      if (!host.agent || !agents.has(name)) return;
      host.agent = false;
      say(() => `${name}: the agent dies`);
      for (const client of agents.keys()) touch(net, client, name);
    },
    start(name) {
      const host = hostOf(net, name);
      if (host.agent || !agents.has(name)) return;
      host.agent = true;
      say(() => `${name}: the agent starts`);
      for (const client of agents.keys()) touch(net, client, name);
      if (host.powered) begin(name);
    },
    stop(name, ms) {
      say(() => `${name} stands still for ${ms} ms`);
      hostOf(net, name).stoppedUntil = Math.max(hostOf(net, name).stoppedUntil, net.now + ms);
      queue.add(net.now + ms, () => calm(name));
      calm(name);
    },
    uplink(name, up) {
      hostOf(net, name).uplink = up;
      say(() => `${name}: uplink ${up ? "up" : "down"}`);
      for (const client of agents.keys()) touch(net, client, name);
      queue.add(net.now + UPLINK_NOTICE_MS, () => setWord(name));
    },
    cordon(name, cordoned) {
      if (!controller.up) return;
      say(() => `${name} is ${cordoned ? "cordoned" : "uncordoned"}`);
      cordon(controller.store, name, cordoned);
      publish();
    },
    editIntent() {
      if (!controller.up) return;
      const name = random.pick(["e1", "e2", "e3"]);
      if (controller.store.egress.has(name) && random.chance(0.3)) {
        controller.store.egress.delete(name);
        controller.store.revision++;
      } else putEgress(controller.store, name, intent(name));
      say(() => `intent ${name} ${controller.store.egress.has(name) ? "changes" : "goes"}`);
      publish();
    },
    join() {
      const name = `n${++joined}` as NodeName;
      const attempt = (tries: number): void => {
        if (!controller.up || tries === 0) return;
        const { revision, allocation } = controller.store;
        queue.add(net.now + random.int(0, 20), () => {
          if (join(controller.store, name, "dc", {}, { revision, allocation }, net.now, plant !== "NoCompareAndSet")) {
            say(() => `${name} joins`);
            admit(name);
            publish();
          } else attempt(tries - 1);
        });
      };
      attempt(5);
    },
    removeOne() {
      const others = [...agents.keys()].filter((name) => name.startsWith("n"));
      if (!controller.up || others.length === 0) return;
      const name = random.pick(others);
      say(() => `${name} is removed`);
      agents.delete(name);
      remove(controller.store, name, net.now);
      publish();
    },
    loseLink(name) {
      const agent = agents.get(name);
      const k = agent === undefined ? undefined : [...agent.links.values()][0];
      if (agent === undefined || k === undefined) return;
      say(() => `${name} loses ${linkInterface(k)}`);
      agent.kernel = applyOperations(agent.kernel, [{ op: "link.remove", name: linkInterface(k) }]);
      checks.afterKernelLoss(agent);
      agent.dirty = true;
    },
  };

  function begin(name: NodeName): void {
    const old = agents.get(name);
    if (old === undefined) return;
    // A new object: what the old process had scheduled finds itself replaced.
    const agent: Agent = { ...old };
    agents.set(name, agent);
    restart(agent, net.now, plant);
    calm(name);
    turn(agent);
    queue.add(net.now, () => ask(agent));
  }

  function heal(): void {
    faulty = false;
    controller.up = true;
    killAfter.clear();
    say(() => "everything heals");
    for (const way of net.ways.values()) Object.assign(way, { cut: false, loss: 0 });
    for (const name of agents.keys()) {
      hostOf(net, name).uplink = true;
      if (controller.store.nodes.get(name)?.spec.cordoned === true) cordon(controller.store, name, false);
      world.start(name);
      world.power(name, true);
      for (const gateway of gateways) touch(net, name, gateway);
    }
    publish();
  }

  function run(): void {
    for (const name of [...gateways, ...clients]) {
      const isGateway = gateways.includes(name);
      join(
        controller.store,
        name,
        isGateway ? (name === "g1" ? "r1" : "r2") : "dc",
        { name, role: isGateway ? "gateway" : "client" },
        controller.store,
        0,
      );
      for (const other of gateways)
        for (const [a, b] of [
          [name, other],
          [other, name],
        ] as const)
          wayOf(net, a, b).delayMs = random.int(1, 60);
    }
    putEgress(controller.store, "e1", intent("e1"));
    putEgress(controller.store, "e2", intent("e2"));
    for (const name of [...gateways, ...clients]) admit(name);
    publish();
    for (let i = random.int(4, 24); i > 0; i--) {
      const fault = random.pick(FAULTS);
      queue.add(random.int(500, FAULTS_MS), () => faulty && fault(world));
    }
    queue.add(FAULTS_MS, heal);
    queue.run(
      FAULTS_MS,
      (at) => (net.now = at),
      () => steps++,
    );
    let differs: string | undefined = "";
    for (let until = FAULTS_MS + 1_000; differs !== undefined && until <= FAULTS_MS + QUIET_MS; until += 1_000) {
      queue.run(
        until,
        (at) => (net.now = at),
        () => steps++,
      );
      differs = [...agents.values()].map((agent) => checks.disagreement(agent, controller)).find((one) => one !== undefined);
    }
    if (differs !== undefined) throw new Violation(`quiet network at ${net.now} ms: ${differs}`);
  }

  return { run, steps: () => steps };
}

function describe({ cut, loss, delayMs }: Way): string {
  return cut ? "cut" : `${delayMs} ms${loss > 0 ? ` with ${loss * 100} % lost` : ""}`;
}
