import { createServer as createHttpServer } from "node:http";
import { createServer, type AddressInfo, type Server } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { GatewayHealth, UplinkCheck } from "../../../mesh/model/health.ts";
import type { PathId, ServePlan } from "../../../mesh/model/plan.ts";
import type { IpAddress } from "../../../mesh/model/scalars.ts";
import { createCheck, type Check } from "../../../node-agent/probe/check.ts";
import { monotonic } from "../../../node-agent/probe/clock.ts";
import { createLanMonitor } from "../../../node-agent/probe/lan-health.ts";
import { spawnLines, type SpawnLines } from "../../../node-agent/drivers/exec.ts";
import { createPing } from "../../../node-agent/probe/ping.ts";
import { createUplinkMonitor } from "../../../node-agent/probe/uplink.ts";
import { eventually } from "./eventually.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

/** `ping` as lines that a test writes: replies for every address that is alive. */
function fakePing(alive: Set<string>): { spawn: SpawnLines; started: string[]; running: () => number } {
  const started: string[] = [];
  let running = 0;
  const spawn: SpawnLines = (_cmd, args, onLine) => {
    const address = args.at(-1)!;
    started.push(address);
    running++;
    let seq = 0;
    const timer = setInterval(() => {
      seq++;
      onLine(alive.has(address) ? `24 bytes from ${address}: icmp_seq=${seq} ttl=64 time=0.02 ms` : `no answer yet for icmp_seq=${seq}`);
    }, 20);
    const close = (): void => {
      clearInterval(timer);
      running--;
    };
    return { close };
  };
  return { spawn, started, running: () => running };
}

const serve = (uplink: object[], holdDownMs = 5_000): ServePlan => ({
  snat: { type: "Masquerade" },
  uplink: uplink.map((check) => UplinkCheck.parse(check)),
  uplinkIntervalMs: 20,
  threshold: 3,
  holdDownMs,
});
const listen = async (server: Server): Promise<number> => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanups.push(() => new Promise((resolve) => server.close(resolve)));
  return (server.address() as AddressInfo).port;
};

describe("uplinks", () => {
  test("a path is down when all of its checks fail, and up again after a quiet second", async () => {
    const alive = new Set(["192.0.2.1", "192.0.2.2"]);
    const { spawn, started } = fakePing(alive);
    const monitor = createUplinkMonitor({ spawn, clock: monotonic });
    cleanups.push(() => monitor.close());
    const icmp = (address: string): object => ({ type: "icmp", icmp: { address } });
    monitor.setServes(
      new Map<PathId, ServePlan>([
        ["egress/both", serve([icmp("192.0.2.1"), icmp("192.0.2.2")])],
        ["egress/one", serve([icmp("192.0.2.1")])],
        ["egress/none", serve([])],
      ]),
    );
    expect(started.toSorted()).toEqual(["192.0.2.1", "192.0.2.2"]);
    expect(monitor.settled()).toBe(false);
    await eventually(() => expect(monitor.settled()).toBe(true));
    expect(monitor.downPaths()).toEqual([]);
    let told = 0;
    monitor.onChange(() => told++);
    alive.delete("192.0.2.1");
    await eventually(() => expect(monitor.downPaths()).toEqual(["egress/one"]));
    alive.delete("192.0.2.2");
    await eventually(() => expect(monitor.downPaths()).toEqual(["egress/both", "egress/one"]));
    expect(told).toBe(2);
    alive.add("192.0.2.2");
    await eventually(() => expect(monitor.downPaths()).toEqual(["egress/one"]));
  });

  test("without a hold-down an uplink that is back is used at once, however often it flaps", async () => {
    const alive = new Set(["192.0.2.1"]);
    const monitor = createUplinkMonitor({ spawn: fakePing(alive).spawn, clock: monotonic });
    cleanups.push(() => monitor.close());
    monitor.setServes(new Map<PathId, ServePlan>([["egress/a", serve([{ type: "icmp", icmp: { address: "192.0.2.1" } }], 0)]]));
    await eventually(() => expect(monitor.settled()).toBe(true));
    // A quiet second that doubles would be sixteen by then.
    for (let i = 0; i < 5; i++) {
      alive.delete("192.0.2.1");
      await eventually(() => expect(monitor.downPaths()).toEqual(["egress/a"]));
      alive.add("192.0.2.1");
      await eventually(() => expect(monitor.downPaths()).toEqual([]));
    }
  });

  test("a check whose target never answered does take the path down, once the first deadlines have passed", async () => {
    const { spawn } = fakePing(new Set());
    const monitor = createUplinkMonitor({ spawn, clock: monotonic });
    cleanups.push(() => monitor.close());
    monitor.setServes(new Map<PathId, ServePlan>([["egress/a", serve([{ type: "icmp", icmp: { address: "192.0.2.1" } }])]]));
    expect(monitor.downPaths()).toEqual([]);
    await eventually(() => expect(monitor.downPaths()).toEqual(["egress/a"]));
  });

  test("TCP and HTTP checks see a server come and go", async () => {
    const tcp = createServer((socket) => socket.destroy());
    const port = await listen(tcp);
    let status = 200;
    const http = createHttpServer((_request, response) => response.writeHead(status).end());
    const httpPort = await listen(http);
    const monitor = createUplinkMonitor({ spawn: fakePing(new Set()).spawn, clock: monotonic });
    cleanups.push(() => monitor.close());
    monitor.setServes(
      new Map<PathId, ServePlan>([
        ["egress/tcp", serve([{ type: "tcp", tcp: { address: "127.0.0.1", port } }])],
        ["egress/http", serve([{ type: "http", http: { address: "127.0.0.1", port: httpPort } }])],
      ]),
    );
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(monitor.downPaths()).toEqual([]);
    status = 503;
    await eventually(() => expect(monitor.downPaths()).toEqual(["egress/http"]));
    await new Promise((resolve) => tcp.close(resolve));
    await eventually(() => expect(monitor.downPaths()).toEqual(["egress/http", "egress/tcp"]));
  });

  test("checks that nobody wants any more end", () => {
    const { spawn, running } = fakePing(new Set());
    const monitor = createUplinkMonitor({ spawn, clock: monotonic });
    monitor.setServes(new Map<PathId, ServePlan>([["egress/a", serve([{ type: "icmp", icmp: { address: "192.0.2.1" } }])]]));
    expect(running()).toBe(1);
    monitor.setServes(new Map());
    expect(running()).toBe(0);
    monitor.close();
  });
});

