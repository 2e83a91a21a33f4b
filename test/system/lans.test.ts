/** Two LANs that keep their addresses, with two gateways each: machines reach each other, whichever gateway dies. Needs root. */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { REPOSITORY } from "../../lab/names.ts";
import { eventually } from "../../lab/shell.ts";
import { background, expectInSync, type Plane, planeUp, settled, watchLeaks } from "./plane.ts";

const NAME = `t-${process.pid}-kn`;
const SERVER = fileURLToPath(new URL("../../lab/inet-server.ts", import.meta.url));
const S = { machine: "ms", address: "172.20.1.50", gateways: { a1: "172.20.1.11", a2: "172.20.1.12" } } as const;
const T = { machine: "mt", address: "172.20.2.50", gateways: { b1: "172.20.2.11", b2: "172.20.2.12" } } as const;
/** What must not be seen on the uplinks of the sites. (The gateways' own LAN addresses are endpoints that WireGuard tries, too.) */
const INSIDE = [S.address, T.address, "10.101.0.0/16", "10.102.0.0/15"];
const UPLINKS = ["w-dc-router", "w-b1", "w-b2", "w-c", "w-mt"];

let plane: Plane;
let servers: { stop(): Promise<void> }[] = [];

/** What a LAN does by itself (VRRP, a routing daemon): its machines' routes follow a living gateway. */
const routeBy = async (gateway: "a1" | "a2" | "b1" | "b2"): Promise<void> => {
  const [machine, via, other] =
    gateway === "a1" || gateway === "a2" ? [S.machine, S.gateways[gateway], "172.20.2.0/24"] : [T.machine, T.gateways[gateway], "172.20.1.0/24"];
  await plane.sh(machine, `for to in 10.101.0.0/16 ${other}; do ip route replace $to via ${via}; done`);
};
/** The gateway that a node uses for the other LAN now. */
const activeOf = async (node: string, path: string): Promise<string> =>
  (await plane.status(node)).paths.find(({ id }) => id === path)?.active[0] ?? "";

beforeAll(async () => {
  plane = await planeUp(NAME, { topology: await readFile(`${REPOSITORY}/lab/topology/two-lans.yaml`, "utf8") });
  servers = await Promise.all([S.machine, T.machine, "c"].map((host) => background(NAME, host, [process.execPath, SERVER])));
}, 120_000);

afterAll(async () => {
  for (const server of servers) await server.stop();
  await plane.down();
});

beforeEach(async () => {
  await settled(plane);
  await routeBy("a1");
  await routeBy("b1");
  await eventually(
    "every link between gateways is up",
    60_000,
    async () => {
      const all = await Promise.all(["a1", "a2", "b1", "b2", "c"].map((node) => plane.status(node).catch(() => undefined)));
      const up = all.every((status) => status !== undefined && status.links.length > 0 && status.links.every(({ verdict }) => verdict === "Up"));
      return up ? true : undefined;
    },
    { everyMs: 100 },
  );
}, 120_000);

