/** Everything that may go wrong or be changed, each with its own undoing some time later. */
import type { NodeName } from "../../mesh/model/scalars.ts";
import type { World } from "./world.ts";

export type Fault = (world: World) => void;

/** Ends within, so that a run of half a minute sees healing too. */
const healIn = ({ random }: World): number => random.int(200, 9_000);

/** Changes everything between the client and the gateway, and notes when. */
function between(world: World, client: NodeName, gateway: NodeName, change: (from: NodeName, to: NodeName) => void, both: boolean): void {
  change(client, gateway);
  if (both) change(gateway, client);
  world.touch(client, gateway);
}

const power: Fault = (world) => {
  const name = world.random.pick(world.gateways);
  world.power(name, false);
  world.after(healIn(world), () => world.power(name, true));
};

const cut: Fault = (world) => {
  const client = world.random.pick(world.clients);
  const gateway = world.random.pick(world.gateways);
  const both = world.random.chance(0.5);
  const towards = world.random.chance(0.5);
  const [a, b] = towards ? [client, gateway] : [gateway, client];
  const set = (value: boolean): void => {
    world.way(a, b).cut = value;
    if (both) world.way(b, a).cut = value;
    world.touch(client, gateway);
  };
  set(true);
  world.after(healIn(world), () => set(false));
};

/** The client's own uplink: all gateways are silent at once, and come back at once. */
const outage: Fault = (world) => {
  const client = world.random.pick(world.clients);
  const set = (value: boolean): void => {
    for (const gateway of world.gateways) between(world, client, gateway, (from, to) => (world.way(from, to).cut = value), true);
  };
  const ms = healIn(world);
  world.noteOutage(client, ms);
  set(true);
  world.after(ms, () => set(false));
};

const loss: Fault = (world) => {
  const client = world.random.pick(world.clients);
  const gateway = world.random.pick(world.gateways);
  const set = (value: number): void => between(world, client, gateway, (from, to) => (world.way(from, to).loss = value), false);
  set(world.random.pick([0.01, 0.05, 0.3, 0.7]));
  world.after(healIn(world), () => set(0));
};

const delay: Fault = (world) => {
  const client = world.random.pick(world.clients);
  const gateway = world.random.pick(world.gateways);
  const ms = world.random.int(1, 150);
  between(world, client, gateway, (from, to) => (world.way(from, to).delayMs = ms), true);
};

const crash: Fault = (world) => {
  const name = world.random.pick(world.everyone());
  world.crash(name);
  world.after(healIn(world), () => world.start(name));
};

/** Killed in the middle of its next change of the kernel. */
const crashMidway: Fault = (world) => {
  const name = world.random.pick(world.clients);
  world.killAfter.set(name, world.random.int(1, 12));
};

const standstill: Fault = (world) => {
  const name = world.random.pick(world.everyone());
  world.stop(name, world.random.pick([60, 150, 300, 450, 1_000, 5_000]));
};

const uplink: Fault = (world) => {
  const name = world.random.pick(world.gateways);
  world.uplink(name, false);
  world.after(healIn(world), () => world.uplink(name, true));
};

const drain: Fault = (world) => {
  const name = world.random.pick(world.gateways);
  world.cordon(name, true);
  world.after(healIn(world), () => world.cordon(name, false));
};

const controllerDown: Fault = (world) => {
  world.controller.up = false;
  world.after(healIn(world), () => (world.controller.up = true));
};

const editIntent: Fault = (world) => world.editIntent();

const joins: Fault = (world) => {
  for (let i = world.random.int(1, 3); i > 0; i--) world.join();
};

const removeNode: Fault = (world) => world.removeOne();

/** The process of a link dies, with or without an agent that puts things back. */
const linkLost: Fault = (world) => world.loseLink(world.random.pick(world.clients));

/** Kinds that matter more stand more often. */
export const FAULTS: readonly Fault[] = [
  power,
  power,
  power,
  cut,
  cut,
  cut,
  outage,
  outage,
  loss,
  loss,
  delay,
  crash,
  crash,
  crashMidway,
  standstill,
  standstill,
  uplink,
  drain,
  drain,
  controllerDown,
  editIntent,
  editIntent,
  joins,
  removeNode,
  linkLost,
];
