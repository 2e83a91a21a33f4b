/** An agent: the real elections and the real kernel state over a simulated clock, socket and kernel. */
import { createLinkHealth, linkView, onAnswer, onGatewayState, onSent, setConfig, type HealthState } from "../../mesh/elect/health.ts";
import { electPath } from "../../mesh/elect/path.ts";
import { isLate, judgeLinks } from "../../mesh/elect/stall.ts";
import type { Choice, GatewayState, LinkView } from "../../mesh/elect/types.ts";
import { createLinkWatch, judgeWatch, onTimer, takeNews, tellStalled, type LinkWatch } from "../../mesh/elect/watch.ts";
import { desiredKernel } from "../../mesh/kernel/desired.ts";
import { diffKernel, EMPTY_KERNEL } from "../../mesh/kernel/diff.ts";
import type { HostFacts, KernelState } from "../../mesh/kernel/types.ts";
import type { PathId, Plan } from "../../mesh/model/plan.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import { applyEach } from "./kernel.ts";

export const INTERVAL_MS = 100;

/** Faults that are put into the agent on purpose, to show that the checks find them. */
export type Plant =
  | "DeadGateway"
  | "NoHysteresis"
  | "NoStallGuard"
  | "ForgetsStandstill"
  | "BreakBeforeMake"
  | "Leak"
  | "NoCompareAndSet"
  | "ForgetsDrain"
  | "RestartForgets";

export interface Agent {
  readonly name: NodeName;
  plan: Plan | undefined;
  revision: number;
  choices: Map<PathId, Choice>;
  health: Map<NodeName, HealthState>;
  links: Map<NodeName, number>;
  kernel: KernelState;
  dueAt: number;
  inbox: { readonly at: number; readonly from: NodeName; readonly seq: number; readonly word?: GatewayState }[];
  watch: LinkWatch;
  /** An election is due that no link asked for. */
  asked: boolean;
  /** Kernel objects went without our doing. */
  dirty: boolean;
  /** What the kernel was last made of. */
  made: string;
  startedAt: number;
}

export interface Watcher {
  chosen(agent: Agent, id: PathId, before: Choice | undefined, after: Choice, views: ReadonlyMap<NodeName, LinkView>, now: number): void;
  kernelStep(agent: Agent, before: KernelState, state: KernelState): void;
  applied(agent: Agent, before: KernelState): void;
  /** Whether the agent is killed after this operation. */
  killed(agent: Agent): boolean;
}

const HOST: HostFacts = {
  wireguard: "userspace",
  underlay: [{ ifname: "eth0", address: "192.0.2.10", prefix: "192.0.2.0/24", mtu: 1500 }],
  mainRoutes: [
    { dst: "0.0.0.0/0", via: "192.0.2.1", dev: "eth0", metric: 0 },
    { dst: "192.0.2.0/24", dev: "eth0", metric: 0 },
  ],
  protectedAddresses: [],
  raInterfaces: [],
  overlayMtu: 1420,
} as unknown as HostFacts;

export function createAgent(name: NodeName, now: number): Agent {
  return {
    name,
    plan: undefined,
    revision: 0,
    choices: new Map(),
    health: new Map(),
    links: new Map(),
    kernel: EMPTY_KERNEL,
    dueAt: now,
    inbox: [],
    watch: createLinkWatch(),
    asked: true,
    dirty: false,
    made: "",
    startedAt: now,
  };
}

/** Starts again from its disk: plan, choices and link numbers. Kernel state outlives it; what was known of links does not (I2). */
export function restart(agent: Agent, now: number, plant?: Plant): void {
  agent.health = new Map();
  agent.inbox = [];
  agent.dueAt = now;
  agent.watch = createLinkWatch();
  agent.dirty = true;
  agent.startedAt = now;
  if (plant === "RestartForgets") agent.choices = new Map();
  // Times of another process mean nothing to this one.
  for (const [id, { active, order }] of agent.choices) {
    agent.choices.set(id, {
      active,
      reason: "LastKnown",
      since: now,
      rejected: [],
      draining: [],
      wakeAt: undefined,
      ...(order === undefined ? {} : { order }),
    });
  }
  if (agent.plan !== undefined) setPlan(agent, agent.plan, agent.revision, now, plant);
}

export function setPlan(agent: Agent, plan: Plan, revision: number, now: number, plant?: Plant): void {
  agent.plan = plan;
  agent.revision = revision;
  agent.asked = true;
  for (const id of agent.choices.keys()) if (!plan.paths.has(id)) agent.choices.delete(id);
  const wanted = new Set<NodeName>();
  for (const path of plan.paths.values())
    if (!path.gateways.some(({ node }) => node === agent.name)) for (const { node } of path.gateways) wanted.add(node);
  // Make before break: what carries traffic is watched until it no longer does.
  for (const { active, draining } of agent.choices.values())
    for (const node of [...active, ...draining.map((one) => one.node)]) if (plan.peers.has(node)) wanted.add(node);
  for (const node of agent.health.keys()) if (!wanted.has(node)) agent.health.delete(node);
  for (const node of agent.links.keys()) if (!wanted.has(node)) agent.links.delete(node);
  for (const node of [...wanted].sort()) {
    const paths = [...plan.paths.values()].filter((path) => path.gateways.some((gateway) => gateway.node === node));
    const config = {
      intervalMs: INTERVAL_MS,
      threshold: Math.min(3, ...paths.map(({ threshold }) => threshold)),
      holdDownMs: plant === "NoHysteresis" ? 0 : Math.max(500, ...paths.map(({ holdDownMs }) => holdDownMs)),
    };
    const known = agent.health.get(node);
    if (known === undefined) agent.health.set(node, createLinkHealth(config, now));
    else setConfig(known, config);
    if (agent.links.has(node)) continue;
    const used = new Set(agent.links.values());
    agent.links.set(
      node,
      [...Array(63).keys()].map((i) => i + 1).find((k) => !used.has(k))!,
    );
  }
}

