/**
 * Health that is hard to fool (DATAPLANE §3): neither the client's own stall, nor a long way, nor the gateway's agent moves
 * anything; a gateway that does not forward is left at once, although it lives. Needs root.
 */
import { execa } from "execa";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { installService } from "../../lab/machine.ts";
import { hostPaths, netnsName, WORLD } from "../../lab/names.ts";
import { eventually, netnsScript } from "../../lab/shell.ts";
import type { EventRecord } from "../../mesh/model/answers.ts";
import { ownClock, setClock } from "./clock.ts";
import { watchHeld } from "./held.ts";
import { conditionOf, egress, forgetFlaps, INTERNET, type Plane, planeUp, settled, steady } from "./plane.ts";

const NAME = `t-${process.pid}-ks`;
const CLIENT = "datacenter1";
const DAY = 24 * 3_600_000;
const DELAY = fileURLToPath(new URL("delay.py", import.meta.url));

let plane: Plane;

beforeAll(async () => {
  plane = await planeUp(NAME, { manifests: false });
  await plane.apply(egress());
}, 120_000);

afterAll(async () => plane.down());

beforeEach(async () => {
  await settled(plane);
  await forgetFlaps(plane, CLIENT);
  await steady(plane, CLIENT, "do1");
}, 90_000);

const sleep = async (ms: number): Promise<void> => new Promise((wake) => setTimeout(wake, ms));

/** The choice stays what it was, since when it was, and no packet is lost. */
async function nothingMoves(work: () => Promise<void>): Promise<void> {
  const before = await steady(plane, CLIENT, "do1");
  const stream = await plane.lab.startGapStream({ from: CLIENT, to: INTERNET, protocol: "udp", intervalMs: 20 });
  await work();
  // A wrong verdict would be acted upon within this time.
  await sleep(700);
  const after = await eventually("the agent answers", 30_000, async () =>
    (await plane.status(CLIENT).catch(() => undefined))?.paths.find(({ id }) => id === "egress/internet"),
  );
  const report = await stream.stop();
  expect([after.active, after.reason]).toEqual([before.active, before.reason]);
  expect(Math.abs(after.since - before.since)).toBeLessThan(50);
  expect(report.lost).toBe(0);
}

