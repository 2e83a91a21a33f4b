/** What a user does on the first evening, with real agents: join, egress, failover, the controller dead. Needs root. */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { removeLab } from "../../lab/build.ts";
import type { Lab } from "../../lab/lab.ts";
import { labPaths, netnsName, REPOSITORY, WORLD } from "../../lab/names.ts";
import { patient } from "../../lab/patience.ts";
import { processesUnder } from "../../lab/process.ts";
import { eventually, netnsScript, run } from "../../lab/shell.ts";
import { initOf } from "../../lab/state.ts";
import { hostNamed, publicAddress } from "../../lab/topology.ts";
import { loadTopology } from "../../lab/topology-file.ts";
import { labDown, labUp } from "../../lab/up.ts";

const NAME = `t-${process.pid}-s`;
const INTERNET = "34.160.111.145";
const topology = await loadTopology(`${REPOSITORY}/lab/topology/default.yaml`);
const addressOf = (host: string): string => publicAddress(topology, hostNamed(topology, host)) ?? "";

/** What the user had before the lab. */
const OTHER_CONTEXT = "current: prod\ncontexts:\n  - name: prod\n    server: https://controller.example:8443\n";

let lab: Lab;
let home: string;

/** The command line, as on the machine of the lab. */
const isthmus = async (...argv: string[]): Promise<string> =>
  (await run([process.execPath, `${REPOSITORY}/cli/main.ts`, ...argv], { timeoutMs: 60_000 })).stdout;
const seenFrom = async (host: string, url = INTERNET): Promise<string> =>
  (await lab.exec(host, ["curl", "-s", "--max-time", "2", `http://${url}`], { mayFail: true })).stdout.trim();
const becomes = async (what: string, host: string, expected: string, url = INTERNET): Promise<true> =>
  eventually(what, 30_000, async () => ((await seenFrom(host, url)) === expected ? true : undefined), { everyMs: 100 });
interface Listed {
  readonly items: readonly { readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] } }[];
}

const allReady = async (): Promise<true> =>
  eventually(
    "all nodes are ready",
    60_000,
    async () => {
      // A controller that has just been healed is not there yet.
      const listed = await isthmus("get", "nodes", "-o", "json").catch(() => '{"items":[]}');
      const { items } = JSON.parse(listed) as Listed;
      const ready = items.filter((node) => node.status?.conditions?.some((condition) => condition.type === "Ready" && condition.status === "True"));
      return ready.length === 4 ? true : undefined;
    },
    { everyMs: 300 },
  );

/** Counts packets that cross the datacenter's uplink to or from the internet host in the clear. */
async function watchLeaks(): Promise<() => Promise<number>> {
  const world = netnsName(NAME, WORLD);
  await netnsScript(
    world,
    `nft -f - <<'END'\nadd table inet watch\ndelete table inet watch\ntable inet watch {\n  counter leaks { }\n  chain forward { type filter hook forward priority -10; iifname "w-dc-router" ip daddr ${INTERNET} counter name leaks; }\n}\nEND\n`,
  );
  return async () => {
    const listed = await netnsScript(world, "nft -j list counter inet watch leaks");
    return Number(/"packets": ?([0-9]+)/.exec(listed.stdout)?.[1] ?? Number.NaN);
  };
}

beforeAll(async () => {
  home = await mkdtemp(`${tmpdir()}/isthmus-story-`);
  process.env["XDG_CONFIG_HOME"] = home;
  await mkdir(`${home}/isthmus`);
  await writeFile(`${home}/isthmus/config.yaml`, OTHER_CONTEXT, { mode: 0o600 });
  lab = await labUp({ name: NAME, topology, join: true, setContext: true });
}, patient(120_000));

afterAll(async () => {
  await removeLab(NAME);
  await rm(home, { recursive: true, force: true });
});

afterEach(async ({ task }) => {
  if (task.result?.state !== "fail") return;
  for (const host of ["datacenter1", "do1"]) {
    const log = await readFile(`${labPaths(NAME).data}/${host}/log/isthmus.log`, "utf8").catch(() => "");
    console.error(`--- log of ${host}\n${log.split("\n").slice(-15).join("\n")}`);
  }
});

