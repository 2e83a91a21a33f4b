import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import { desiredKernel } from "../../mesh/kernel/desired.ts";
import type { SilentState } from "../../mesh/kernel/silent-drift.ts";
import type { DesiredInput, WgDevice, WgPeerSeen } from "../../mesh/kernel/types.ts";
import type { WgPublicKey } from "../../mesh/model/scalars.ts";
import { NO_ELECTIONS } from "../../node-agent/elections.ts";
import { createPeerKeeper } from "../../node-agent/peers.ts";
import type { Pass } from "../../node-agent/reconcile.ts";
import { eventually } from "./fake-controller.ts";
import { HOST, key, name, rawViews } from "./plans.ts";

const folder = mkdtempSync(join(tmpdir(), "isthmus-peers-"));
afterAll(() => rmSync(folder, { recursive: true }));

const plan = parsePlan(rawViews()).plan;
if (plan === undefined) throw new Error("no plan");
const input: DesiredInput = {
  plan,
  host: HOST,
  publicKey: key(1) as WgPublicKey,
  links: new Map([[name("g1"), 1]]),
  choices: new Map(),
  deadLinks: new Set(),
  dial: new Map(),
  lanChoices: new Map(),
};
const desired = desiredKernel(input);

const pass = (failures: Pass["failures"] = []): Pass => ({
  input,
  desired,
  elections: NO_ELECTIONS,
  before: NO_ELECTIONS,
  withoutLink: [],
  mute: [],
  failures,
  operations: 0,
  tookMs: 1,
});

/** WireGuard as it was written, with live sessions; `change` is someone else's. */
function devices(change: (peer: WgPeerSeen) => WgPeerSeen): Map<string, WgDevice> {
  const handshake = { latestHandshake: Math.floor(Date.now() / 1_000), rxBytes: 0, txBytes: 0, endpoint: "192.0.2.1:1" as never };
  return new Map(
    [...desired.state.wireguard].map(([one, link]) => [
      one,
      { ...link, peers: new Map([...link.peers].map(([k, peer]) => [k, change({ ...peer, ...handshake })])) },
    ]),
  );
}

interface World {
  last: Pass;
  change: (peer: WgPeerSeen) => WgPeerSeen;
  /** In the order in which they were suspected. */
  mute: readonly string[];
  /** Looks so far, and how many of them asked for the kernel to be put right. */
  looks: number;
  drifts: number;
}

async function withKeeper(work: (world: World, look: () => Promise<void>) => Promise<void>): Promise<void> {
  const world: World = { last: pass(), change: (peer) => peer, mute: [], looks: 0, drifts: 0 };
  const stop = new AbortController();
  const observeSilent = async (): Promise<SilentState> => {
    world.looks++;
    const seen = devices(world.change);
    for (const name of world.mute) {
      const device = seen.get(name);
      seen.delete(name);
      if (device !== undefined) seen.set(name, { ...device, mute: true });
    }
    return { wireguard: seen, sysctls: desired.state.sysctls };
  };
  const keeper = createPeerKeeper({
    kernel: { observeSilent },
    now: Date.now,
    file: join(folder, "endpoints"),
    lastPass: () => world.last,
    health: () => ({ links: new Map(), stalled: false, lan: new Map() }),
    also: () => {},
    onDial: () => {},
    onDrift: () => void world.drifts++,
    onReach: () => {},
    log: (line) => expect.fail(line),
  });
  const running = keeper.run(stop.signal);
  const look = async (): Promise<void> => {
    const before = world.looks;
    keeper.wake();
    // The one after it has ended when the next one begins.
    await eventually("two looks", () => world.looks > before + 1);
  };
  try {
    await work(world, look);
  } finally {
    stop.abort();
    await running;
  }
}

const withoutKeepalive = (peer: WgPeerSeen): WgPeerSeen => ({ ...peer, keepalive: 0 });

test("a change by someone else is told without any wake-up, and told again while it stands", async () => {
  await withKeeper(async (world, look) => {
    await look();
    expect(world.drifts).toBe(0);
    world.change = withoutKeepalive;
    await eventually("told twice", () => world.drifts > 1);
  });
});

test("what was mute at the last pass and still is needs no other one, in whatever order it fell silent", async () => {
  await withKeeper(async (world, look) => {
    const mute = [...desired.state.wireguard.keys()].sort();
    expect(mute.length).toBeGreaterThan(1);
    world.last = { ...pass(), mute };
    world.mute = mute.toReversed();
    await look();
    expect(world.drifts).toBe(0);
    world.mute = mute.slice(1);
    await eventually("one that speaks again is told", () => world.drifts > 0);
  });
});

test("what the kernel refuses to put back is told once; another change is told", async () => {
  await withKeeper(async (world, look) => {
    world.last = pass([{ op: { op: "nft.remove" }, ok: false }]);
    world.change = withoutKeepalive;
    await look();
    await look();
    expect(world.drifts).toBe(1);
    world.change = (peer) => ({ ...withoutKeepalive(peer), allowedIps: peer.publicKey === key(2) ? [] : peer.allowedIps, presharedKey: true });
    await look();
    expect(world.drifts).toBe(1);
    world.change = (peer) => (peer.publicKey === key(2) ? peer : withoutKeepalive(peer));
    await look();
    expect(world.drifts).toBe(2);
  });
});

test("what a pass wrote after the look was begun is no drift", async () => {
  await withKeeper(async (world, look) => {
    world.change = (peer) => {
      world.last = pass();
      return withoutKeepalive(peer);
    };
    await look();
    expect(world.drifts).toBe(0);
  });
});
