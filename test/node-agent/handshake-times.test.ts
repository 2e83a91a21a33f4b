import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import type { WgDevice, WgPeerSeen } from "../../mesh/kernel/types.ts";
import type { WgPublicKey } from "../../mesh/model/scalars.ts";
import { FRESH_MS } from "../../node-agent/dial.ts";
import { createDialer } from "../../node-agent/endpoints.ts";
import { createHandshakeTimes, DOUBT_MS, type HandshakeTimes } from "../../node-agent/handshake-times.ts";
import { rawViews } from "./plans.ts";

const DAY = 86_400;
const T = 1_700_000_000;
const FRESH = FRESH_MS / 1_000;
const DOUBT = DOUBT_MS / 1_000;

type Seen = ReadonlyMap<string, WgDevice>;
const NOTHING: Seen = new Map();
/** The machine with one peer, as WireGuard shows it. */
const devices = (latestHandshake: number, rxBytes = 0): Seen =>
  new Map([
    [
      "ism0",
      { listenPort: 1, fwmark: 0, publicKey: "own", peers: new Map([["k", { publicKey: "k", latestHandshake, rxBytes }]]) } as unknown as WgDevice,
    ],
  ]);
/** As it is shown while it does not answer: without any peers where it was never seen. */
const muted = (seen: Seen, unknown: boolean): Seen =>
  new Map([...seen].map(([name, device]) => [name, { ...device, ...(unknown ? { peers: new Map() } : {}), mute: true as const }]));
const handshakeOf = (seen: Seen): number => seen.get("ism0")?.peers.get("k" as never)?.latestHandshake ?? -1;

/** Seconds; `step` is what somebody added to the wall clock since the start. */
class Machine {
  seconds = 0;
  step = 0;
  readonly times: HandshakeTimes = createHandshakeTimes(() => ({ wall: (T + this.seconds + this.step) * 1_000, boot: (500 + this.seconds) * 1_000 }));
  /** Age of the last handshake, and whether the dialer takes the session for alive. */
  age(seconds: number, seen: Seen): number {
    this.seconds = seconds;
    return this.times.now() / 1_000 - handshakeOf(this.times.seen(seen));
  }
}

test("with a clock that nobody sets, times stay as WireGuard says them, and objects the same", () => {
  const machine = new Machine();
  machine.times.seen(NOTHING);
  machine.seconds = 6;
  const seen = devices(T + 5);
  expect(machine.times.seen(seen)).toBe(seen);
  expect(machine.age(10, devices(T + 5))).toBe(5);
  expect(machine.age(130, devices(T + 125))).toBe(5);
  expect(handshakeOf(machine.times.seen(devices(0)))).toBe(0);
  expect(machine.times.now()).toBe((T + 130) * 1_000);
});

test.each([
  ["ahead", DAY],
  ["back", -DAY],
])("a clock that is set a day %s makes no session older or younger, and time goes on", (_, step) => {
  const machine = new Machine();
  machine.times.seen(NOTHING);
  expect(machine.age(6, devices(T + 5))).toBe(1);
  machine.step = step;
  expect(machine.age(7, devices(T + 5))).toBe(2);
  expect(machine.times.now()).toBe((T + 7) * 1_000);
  // The next handshake is told by the new clock.
  expect(machine.age(66, devices(T + 65 + step))).toBe(1);
  // One that stays away is missed all the same.
  expect(machine.age(600, devices(T + 65 + step))).toBe(535);
});

test.each([
  ["ahead", -DAY],
  ["behind", DAY],
])("of a device that the agent made itself no handshake is older than the last look, or to come, with a clock a day %s of WireGuard's", (_, told) => {
  const machine = new Machine();
  machine.times.seen(NOTHING);
  const age = machine.age(3, devices(T + 2 + told));
  expect(age).toBeGreaterThanOrEqual(0);
  expect(age).toBeLessThanOrEqual(4);
  expect(machine.age(63, devices(T + 2 + told)) - age).toBe(60);
});

test("a peer that was written anew has no handshake of before", () => {
  const machine = new Machine();
  machine.times.seen(devices(T - 1));
  machine.age(10, devices(0));
  machine.step = -DAY;
  expect(machine.age(11, devices(T + 10 - DAY))).toBeLessThanOrEqual(2);
});