describe("nothing moves", () => {
  test.each([300, 1_000, 5_000])("when the client's agent is stopped for %i ms", async (ms) => {
    await nothingMoves(async () => {
      await plane.lab.signal(CLIENT, "SIGSTOP");
      await sleep(ms);
      await plane.lab.signal(CLIENT, "SIGCONT");
    });
  });

  test("when the client's agent gets a tenth of the processor", async () => {
    await nothingMoves(async () => {
      for (let i = 0; i < 40; i++) {
        await plane.lab.signal(CLIENT, "SIGSTOP");
        await sleep(90);
        await plane.lab.signal(CLIENT, "SIGCONT");
        await sleep(10);
      }
    });
  });

  test("when the way to the gateway becomes 250 ms long", async () => {
    const stop = await delayTo(plane.addressOf("do1"), 250);
    try {
      const before = await steady(plane, CLIENT, "do1");
      const link = await eventually("the link's round trip is known", 30_000, async () => {
        const found = (await plane.status(CLIENT)).links.find(({ gateway }) => gateway === "do1");
        return (found?.rttMs ?? 0) > 200 ? found : undefined;
      });
      expect(link.verdict).toBe("Up");
      const after = await steady(plane, CLIENT, "do1");
      expect([after.active, Math.abs(after.since - before.since) < 50]).toEqual([before.active, true]);
    } finally {
      await stop();
    }
  });

  test("when the clocks of client and gateway are set a day ahead and a day back while their agents run; a gateway that dies is left", async () => {
    const nodes = [CLIENT, "do1"];
    const services = await Promise.all(
      nodes.map(async (node) => [node, await readFile(`${hostPaths(NAME, node).lib}/lab/service`, "utf8")] as const),
    );
    const clocks = async (offsets: Readonly<Record<string, number>>): Promise<void> => {
      for (const [node, offset] of Object.entries(offsets)) await setClock(plane.lab, node, offset);
    };
    const says = async (node: string, what: RegExp): Promise<true> =>
      eventually(`${node} says of its clock: ${what.source}`, 30_000, async () =>
        what.test((await plane.status(node)).conditions.find(({ type }) => type === "ClockWrong")?.message ?? "right") ? true : undefined,
      );
    try {
      for (const [node, script] of services) await installService(NAME, node, `${await ownClock(plane.lab, node, 0)}${script}`);
      await forgetFlaps(plane, ...nodes);
      await eventually("both agents have all that they had", 30_000, async () => {
        const all = await Promise.all(nodes.map((node) => plane.status(node)));
        const whole = all.every(
          ({ controller, conditions, links }) => controller.connected && conditions.length === 0 && links.every(({ verdict }) => verdict === "Up"),
        );
        return whole ? true : undefined;
      });
      await settled(plane);
      await nothingMoves(async () => {
        const began = Date.now();
        const heldBy = watchHeld(plane);
        const before = await Promise.all(nodes.map(heldBy));
        for (const [ahead, behind] of [nodes, nodes.toReversed()] as [string, string][]) {
          await clocks({ [ahead]: DAY, [behind]: -DAY });
          // Sessions are judged each 5 s, and one that is taken for dead is dialed elsewhere after 5 s more.
          await Promise.all([says(ahead, /ahead of/), says(behind, /behind/), sleep(11_000)]);
          expect(await Promise.all(nodes.map(heldBy))).toEqual(before);
        }
        await clocks({ [CLIENT]: 0, do1: 0 });
        await Promise.all(nodes.map((node) => says(node, /^right$/)));
        const { items } = (await plane.controller.call("GET", `/v1/events?since=${began}`)) as { items: EventRecord[] };
        // That they are ready again after their start above may be told late.
        expect(items.filter(({ reason }) => reason !== "NodeReady")).toEqual([]);
      });
      // Nor does it hold up what is to move.
      await clocks({ [CLIENT]: -DAY });
      await plane.lab.fail("link", CLIENT, "do1");
      await plane.becomes("do2 carries, with a clock that was set back", CLIENT, plane.addressOf("do2"));
    } finally {
      await clocks({ [CLIENT]: 0, do1: 0 });
      for (const [node, script] of services) await installService(NAME, node, script);
    }
  });

  test("when the gateway's agent is killed with its whole control group, stays away for a while and comes back", async () => {
    await nothingMoves(async () => {
      await plane.lab.crash("do1");
      await plane.lab.fail("agent", "do1");
      await sleep(1_500);
      await plane.lab.heal("agent");
      await eventually("the gateway's agent answers", 30_000, async () => plane.status("do1").catch(() => undefined), { everyMs: 100 });
    });
  });
});

describe("a gateway that does not forward is left", () => {
  test("when another table drops what is forwarded; the condition names table and chain", async () => {
    await plane.sh("do1", "nft add table ip docker; nft add chain ip docker FORWARD '{ type filter hook forward priority 0; policy drop; }'");
    const started = performance.now();
    try {
      await eventually("do2 is used", 20_000, async () =>
        (await plane.status(CLIENT)).paths.find(({ id }) => id === "egress/internet")?.active[0] === "do2" ? true : undefined,
      );
      console.log(`left after ${Math.round(performance.now() - started)} ms`);
      expect(await plane.seenFrom(CLIENT)).toBe(plane.addressOf("do2"));
      const condition = await conditionOf(plane, "meshnodes", "do1", "ForwardingBlocked", ({ status }) => status === "True");
      expect(condition.message).toContain("table ip docker, chain FORWARD");
      console.log(`said after ${Math.round(performance.now() - started)} ms`);
      expect(await plane.cli("describe", "node", "do1")).toMatch(/ForwardingBlocked.*table ip docker, chain FORWARD/);
    } finally {
      await plane.sh("do1", "nft delete table ip docker");
    }
    await eventually("the condition is gone", 30_000, async () => {
      const conditions = (await plane.object("meshnodes", "do1")).status?.conditions ?? [];
      return conditions.some(({ type, status }) => type === "ForwardingBlocked" && status === "True") ? undefined : true;
    });
  });

  test("when ip_forward is 0 and nobody is there to put it back; a living agent does", async () => {
    await plane.lab.fail("agent", "do1");
    await plane.sh("do1", "echo 0 >/proc/sys/net/ipv4/ip_forward");
    const started = performance.now();
    await eventually("do2 is used", 20_000, async () =>
      (await plane.status(CLIENT)).paths.find(({ id }) => id === "egress/internet")?.active[0] === "do2" ? true : undefined,
    );
    console.log(`left after ${Math.round(performance.now() - started)} ms`);
    await plane.lab.heal("agent");
    const forwards = async (): Promise<true | undefined> =>
      (await plane.sh("do1", "cat /proc/sys/net/ipv4/ip_forward")).trim() === "1" ? true : undefined;
    await eventually("the agent forwards again", 30_000, forwards, { everyMs: 50 });
    await steady(plane, CLIENT, "do1");
    await plane.sh("do1", "echo 0 >/proc/sys/net/ipv4/ip_forward");
    const again = performance.now();
    await eventually("the living agent put it back", 10_000, forwards);
    console.log(`put back after ${Math.round(performance.now() - again)} ms`);
  });
});