describe("a lab with agents", () => {
  test("has four nodes in three places, joined, ready, with names that resolve", async () => {
    expect((await isthmus("get", "nodes", "-o", "name")).trim().split("\n")).toHaveLength(4);
    await allReady();
    await eventually("do2 answers by its name", 10_000, async () =>
      (await lab.exec("datacenter1", ["ping", "-4", "-c", "1", "-W", "1", "do2.isthmus"], { mayFail: true })).stdout.includes(
        "from do2.isthmus (10.101.",
      )
        ? true
        : undefined,
    );
    expect(await lab.overlayAddress("datacenter2")).toMatch(/^10\.101\./);
  });

  test("lets the internet see the datacenter as do1, and not a packet in the clear", async () => {
    const leaks = await watchLeaks();
    expect([await seenFrom("datacenter1"), await seenFrom("datacenter2")]).toEqual([addressOf("do1"), addressOf("do1")]);
    expect(await leaks()).toBe(0);
    // The counter can count: lanhost has no agent and goes out by the router.
    expect(await seenFrom("lanhost")).toBe(addressOf("dc-router"));
    expect(await leaks()).toBeGreaterThan(0);
  });

  test("reaches the LAN's machine from the clouds, and the overlay from the LAN's machine", async () => {
    const overlay = (await lab.overlayAddress("do1")) ?? "";
    const pings = async (from: string, to: string): Promise<true> =>
      eventually(`${from} reaches ${to}`, 15_000, async () =>
        (await lab.exec(from, ["ping", "-c", "1", "-W", "1", to], { mayFail: true })).code === 0 ? true : undefined,
      );
    await pings("do2", "192.168.88.50");
    await pings("lanhost", overlay);
  });

  test("moves a VPC route to the standby router and back", async () => {
    const partner = "34.160.112.1";
    await becomes("the route goes by gw-a", "do1", addressOf("gw-a"), partner);
    await lab.fail("node", "gw-a");
    await becomes("the route goes by gw-b", "do1", addressOf("gw-b"), partner);
    await lab.heal();
    await becomes("the route goes by gw-a again", "do1", addressOf("gw-a"), partner);
  });

  test("moves nothing and loses nothing when a gateway's agent is killed with its control group", async () => {
    const init = (await initOf(NAME, "do1"))!;
    // The interfaces by their numbers, and the processes behind them where the kernel has no WireGuard.
    const processes = (): number[] => processesUnder(init).flatMap((one) => (one.argv[0]?.endsWith("wireguard-go") === true ? one.pid : []));
    const tunnels = async (): Promise<unknown[]> => {
      const links = JSON.parse((await lab.exec("do1", ["ip", "-j", "link"])).stdout) as { ifindex: number; ifname: string }[];
      return [...links.flatMap(({ ifindex, ifname }) => (ifname.startsWith("ism") ? `${ifname} ${ifindex}` : [])), ...processes()];
    };
    const before = await tunnels();
    expect(before).toContainEqual(expect.stringContaining("ism0"));
    const stream = await lab.startGapStream({ from: "datacenter1", to: "inet", intervalMs: 10 });
    await lab.fail("agent", "do1");
    await lab.heal("agent");
    await eventually(
      "the agent answers",
      30_000,
      async () => ((await lab.exec("do1", ["isthmus", "status"], { mayFail: true })).code === 0 ? true : undefined),
      { everyMs: 300 },
    );
    const report = await stream.stop();
    expect(report.lost).toBe(0);
    expect(await tunnels()).toEqual(before);
    expect(await seenFrom("datacenter1")).toBe(addressOf("do1"));
  });

  test("puts a killed tunnel back by itself, and leaks nothing meanwhile", async () => {
    const leaks = await watchLeaks();
    await lab.fail("wireguard", "datacenter1", "active");
    await eventually("traffic flows again", 30_000, async () =>
      [addressOf("do1"), addressOf("do2")].includes(await seenFrom("datacenter1")) ? true : undefined,
    );
    await becomes("the tunnel is preferred again", "datacenter2", addressOf("do1"));
    expect(await leaks()).toBe(0);
    await expect(lab.fail("wireguard", "datacenter1", "ismg9")).rejects.toMatchObject({ code: "NotFound" });
    expect((await lab.status()).faults).toEqual([]);
  });

  test("with the controller dead, goes by do2 when do1 loses its power, and nothing leaks meanwhile", async () => {
    const leaks = await watchLeaks();
    await lab.fail("controller");
    const stream = await lab.startGapStream({ from: "datacenter2", to: "inet", intervalMs: 5 });
    await lab.fail("node", "do1");
    await becomes("the internet sees do2", "datacenter2", addressOf("do2"));
    const report = await stream.stop();
    expect(report.lost).toBeGreaterThan(0);
    // It is over: the flow that was open before goes on by do2.
    expect(report.gaps.at(-1)).toSatisfy(([from, length]: [number, number]) => from + length < report.sent * 5);
    expect(await leaks()).toBe(0);
    expect(await lab.exec("datacenter1", ["isthmus", "status"])).toMatchObject({ code: 0 });
  });

  test("with the controller still dead, a node that reboots comes back by what is on its disk", async () => {
    await lab.fail("node", "datacenter2");
    await lab.heal("node");
    await becomes("datacenter2 is steered again", "datacenter2", addressOf("do2"));
    await lab.heal();
    await allReady();
    expect(await isthmus("explain", "datacenter1", INTERNET)).toContain("do2");
  });

  test("goes down without a trace, the command line's context included", async () => {
    expect(await readFile(`${home}/isthmus/config.yaml`, "utf8")).toContain(`lab-${NAME}`);
    expect(await labDown(NAME)).toBe(true);
    expect((await readdir("/run/netns").catch(() => [])).filter((name) => name.startsWith(`isthmus-${NAME}`))).toEqual([]);
    expect([labPaths(NAME).run, labPaths(NAME).data].filter((path) => existsSync(path))).toEqual([]);
    expect(await readFile(`${home}/isthmus/config.yaml`, "utf8")).toBe(OTHER_CONTEXT);
  });
});
