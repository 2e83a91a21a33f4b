import { fork, type ChildProcess } from "node:child_process";
import { createSocket } from "node:dgram";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import type { IpAddress, NodeName } from "../../../mesh/model/scalars.ts";
import { monotonic } from "../../../node-agent/probe/clock.ts";
import { createProber, type Prober } from "../../../node-agent/probe/prober.ts";
import { eventually } from "./eventually.ts";

const here = import.meta.dirname;
const port = 20_000 + (process.pid % 20_000);
const client = "127.77.0.1" as IpAddress;
const gateways = ["127.77.1.1", "127.77.1.2", "127.77.1.3"] as IpAddress[];
const target = (i: number, intervalMs = 100, holdDownMs = 1_000): Parameters<Prober["setTargets"]>[0][number] => ({
  node: `gw${i + 1}` as NodeName,
  address: gateways[i]!,
  intervalMs,
  threshold: 3,
  holdDownMs,
});

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

interface Echo {
  set(gateway: number, delay: number | undefined): void;
}

async function startEcho(): Promise<Echo> {
  const child = await start("echo-process.ts", [String(port), ...gateways], (message) => message === "ready");
  return { set: (gateway, delay) => child.send({ address: gateways[gateway], ...(delay === undefined ? {} : { delay }) }) };
}

async function start(file: string, args: string[], isReady: (message: unknown) => boolean): Promise<ChildProcess> {
  const child = fork(join(here, file), args, { execArgv: [] });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  cleanups.push(() => (child.kill("SIGKILL"), ended));
  await new Promise<void>((resolve, reject) => {
    const listen = (message: unknown): void => {
      if (!isReady(message)) return;
      child.off("message", listen);
      resolve();
    };
    child.on("message", listen);
    child.once("exit", (code) => reject(new Error(`${file} ended with ${code}`)));
  });
  return child;
}

function startProber(targets: Parameters<Prober["setTargets"]>[0]): Prober {
  const prober = createProber({ bind: client, echoPort: port, clock: monotonic });
  cleanups.push(() => prober.close());
  prober.setTargets(targets);
  return prober;
}

const verdicts = (prober: Prober): string[] => [...prober.links().values()].map(({ verdict }) => verdict);