describe("a wireguard-go that hangs", () => {
  const processOf = async (link: string): Promise<string> => (await plane.sh(CLIENT, `pgrep -f 'wireguard-go -f [i]${link.slice(1)}$'`)).trim();
  const carries = async (gateway: string): Promise<true | undefined> =>
    (await plane.status(CLIENT)).paths.find(({ id }) => id === "egress/internet")?.active[0] === gateway ? true : undefined;
  const madeAnew = async (link: string, before: string): Promise<void> => {
    await eventually("another process has taken its place, and nothing is said any more", 60_000, async () => {
      const pid = await processOf(link).catch(() => "");
      return pid !== "" && pid !== before && !(await plane.status(CLIENT)).conditions.some(({ type }) => type === "WireGuardMute") ? true : undefined;
    });
  };

  test("of an interface that a path does not use lets traffic leave a gateway that dies; the condition names it, and it is made anew", async ({
    skip,
  }) => {
    skip((await plane.status(CLIENT)).wireguard === "kernel", "the kernel has WireGuard: there is no process");
    const pid = await processOf("ism0");
    await plane.sh(CLIENT, `kill -STOP ${pid}`);
    await eventually("the condition names it", 30_000, async () =>
      (await plane.status(CLIENT)).conditions.find(({ type, message }) => type === "WireGuardMute" && message?.includes("ism0")),
    );
    await plane.lab.fail("node", "do1");
    const started = performance.now();
    await eventually("do2 carries", 30_000, async () => carries("do2"));
    console.log(`left after ${Math.round(performance.now() - started)} ms`);
    await madeAnew("ism0", pid);
  });

  test("of the link in use is a link that is dead", async ({ skip }) => {
    skip((await plane.status(CLIENT)).wireguard === "kernel", "the kernel has WireGuard: there is no process");
    const link = (await plane.status(CLIENT)).links.find(({ gateway }) => gateway === "do1")?.interface ?? "none";
    const pid = await processOf(link);
    await plane.sh(CLIENT, `kill -STOP ${pid}`);
    const started = performance.now();
    await eventually("do2 carries", 30_000, async () => carries("do2"));
    console.log(`left after ${Math.round(performance.now() - started)} ms`);
    await madeAnew(link, pid);
  });
});

describe("a gateway that healed", () => {
  test("waits out its quiet time, which grows with every flap, and explain says until when", async () => {
    await plane.apply(egress({ health: { holdDown: "4s" } }));
    await plane.lab.fail("controller");
    await plane.lab.fail("node", "do1");
    await plane.becomes("do2 carries", CLIENT, plane.addressOf("do2"));
    await plane.lab.heal("node", "do1");
    const waiting = await eventually("explain says that it waits", 30_000, async () => {
      const { candidates } = await plane.explain(CLIENT, INTERNET);
      return candidates.find(({ node, why }) => node === "do1" && why === "HoldDown");
    });
    expect(waiting.message).toMatch(/answers again and counts as up in [0-9.]+ s/);
    await steady(plane, CLIENT, "do1");
    await settled(plane);
    await plane.apply(egress());
  });
});

/** Sends what goes from the datacenter to the address by a detour that takes so long. */
async function delayTo(address: string, ms: number): Promise<() => Promise<void>> {
  const world = netnsName(NAME, WORLD);
  const child = execa("ip", ["netns", "exec", world, "python3", DELAY, "slow", String(ms)], { reject: false, stdin: "ignore", buffer: false });
  await new Promise<void>((ready) => void child.stdout.once("data", () => ready()));
  await netnsScript(
    world,
    `ip link set slow up; ip route add default dev slow table 250; ip rule add pref 100 iif w-dc-router to ${address} lookup 250`,
  );
  return async () => {
    await netnsScript(world, `ip rule del pref 100`);
    child.kill("SIGKILL");
    await child;
  };
}