test("of before the agent a recent time is believed, and one to come is now", () => {
  expect(new Machine().age(0, devices(T - 100))).toBe(100);
  const machine = new Machine();
  expect(machine.age(0, devices(T + DAY))).toBe(0);
  expect(machine.age(60, devices(T + DAY))).toBe(60);
});

test("of before the agent an old time alone gives no session up for one keepalive interval, and then it is believed", () => {
  const machine = new Machine();
  expect(machine.age(0, devices(T - DAY, 7))).toBeLessThan(FRESH);
  expect(machine.age(DOUBT - 1, devices(T - DAY, 7))).toBeLessThan(FRESH);
  expect(machine.age(DOUBT, devices(T - DAY, 7))).toBe(DAY + DOUBT);
});

test("of before the agent a session lives for as long as something comes over it, whatever day WireGuard says", () => {
  const machine = new Machine();
  for (let at = 0; at < 120; at += 25) {
    expect(machine.age(at, devices(T - DAY, 7 + at))).toBeLessThan(FRESH);
    expect(machine.age(at + 24, devices(T - DAY, 7 + at))).toBeLessThan(FRESH);
  }
  // The handshake that renews it ends the doubt.
  expect(machine.age(130, devices(T + 129, 200))).toBe(1);
  expect(machine.age(129 + FRESH, devices(T + 129, 300))).toBe(FRESH);
});

test("of an interface that is mute while the agent starts, the handshakes of before the agent are not taken for new ones", () => {
  const machine = new Machine();
  const told = devices(T - 3_600, 7);
  machine.times.seen(muted(told, true));
  expect(machine.age(5, told)).toBeLessThan(FRESH);
  expect(machine.age(5 + DOUBT, told)).toBe(3_600 + 5 + DOUBT);
});

test("an interface that is mute for a while keeps the ages that it had, and a handshake of meanwhile has its own", () => {
  const machine = new Machine();
  machine.times.seen(NOTHING);
  expect(machine.age(6, devices(T + 5))).toBe(1);
  machine.step = DAY;
  expect(machine.age(20, muted(devices(T + 5), false))).toBe(15);
  machine.seconds = 30;
  machine.times.seen(muted(devices(T + 5), true));
  expect(machine.age(40, devices(T + 5))).toBe(35);
  machine.times.seen(muted(devices(T + 5), false));
  machine.seconds = 90;
  machine.times.seen(muted(devices(T + 5), false));
  expect(machine.age(100, devices(T + DAY + 60))).toBe(40);
});

test("an agent that starts beside live sessions, whose times are those of another day, resets none of them and dials nobody else", () => {
  const machine = new Machine();
  const { plan } = parsePlan(rawViews());
  if (plan === undefined) throw new Error("no plan");
  const folder = mkdtempSync(join(tmpdir(), "ist-times-"));
  const dialer = createDialer(join(folder, "endpoints"), (line) => expect.fail(line));
  /** What WireGuard says, and the keepalives that came by then. */
  const round = (seconds: number, latestHandshake: number, rxBytes: number): number => {
    machine.seconds = seconds;
    const peers = [...plan.peers.values()].map(({ k, e }): [WgPublicKey, WgPeerSeen] => [
      k,
      { publicKey: k, allowedIps: [], keepalive: 25, latestHandshake, rxBytes, txBytes: 0, ...(e[0] === undefined ? {} : { endpoint: e[0] }) },
    ]);
    const seen = machine.times.seen(new Map([["ism0", { listenPort: 1, fwmark: 0, publicKey: "own" as WgPublicKey, peers: new Map(peers) }]]));
    return dialer.round(plan, new Map(), new Set([4]), new Map([...seen].map(([name, one]) => [name, one.peers])), machine.times.now()).resets.length;
  };
  for (let at = 0; at < 115; at += 5) expect(round(at, T - DAY, 100 + Math.floor(at / 25))).toBe(0);
  expect(round(115, T + 114, 200)).toBe(0);
  // It falls silent: what was proven has a turn of its own, then the session starts anew.
  for (let at = 120; at < 114 + FRESH; at += 5) expect(round(at, T + 114, 200)).toBe(0);
  expect(round(114 + FRESH, T + 114, 200)).toBe(0);
  expect(round(114 + FRESH + 5, T + 114, 200)).toBeGreaterThan(0);
  dialer.flush();
  rmSync(folder, { recursive: true });
});