describe("the prober", () => {
  test("finds who answers, who does not, and who stops", async () => {
    const echo = await startEcho();
    echo.set(2, undefined);
    const prober = startProber([target(0), target(1), target(2)]);
    expect(verdicts(prober)).toEqual(["Unknown", "Unknown", "Unknown"]);
    await eventually(() => expect(verdicts(prober)).toEqual(["Up", "Up", "Down"]));
    expect(prober.links().get("gw1" as NodeName)?.srttMs).toBeLessThan(50);
    echo.set(0, undefined);
    const before = monotonic.now();
    await eventually(() => expect(verdicts(prober)[0]).toBe("Down"));
    expect(monotonic.now() - before).toBeGreaterThan(150);
    expect(prober.stalled()).toBe(false);
    echo.set(0, 0);
    await eventually(() => expect(prober.links().get("gw1" as NodeName)?.holdDownUntil).toBeDefined());
    await eventually(() => expect(verdicts(prober)[0]).toBe("Up"));
  });

  test("a dead gateway that answers again is asked quickly until it has answered often enough", async () => {
    const [intervalMs, holdDownMs] = [600, 60_000];
    const echo = await startEcho();
    const prober = startProber([target(0, intervalMs, holdDownMs), target(1, intervalMs, holdDownMs)]);
    await eventually(() => expect(verdicts(prober)).toEqual(["Up", "Up"]));
    echo.set(0, undefined);
    await eventually(() => expect(verdicts(prober)[0]).toBe("Down"));
    const afterFirstAnswer = new Promise<number>((resolve) =>
      prober.onChange(() => {
        const until = prober.links().get("gw1" as NodeName)?.holdDownUntil;
        if (until !== undefined) resolve(monotonic.now() - (until - holdDownMs));
      }),
    );
    echo.set(0, 0);
    // Three answers are two intervals apart where nobody hurries.
    expect(await afterFirstAnswer).toBeLessThan(intervalMs);
  });

  test("all silent is a stall of ours, told once, and over with the first answers", async () => {
    const echo = await startEcho();
    const prober = startProber([target(0), target(1)]);
    await eventually(() => expect(verdicts(prober)).toEqual(["Up", "Up"]));
    const seen: string[] = [];
    prober.onChange(() => seen.push(`${verdicts(prober).join()} ${prober.stalled()}`));
    echo.set(0, undefined);
    echo.set(1, undefined);
    await eventually(() => expect(prober.stalled()).toBe(true));
    await wait(500);
    echo.set(1, 0);
    await wait(60);
    echo.set(0, 0);
    await eventually(() => expect(prober.stalled()).toBe(false));
    await wait(600);
    expect(verdicts(prober)).toEqual(["Up", "Up"]);
    expect(seen.filter((line) => line.includes("Down"))).toEqual([]);
  });

  test("who is told that it came late itself hears when that is over, also where no verdict changed", async () => {
    await startEcho();
    const prober = startProber([target(0), target(1)]);
    await eventually(() => expect(verdicts(prober)).toEqual(["Up", "Up"]));
    const told: boolean[] = [];
    prober.onChange(() => told.push(prober.stalled()));
    for (const until = monotonic.now() + 220; monotonic.now() < until;) Math.sqrt(until);
    // The late timer runs first, before anyone who waits for a turn of the loop.
    await new Promise((turn) => setTimeout(turn, 1));
    expect(prober.stalled()).toBe(true);
    await eventually(() => expect(told).toEqual([false]));
  });

  test("an answer after 250 ms every time is Up", async () => {
    const echo = await startEcho();
    echo.set(0, 250);
    const prober = startProber([target(0), target(1)]);
    await eventually(() => expect(verdicts(prober)).toEqual(["Up", "Up"]));
    const seen: string[] = [];
    prober.onChange(() => seen.push(verdicts(prober).join()));
    await wait(1_500);
    expect(seen).toEqual([]);
    expect(prober.links().get("gw1" as NodeName)?.srttMs).toBeGreaterThan(200);
  });

  test("forged answers count for nothing", async () => {
    const forger = createSocket("udp4");
    cleanups.push(() => forger.close());
    let asked = 0;
    forger.on("message", (message, from) => {
      asked++;
      const forged = Buffer.from(message);
      forged[12] = forged[12]! ^ 1;
      forger.send(forged, from.port, from.address);
      forger.send("junk", from.port, from.address);
      const future = Buffer.from(message);
      future.writeUInt32BE(0xffffffff, 4);
      forger.send(future, from.port, from.address);
    });
    await new Promise<void>((resolve) => forger.bind(port, gateways[0], resolve));
    const prober = startProber([target(0)]);
    await eventually(() => expect(asked).toBeGreaterThan(3));
    expect(verdicts(prober)).toEqual(["Unknown"]);
  });

  test("what is known of a target survives a new list of targets", async () => {
    await startEcho();
    const prober = startProber([target(0), target(1)]);
    await eventually(() => expect(verdicts(prober)).toEqual(["Up", "Up"]));
    const since = prober.links().get("gw1" as NodeName)?.since;
    prober.setTargets([target(0, 50), target(2)]);
    expect(prober.links().get("gw1" as NodeName)).toMatchObject({ verdict: "Up", since });
    await eventually(() => expect(verdicts(prober)).toEqual(["Up", "Up"]));
    expect([...prober.links().keys()]).toEqual(["gw1", "gw3"]);
  });

  test("a local address that is missing is waited for, and condemns nobody", async () => {
    const prober = createProber({ bind: "192.0.2.77" as IpAddress, echoPort: port, clock: monotonic });
    cleanups.push(() => prober.close());
    prober.setTargets([target(0, 20)]);
    await wait(500);
    expect(verdicts(prober)).toEqual(["Unknown"]);
  });

  test("a gateway's word is told", () => {
    const prober = startProber([target(0)]);
    let told = 0;
    prober.onChange(() => told++);
    prober.gatewayState("gw1" as NodeName, "UplinkDown", ["egress/a"]);
    prober.gatewayState("gw1" as NodeName, "UplinkDown", ["egress/a"]);
    expect(told).toBe(1);
    expect(prober.links().get("gw1" as NodeName)).toMatchObject({ gateway: "UplinkDown", downPaths: ["egress/a"] });
  });
});