/** One run of the agent's loop at `now`, in Node's order: timer, poll, then the judgement, probes and elections. */
export function tick(agent: Agent, now: number, send: (to: NodeName, seq: number) => void, watch: Watcher, plant?: Plant): void {
  const { plan, watch: links } = agent;
  const states = [...agent.health.values()];
  links.links = states;
  const late = isLate(agent.dueAt, now, INTERVAL_MS);
  if (plant !== "NoStallGuard") onTimer(links, agent.dueAt, now, INTERVAL_MS);
  // A program that trusts its timers judges before it reads what waits in the socket.
  else for (const state of states) judgeLinks([state], now);
  agent.inbox = agent.inbox.filter((message) => !read(agent, message, now, late));
  // A prober that tells verdicts only: what it held back while it stood still waits for the next one.
  if (plant === "ForgetsStandstill") links.toldStalled = false;
  const news = plant === "NoStallGuard" ? takeNews(links) : judgeWatch(links, now);
  agent.dueAt = now + INTERVAL_MS;
  if (plan === undefined) return;
  for (const [node, state] of agent.health) send(node, onSent(state, now));
  const woken = [...agent.choices.values()].some(({ wakeAt }) => wakeAt !== undefined && wakeAt <= now);
  if (!news && !woken && !agent.asked && !agent.dirty) return;
  agent.asked = false;
  elect(agent, plan, now, tellStalled(links), watch, plant);
  const made = JSON.stringify([
    agent.revision,
    states.map(({ verdict, recovering }) => [verdict, recovering]),
    [...agent.choices.values()].map(({ active, draining }) => [active, draining]),
  ]);
  if (made === agent.made && !agent.dirty) return;
  agent.dirty = false;
  agent.made = made;
  reconcile(agent, plan, watch, plant);
}

function read(agent: Agent, { at, from, seq, word }: Agent["inbox"][number], now: number, late: boolean): boolean {
  if (at > now) return false;
  const state = agent.health.get(from);
  if (state === undefined) return true;
  if (word !== undefined) onGatewayState(state, word, [], now);
  else onAnswer(state, seq, late ? now : at);
  return true;
}

export function viewsOf(agent: Agent): Map<NodeName, LinkView> {
  return new Map([...agent.health].map(([node, state]) => [node, linkView(node, state)]));
}

function elect(agent: Agent, plan: Plan, now: number, stalled: boolean, watch: Watcher, plant?: Plant): void {
  const links = viewsOf(agent);
  for (const [id, path] of plan.paths) {
    const previous = agent.choices.get(id);
    let choice = electPath({ id, path, self: agent.name, links, previous, stalled, now });
    const first = path.gateways[0]?.node;
    if (plant === "DeadGateway" && first !== undefined && choice.active.length > 0 && choice.reason !== "SelfGateway")
      choice = { ...choice, active: [first] };
    if (plant === "ForgetsDrain") choice = { ...choice, draining: [] };
    if (choice === previous) continue;
    agent.choices.set(id, choice);
    watch.chosen(agent, id, previous, choice, links, now);
  }
}

function reconcile(agent: Agent, plan: Plan, watch: Watcher, plant?: Plant): void {
  const deadLinks = new Set([...agent.health].filter(([, { verdict, recovering }]) => verdict === "Down" && !recovering).map(([node]) => node));
  const desired = desiredKernel({
    plan,
    host: HOST,
    publicKey: plan.peers.get(agent.name)!.k,
    links: agent.links,
    choices: agent.choices,
    deadLinks,
    dial: new Map(),
    lanChoices: new Map(),
  }).state;
  let operations = diffKernel(desired, agent.kernel);
  if (plant === "BreakBeforeMake")
    operations = operations.flatMap((one) =>
      one.op === "nexthop.replace" && one.before !== undefined ? [{ op: "nexthop.remove", nexthop: one.before } as const, one] : [one],
    );
  if (plant === "Leak") operations = operations.filter((one) => !("route" in one) || one.route.type !== "unreachable");
  const before = agent.kernel;
  let killed = false;
  agent.kernel = applyEach(before, operations, (state) => {
    watch.kernelStep(agent, before, state);
    killed = watch.killed(agent);
    return !killed;
  });
  if (!killed) watch.applied(agent, before);
}

/** What the agent would change in its kernel: empty when all is as the plan and the choices say. */
export function drift(agent: Agent): number {
  if (agent.plan === undefined) return 0;
  const desired = desiredKernel({
    plan: agent.plan,
    host: HOST,
    publicKey: agent.plan.peers.get(agent.name)!.k,
    links: agent.links,
    choices: agent.choices,
    deadLinks: new Set(),
    dial: new Map(),
    lanChoices: new Map(),
  }).state;
  return diffKernel(desired, agent.kernel).length;
}
