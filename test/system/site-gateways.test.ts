/** Topology SiteGateways: across sites only gateways are peers, and the other nodes go on when one of them dies. Needs root. */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { netnsName, REPOSITORY, WORLD } from "../../lab/names.ts";
import { eventually, netnsScript } from "../../lab/shell.ts";
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

/** Drops forwarded packets in a namespace between the nodes. */
const drop = async (netns: string, ...what: string[]): Promise<unknown> =>
  netnsScript(
    netnsName(NAME, netns),
    `nft -f - <<'END'\ntable inet broken {\n  chain forward { type filter hook forward priority -10; ${what.map((one) => `${one} drop`).join("; ")}; }\n}\nEND\n`,
  );

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

  test("a gateway that reaches its own site but no other is left by its site's nodes, and says why", async () => {
    const flow = await plane.flow("a3", addresses.get("b3") ?? "", 7);
    const cut = await activeOf("a3", "via/dc");
    const inside = cut === "a1" ? "172.20.1.11" : "172.20.1.12";
    await drop("dc-router", `ip saddr ${inside}`, `ip daddr ${inside}`);
    await eventually(`a3 leaves ${cut}`, 60_000, async () => ((await activeOf("a3", "via/dc")) === cut ? undefined : true));
    const { candidates } = await plane.explain("a3", addresses.get("b3") ?? "");
    expect(candidates).toContainEqual(expect.objectContaining({ node: cut, active: false, why: "UplinkDown" }));
    await reaches("a3", "b3");
    await reaches("b3", "a3");
    const report = await flow.stop();
    expect(report).toMatchObject({ echoed: report.sent });
    expect(report.error).toBeUndefined();
    await netnsScript(netnsName(NAME, "dc-router"), "nft delete table inet broken");
    await eventually(`${cut} is good again`, 60_000, async () => {
      const again = (await plane.explain("a3", addresses.get("b3") ?? "")).candidates.find(({ node }) => node === cut);
      return again?.active === true || again?.why !== "UplinkDown" ? true : undefined;
    });
  });

  test("a gateway that has lost one site of several keeps its site's nodes, who say so; nothing else moves, and draining it brings that site back", async () => {
    for (const to of ["b3", "c2"]) await reaches("a3", to);
    const near = await activeOf("a3", "via/dc");
    const [inside, spare] = near === "a1" ? ["172.20.1.11", "a2"] : ["172.20.1.12", "a1"];
    const ofA3 = async (): Promise<unknown> => (await plane.status("a3")).paths.map(({ id, active }) => [id, active]);
    const before = await ofA3();
    const going = [
      await plane.lab.startGapStream({ from: "a3", to: addresses.get("c2") ?? "", protocol: "icmp", intervalMs: 20 }),
      await plane.lab.startGapStream({ from: spare, to: addresses.get("b3") ?? "", protocol: "icmp", intervalMs: 20 }),
    ];
    const lost = ["b1", "b2"].map((name) => plane.addressOf(name));
    await drop("dc-router", ...lost.flatMap((one) => [`ip saddr ${inside} ip daddr ${one}`, `ip saddr ${one} ip daddr ${inside}`]));
    await eventually(`a3 says that ${near} does not reach east`, 60_000, async () => {
      const said = (await plane.status("a3")).conditions.find(({ type }) => type === "GatewayUnusable")?.message ?? "";
      return said.includes(`${near}, which carries via/dc, does not reach site east: drain it`) ? true : undefined;
    });
    const { candidates } = await plane.explain("a3", addresses.get("b3") ?? "");
    expect(candidates).toContainEqual(
      expect.objectContaining({ node: near, active: true, message: expect.stringContaining("does not reach site east") }),
    );
    expect(await ofA3()).toEqual(before);
    // Who sees with its own eyes that the link is down goes by the other gateway.
    for (const far of ["b1", "b2"])
      await eventually(`${far} goes by ${spare}`, 60_000, async () => ((await activeOf(far, "site/dc")) === spare ? true : undefined));
    await plane.cli("drain", near, "--timeout", "2s");
    await reaches("a3", "b3");
    await reaches("b3", "a3");
    await netnsScript(netnsName(NAME, "dc-router"), "nft delete table inet broken");
    await plane.cli("uncordon", near);
    await eventually(`nothing is said of ${near} any more`, 60_000, async () =>
      (await plane.status("a3")).conditions.some(({ type }) => type === "GatewayUnusable") ? undefined : true,
    );
    await reaches("a3", "b3");
    for (const stream of going) expect((await stream.stop()).lost).toBe(0);
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

  test("a way between two sites that swallows large packets stalls no connection of the nodes behind it, and no undivided packet", async () => {
    const steps = async (from: string, own: string, other: string): Promise<[string, string]> => {
      const near = await activeOf(from, own);
      return [near, await activeOf(near, other)];
    };
    const both = await Promise.all([steps("a3", "via/dc", "site/east"), steps("b3", "via/east", "site/dc")]);
    const router = plane.addressOf("dc-router");
    await drop(
      WORLD,
      ...["b1", "b2"].flatMap((name) => {
        const address = plane.addressOf(name);
        return [`ip saddr ${router} ip daddr ${address} meta length > 1400`, `ip saddr ${address} ip daddr ${router} meta length > 1400`];
      }),
    );
    for (const gateway of new Set(both.flat())) await plane.lab.crash(gateway);
    for (const [near, far] of both) {
      await eventually(`${near} knows how narrow the way to ${far} is`, 60_000, async () => {
        const status = await plane.status(near).catch(() => undefined);
        return status?.conditions.some(({ type, message }) => type === "SmallMtu" && message?.includes(far) === true) ? true : undefined;
      });
    }
    for (const [from, to] of [
      ["a3", "b3"],
      ["b3", "a3"],
    ] as const) {
      const address = addresses.get(to) ?? "";
      const ping = (bytes: number): Promise<{ code: number; stdout: string }> =>
        plane.lab.exec(from, ["ping", "-M", "do", "-c", "3", "-i", "0.2", "-W", "1", "-s", String(bytes - 28), address], { mayFail: true });
      const told = await eventually(`${from} is told how large a packet may be`, 30_000, async () => {
        await ping(1400);
        return /mtu ([0-9]+)/.exec(await plane.sh(from, `ip route get ${address}`))?.[1];
      });
      expect(Number(told)).toBeLessThanOrEqual(1340);
      expect((await ping(Number(told))).code).toBe(0);
    }
    const sent = 300_000;
    const echo = `
      let back = 0;
      const end = () => { console.log(back); process.exit(0); };
      const socket = require("node:net").connect(7, "${addresses.get("b3")}", () => socket.write(Buffer.alloc(${sent})));
      socket.on("data", (part) => { back += part.length; if (back >= ${sent}) end(); });
      socket.on("error", end);
      setTimeout(end, 20_000);
    `;
    expect(Number((await plane.lab.exec("a3", [process.execPath, "-e", echo])).stdout)).toBe(sent);
  });
});