describe("LAN gateways", () => {
  test("icmp judges each gateway by itself; none and agent are taken at their word", async () => {
    const [a, b] = ["192.0.2.1", "192.0.2.2"] as IpAddress[] as [IpAddress, IpAddress];
    const alive = new Set<string>([a, b]);
    const { spawn, started } = fakePing(alive);
    const monitor = createLanMonitor({ spawn, clock: monotonic, agentOf: (gateway) => (gateway === a ? { verdict: "Down", since: 7 } : undefined) });
    cleanups.push(() => monitor.close());
    const health = GatewayHealth.parse({ interval: "20ms", holdDown: "100ms" });
    monitor.setRoutes(
      new Map([
        ["lanroute/icmp", { gateways: [a, b], health }],
        ["lanroute/same", { gateways: [a], health }],
        ["lanroute/none", { gateways: [a], health: GatewayHealth.parse({ type: "none" }) }],
        ["lanroute/agent", { gateways: [a, b], health: GatewayHealth.parse({ type: "agent" }) }],
      ]),
    );
    expect(started.toSorted()).toEqual([a, b]);
    const verdicts = (id: string): string[] => [...monitor.health(id).values()].map(({ verdict }) => verdict);
    await eventually(() => expect(verdicts("lanroute/icmp")).toEqual(["Up", "Up"]));
    alive.delete(a);
    await eventually(() => expect(verdicts("lanroute/icmp")).toEqual(["Down", "Up"]));
    expect(verdicts("lanroute/same")).toEqual(["Down"]);
    alive.add(a);
    await eventually(() => expect(verdicts("lanroute/icmp")).toEqual(["Up", "Up"]));
    expect(verdicts("lanroute/none")).toEqual(["Up"]);
    expect(verdicts("lanroute/agent")).toEqual(["Down", "Unknown"]);
    expect(monitor.health("lanroute/unknown").size).toBe(0);
  });
});