describe("machines of two LANs", () => {
  test("see each other's own addresses, and so do nodes of other sites", async () => {
    await plane.becomes("mt sees ms", S.machine, S.address, T.address);
    await plane.becomes("ms sees mt", T.machine, T.address, S.address);
    const [node = ""] = (await plane.status("c")).overlay;
    await plane.becomes("c sees ms", S.machine, S.address, node);
    await plane.becomes("ms sees c", "c", node, S.address);
    for (const one of ["a1", "a2", "b1", "b2", "c"]) await expectInSync(plane, one);
    const said = await plane.explain("a1", T.address);
    expect(said).toMatchObject({ verdict: "Gateway", owner: "subnet/cloud", snat: "None", kernel: { agrees: true } });
    expect(said.hops[0]?.what).toMatch(/pairwise link to b[12]/);
  });

  test("are answered whichever gateways their packets take", async () => {
    for (const there of ["a1", "a2"] as const) {
      for (const back of ["b1", "b2"] as const) {
        await routeBy(there);
        await routeBy(back);
        await plane.becomes(`mt sees ms by ${there} and ${back}`, S.machine, S.address, T.address);
        await plane.becomes(`ms sees mt by ${back} and ${there}`, T.machine, T.address, S.address);
      }
    }
  });

  test("keep their connections when a gateway of either LAN loses power, and nothing of it is seen on the underlay (I4)", async () => {
    const leaks = await watchLeaks(NAME, INSIDE, UPLINKS);
    const flow = await plane.flow(S.machine, T.address, 7);
    await plane.lab.fail("node", "a1");
    await routeBy("a2");
    await plane.becomes("by the other gateway of the datacenter", S.machine, S.address, T.address);
    const used = (await activeOf("a2", "subnet/cloud")) as "b1" | "b2";
    await plane.lab.fail("node", used);
    await routeBy(used === "b1" ? "b2" : "b1");
    await plane.becomes("by the other gateway of the cloud, too", S.machine, S.address, T.address);
    await plane.becomes("and back", T.machine, T.address, S.address);
    const report = await flow.stop();
    expect(report).toMatchObject({ echoed: report.sent });
    expect(report.error).toBeUndefined();
    expect(await leaks()).toBe(0);
  });

  test("are not let out in the clear by a gateway that boots, either (I4)", async () => {
    const leaks = await watchLeaks(NAME, INSIDE, UPLINKS);
    const stream = await plane.lab.startGapStream({ from: S.machine, to: T.address, protocol: "icmp", intervalMs: 2 });
    await plane.lab.fail("node", "a1");
    await plane.lab.heal();
    await plane.becomes("by the same gateway again", S.machine, S.address, T.address);
    await stream.stop();
    expect(await leaks()).toBe(0);
  });

  test("reach nothing when every gateway of the other LAN is dead, and nothing leaks (I4)", async () => {
    const leaks = await watchLeaks(NAME, INSIDE, UPLINKS);
    const stream = await plane.lab.startGapStream({ from: S.machine, to: T.address, protocol: "icmp", intervalMs: 20 });
    await plane.lab.fail("node", "b1", "b2");
    await eventually("the gateway knows", 30_000, async () => {
      const links = (await plane.status("a1")).links.filter(({ gateway }) => gateway.startsWith("b"));
      return links.every(({ verdict }) => verdict === "Down") ? true : undefined;
    });
    await plane.lab.fail("wireguard", "a1", "ismg1");
    await plane.lab.fail("wireguard", "a1", "ismg2");
    expect(await plane.seenFrom(S.machine, T.address)).toBe("");
    await stream.stop();
    expect(await leaks()).toBe(0);
  });

  test("are translated again when the sites say so, and no longer when they do not; nodes' own connections go on", async () => {
    const flows = [await plane.flow("a1", T.address, 7), await plane.flow("b1", S.address, 7)];
    const site = (name: string, kind: string, subnet: string, snat: string): object => ({
      apiVersion: "isthmus.dev/v1alpha1",
      kind: "Site",
      metadata: { name },
      spec: { kind, subnets: [subnet], snat },
    });
    const both = (snat: string): Promise<void> =>
      plane.apply(site("dc", "onprem", "172.20.1.0/24", snat), site("cloud", "cloud", "172.20.2.0/24", snat));
    await both("Masquerade");
    await plane.becomes("mt sees a gateway", S.machine, Object.values(T.gateways), T.address);
    await plane.becomes("ms sees a gateway", "b1", Object.values(S.gateways), S.address);
    for (const one of ["a1", "b1", "c"]) await expectInSync(plane, one);
    await both("None");
    await plane.becomes("mt sees ms", S.machine, S.address, T.address);
    for (const one of ["a1", "b1", "c"]) await expectInSync(plane, one);
    for (const flow of flows) {
      const report = await flow.stop();
      expect(report).toMatchObject({ echoed: report.sent });
      expect(report.error).toBeUndefined();
    }
  });
});