describe("our own standstill", () => {
  interface Told {
    readonly changed?: Record<string, string>;
    readonly cpu?: NodeJS.CpuUsage;
    readonly verdicts?: Record<string, string>;
  }
  async function startApart(count = 3): Promise<{ child: ChildProcess; told: Told[] }> {
    const told: Told[] = [];
    const child = await start("prober-process.ts", [String(port), client, ...gateways.slice(0, count)], (message) => {
      const { changed } = message as Told;
      return changed !== undefined && Object.values(changed).filter((verdict) => verdict === "Up").length === count;
    });
    child.on("message", (message: Told) => told.push(message));
    return { child, told };
  }

  test.each([300, 1_000, 5_000])("SIGSTOP for %d ms moves nothing", async (ms) => {
    await startEcho();
    const { child, told } = await startApart();
    await wait(300);
    child.kill("SIGSTOP");
    await wait(ms);
    child.kill("SIGCONT");
    await wait(1_000);
    child.send({ ask: true });
    await eventually(() => expect(told.some(({ verdicts }) => verdicts !== undefined)).toBe(true));
    expect(told.filter(({ changed }) => Object.values(changed ?? {}).includes("Down"))).toEqual([]);
    expect(told.find(({ verdicts }) => verdicts !== undefined)?.verdicts).toEqual({ gw1: "Up", gw2: "Up", gw3: "Up" });
  });

  // Three probes are under way when it stops, and no other link can bear witness: only the order of reading and judging helps.
  test.each(["SIGSTOP", "a blocked loop"])("%s with probes under way on the only link moves nothing", async (how) => {
    const echo = await startEcho();
    echo.set(0, 250);
    const { child, told } = await startApart(1);
    await wait(1_500);
    for (const ms of [450, 700, 1_000]) {
      if (how === "SIGSTOP") {
        child.kill("SIGSTOP");
        await wait(ms);
        child.kill("SIGCONT");
      } else {
        child.send({ blockMs: ms });
        await wait(ms);
      }
      await wait(500);
    }
    expect(told.filter(({ changed }) => changed?.["gw1"] === "Down")).toEqual([]);
  });

  test("a loop that blocks again and again moves nothing, and a dead gateway is found all the same", async () => {
    const echo = await startEcho();
    const { child, told } = await startApart();
    for (const ms of [90, 450, 160, 330, 70, 200, 110]) {
      child.send({ blockMs: ms });
      await wait(ms + 40);
    }
    expect(told.filter(({ changed }) => Object.values(changed ?? {}).includes("Down"))).toEqual([]);
    echo.set(0, undefined);
    const blocking = setInterval(() => child.send({ blockMs: 70 }), 100);
    cleanups.push(() => clearInterval(blocking));
    await eventually(() => expect(told.some(({ changed }) => changed?.["gw1"] === "Down")).toBe(true));
    expect(told.some(({ changed }) => changed?.["gw2"] === "Down" || changed?.["gw3"] === "Down")).toBe(false);
  });

  test("three gateways at 100 ms cost less than one percent of a core", async () => {
    await startEcho();
    const { child, told } = await startApart();
    const cpu = async (): Promise<number> => {
      const count = told.length;
      child.send({ ask: true });
      await eventually(() => expect(told.slice(count).some((one) => one.cpu !== undefined)).toBe(true));
      const { user, system } = told.slice(count).find((one) => one.cpu !== undefined)!.cpu!;
      return user + system;
    };
    await wait(1_000);
    const before = await cpu();
    const start = monotonic.now();
    await wait(4_000);
    const share = ((await cpu()) - before) / ((monotonic.now() - start) * 1_000);
    console.log(`prober: ${(share * 100).toFixed(2)} % of a core`);
    expect(share).toBeLessThan(0.01);
  });
});