describe("an ICMP check", () => {
  const CONFIG = { intervalMs: 60_000, threshold: 3, holdDownMs: 0 };
  /** A check whose `ping` says what the test says; its interval is so long that nothing but the lines is judged. */
  function scripted(config = CONFIG): { check: Check; say: (line: string) => void; restart: () => Promise<void> } {
    let starts = 0;
    let say: (line: string) => void = () => {};
    let restart: () => void = () => {};
    const spawn: SpawnLines = (_cmd, _args, onLine, onExit) => {
      starts++;
      say = onLine;
      restart = () => onExit("exit status 1");
      return { close() {} };
    };
    const check = createCheck({ type: "icmp", address: "192.0.2.1" }, config, { spawn, clock: monotonic }, () => {});
    cleanups.push(() => check.close());
    return {
      check,
      say: (line) => say(line),
      restart: async () => {
        const before = starts;
        restart();
        await eventually(() => expect(starts).toBeGreaterThan(before));
      },
    };
  }
  const reply = (seq: number, ms = 0.4): string => `24 bytes from 192.0.2.1: icmp_seq=${seq & 0xffff} ttl=64 time=${ms} ms`;
  const late = (seq: number): string => `no answer yet for icmp_seq=${seq & 0xffff}`;

  test("goes down with the third request in a row that nobody answered, in the moment in which `ping` says so", () => {
    const { check, say } = scripted();
    for (const line of [reply(1), late(2), reply(3), late(4), late(5)]) say(line);
    expect(check.health.verdict).toBe("Up");
    say("From 192.0.2.9 icmp_seq=6 Destination Host Unreachable");
    expect(check.health.verdict).toBe("Down");
  });

  test("takes the round trip from `ping`, not from when its line was read", async () => {
    const { check, say } = scripted({ ...CONFIG, intervalMs: 100 });
    say(reply(1, 7.5));
    await new Promise((resolve) => setTimeout(resolve, 60));
    say(reply(2, 7.5));
    expect(check.health.srttMs).toBeCloseTo(7.5, 1);
  });

  test("an answer that comes after the next request proves life", () => {
    const { check, say } = scripted();
    for (const line of [reply(1), late(2), late(3), reply(2), late(4), late(5)]) say(line);
    expect(check.health.verdict).toBe("Up");
  });

  test("goes on where the numbers of `ping` begin anew, by wrapping round or by a new `ping`", async () => {
    const { check, say, restart } = scripted();
    for (const line of [reply(65_534), reply(65_535), late(65_536), late(65_537), reply(65_538), late(65_539), late(65_540)]) say(line);
    expect(check.health.verdict).toBe("Up");
    await restart();
    expect(check.health.missed).toBe(2);
    say(reply(1));
    expect(check.health.missed).toBe(0);
    for (const line of [late(2), late(3), late(4)]) say(line);
    expect(check.health.verdict).toBe("Down");
  });

  test("goes down when `ping` says nothing at all", async () => {
    const { check, say } = scripted({ ...CONFIG, intervalMs: 20 });
    say(reply(1));
    expect(check.health.verdict).toBe("Up");
    await eventually(() => expect(check.health.verdict).toBe("Down"));
  });
});

describe("the real ping", () => {
  const QUIET = { onStart: () => {}, onReply: () => {}, onLate: () => {} };

  test("its replies are heard while it runs, and it ends when closed", async () => {
    let replies = 0;
    const ping = createPing({ ...QUIET, spawn: spawnLines, address: "127.0.0.1", intervalMs: 50, onReply: () => replies++ });
    cleanups.push(() => ping.close());
    await eventually(() => expect(replies).toBeGreaterThan(3));
    ping.close();
    const after = replies;
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(replies).toBe(after);
  });

  test("one that ends is started again, with a pause that grows", async () => {
    const starts: number[] = [];
    const spawn: SpawnLines = (_cmd, _args, _onLine, onExit) => {
      starts.push(monotonic.now());
      setImmediate(() => onExit("exit status 2"));
      return { close() {} };
    };
    const ping = createPing({ ...QUIET, spawn, address: "192.0.2.1", intervalMs: 100 });
    cleanups.push(() => ping.close());
    await eventually(() => expect(starts.length).toBe(4));
    const pauses = starts.slice(1).map((at, i) => at - starts[i]!);
    expect(pauses[1]!).toBeGreaterThan(pauses[0]! * 1.3);
    expect(pauses[2]!).toBeGreaterThan(pauses[1]! * 1.3);
  });
});
