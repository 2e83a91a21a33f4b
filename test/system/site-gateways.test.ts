/** Topology SiteGateways: across sites only gateways are peers, and the other nodes go on when one of them dies. Needs root. */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { REPOSITORY } from "../../lab/names.ts";
import { eventually } from "../../lab/shell.ts";
import { background, expectInSync, type Plane, planeUp, settled, watchLeaks } from "./plane.ts";

const NAME = `t-${process.pid}-ks`;
const SERVER = fileURLToPath(new URL("../../lab/inet-server.ts", import.meta.url));
const SITES = { dc: ["a1", "a2", "a3"], east: ["b1", "b2", "b3"], west: ["c1", "c2"] } as const;
const NODES: readonly string[] = Object.values(SITES).flat();
const OVERLAY = ["10.101.0.0/16", "10.102.0.0/15"];
const UPLINKS = ["w-dc-router", ...NODES.filter((name) => !name.startsWith("a")).map((name) => `w-${name}`)];

let plane: Plane;
let servers: { stop(): Promise<void> }[] = [];
const addresses = new Map<string, string>();
const siteOf = (name: string): string => Object.entries(SITES).find(([, names]) => (names as readonly string[]).includes(name))![0];
const reaches = (from: string, to: string): Promise<true> =>
  eventually(`${from} reaches ${to}`, 30_000, async () =>
    (await plane.lab.exec(from, ["ping", "-c", "1", "-W", "1", addresses.get(to) ?? ""], { mayFail: true })).code === 0 ? true : undefined,
  );
const activeOf = async (node: string, path: string): Promise<string> =>
  (await plane.status(node)).paths.find(({ id }) => id === path)?.active[0] ?? "";

beforeAll(async () => {
  plane = await planeUp(NAME, { topology: await readFile(`${REPOSITORY}/lab/topology/site-gateways.yaml`, "utf8") });
  servers = await Promise.all(["b3", "c2"].map((host) => background(NAME, host, [process.execPath, SERVER])));
  for (const node of NODES) addresses.set(node, (await plane.status(node)).overlay[0] ?? "");
  await settled(plane);
}, 120_000);

afterAll(async () => {
  for (const server of servers) await server.stop();
  await plane.down();
});

describe("topology SiteGateways", () => {
  test("every node reaches every other by its own address", async () => {
    await Promise.all(
      NODES.map(async (from) => {
        for (const to of NODES) if (to !== from) await reaches(from, to);
      }),
    );
    await plane.becomes("b3 sees a3", "a3", addresses.get("a3") ?? "", addresses.get("b3"));
    await plane.becomes("c2 sees b3", "b3", addresses.get("b3") ?? "", addresses.get("c2"));
    for (const node of NODES) await expectInSync(plane, node);
  });

  test("nodes that are no gateways have peers in their own site only", async () => {
    for (const node of NODES) {
      const known = new Map((await plane.status(node)).peers.map((peer) => [peer.node, peer]));
      const isGateway = !node.endsWith("3") && node !== "c2";
      const direct = [...known.values()].filter(({ handshakeAgeMs }) => handshakeAgeMs !== undefined).map((peer) => peer.node);
      const others = NODES.filter(
        (other) => other !== node && (siteOf(other) === siteOf(node) || (isGateway && !other.endsWith("3") && other !== "c2")),
      );
      expect([node, direct.toSorted()]).toEqual([node, others.toSorted()]);
      expect(Number(await plane.sh(node, "wg show ism0 peers | wc -l"))).toBe(SITES[siteOf(node) as keyof typeof SITES].length - 1);
    }
  });

  test("explain says the way and agrees with the kernel", async () => {
    for (const [at, to, owner] of [
      ["a3", "b3", "via/dc"],
      ["a1", "b3", "site/east"],
      ["a1", "b1", "peer/b1"],
      ["b3", "b1", "peer/b1"],
    ] as const)
      expect(await plane.explain(at, addresses.get(to) ?? "")).toMatchObject({ owner, kernel: { agrees: true } });
  });

  test("connections go on when a gateway of either site loses power, with the controller dead, and nothing leaks (I1, I4)", async () => {
    const leaks = await watchLeaks(NAME, OVERLAY, UPLINKS);
    const flow = await plane.flow("a3", addresses.get("b3") ?? "", 7);
    await plane.lab.fail("controller");
    const near = await activeOf("a3", "via/dc");
    await plane.lab.fail("node", near);
    await reaches("a3", "b3");
    const still = near === "a1" ? "a2" : "a1";
    const far = await activeOf(still, "site/east");
    await plane.lab.fail("node", far);
    await reaches("a3", "b3");
    await reaches("b3", "a3");
    const report = await flow.stop();
    expect(report).toMatchObject({ echoed: report.sent });
    expect(report.error).toBeUndefined();
    expect(await leaks()).toBe(0);
    await plane.lab.heal();
    await Promise.all(
      NODES.map(async (from) => {
        for (const to of NODES) if (to !== from) await reaches(from, to);
      }),
    );
  });

  test("with its only gateway dead a site is not reached, and nothing for it leaves by the underlay (I4)", async () => {
    const leaks = await watchLeaks(NAME, OVERLAY, UPLINKS);
    const stream = await plane.lab.startGapStream({ from: "a3", to: addresses.get("c2") ?? "", protocol: "icmp", intervalMs: 20 });
    await plane.lab.fail("node", "c1");
    await eventually("a3 is cut off", 30_000, async () =>
      (await plane.lab.exec("a3", ["ping", "-c", "1", "-W", "1", addresses.get("c2") ?? ""], { mayFail: true })).code === 0 ? undefined : true,
    );
    await reaches("a3", "b3");
    await stream.stop();
    expect(await leaks()).toBe(0);
    await plane.lab.heal();
    await reaches("a3", "c2");
  });

  test("full mesh again when the network says so", async () => {
    const network = (topology: string): object => ({
      apiVersion: "isthmus.dev/v1alpha1",
      kind: "MeshNetwork",
      metadata: { name: "isthmus" },
      spec: { topology },
    });
    await plane.apply(network("FullMesh"));
    await eventually("a3 is a peer of b3", 30_000, async () =>
      (await plane.explain("a3", addresses.get("b3") ?? "")).owner === "peer/b3" ? true : undefined,
    );
    await reaches("a3", "b3");
    await plane.apply(network("SiteGateways"));
    await eventually("a3 is none", 30_000, async () =>
      (await plane.explain("a3", addresses.get("b3") ?? "")).owner === "via/dc" ? true : undefined,
    );
    await reaches("a3", "b3");
    await reaches("b3", "c2");
  });
});
