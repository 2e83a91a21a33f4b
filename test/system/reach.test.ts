/** Who can reach whom: private addresses stay inside a site, two NATs are said plainly, a public address that changes is followed. Needs root. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { netnsName, WORLD } from "../../lab/names.ts";
import { eventually, netnsScript } from "../../lab/shell.ts";
import { conditionOf, type Plane, planeUp } from "./plane.ts";

const NAME = `t-${process.pid}-kr`;
const TOPOLOGY = `
internet:
  - { name: inet, address: 34.160.111.145 }
controller: { name: ctl, address: 198.51.100.10 }
sites:
  - name: left
    kind: onprem
    lan: { subnet: 192.168.88.0/24, router: { name: left-router, address: 192.0.2.10 } }
    nodes:
      - { name: left1, address: 192.168.88.11 }
  - name: right
    kind: onprem
    lan: { subnet: 192.168.99.0/24, router: { name: right-router, address: 192.0.2.14 } }
    nodes:
      - { name: right1, address: 192.168.99.11 }
  - name: cloud
    kind: cloud
    nodes:
      - { name: cloud1, address: 203.0.113.10 }
vpcs:
  - name: vpc
    subnet: 10.116.0.0/20
    members: { cloud1: 10.116.0.2 }
`;

let plane: Plane;

beforeAll(async () => {
  plane = await planeUp(NAME, { topology: TOPOLOGY, manifests: false });
}, 120_000);

afterAll(async () => plane.down());

const reaches = async (from: string, to: string): Promise<void> => {
  await eventually(`${from} reaches ${to}`, 40_000, async () => {
    // Empty until the agent has made its first pass.
    const [address] = (await plane.status(to)).overlay;
    if (address === undefined) return undefined;
    return (await plane.lab.exec(from, ["ping", "-c", "1", "-W", "1", address], { mayFail: true })).code === 0 ? true : undefined;
  });
};

describe("nodes behind different NATs", () => {
  test("reach the cloud, and it is said that they do not reach each other: condition, table and explain", async () => {
    await reaches("left1", "cloud1");
    await reaches("cloud1", "right1");
    const condition = await conditionOf(
      plane,
      "meshnodes",
      "left1",
      "NoPathTo",
      ({ status, reason }) => status === "True" && reason === "BothBehindNat",
    );
    expect(condition.message).toContain("right1");
    expect(await plane.cli("describe", "node", "left1")).toMatch(/NoPathTo.*right1/);
    const [address = ""] = (await plane.status("right1")).overlay;
    const said = await plane.cli("explain", "left1", address);
    expect(said).toMatch(/NAT/);
    expect(await plane.cli("get", "nodes", "-o", "wide")).toMatch(/left1.*NoPathTo/);
  });

  test("a private address of another site is not what a peer is reached at", async () => {
    // The agent looks at WireGuard every few seconds: its status may be that old.
    await eventually("left1 reaches cloud1 at its public address", 30_000, async () => {
      const peer = (await plane.status("left1")).peers.find(({ node }) => node === "cloud1");
      return peer?.endpoint === "203.0.113.10:51820" && peer.handshakeAgeMs !== undefined ? true : undefined;
    });
  });
});

describe("a WireGuard process that dies", () => {
  test("dials anew what worked before, not the other addresses of the peer", async () => {
    await reaches("left1", "cloud1");
    const endpoints = async (): Promise<string> => plane.sh("left1", "wg show ism0 endpoints 2>/dev/null; true");
    expect(await endpoints()).toContain("203.0.113.10:51820");
    // Longer than a turn, as the life of a session is.
    await new Promise((wake) => setTimeout(wake, 6_000));
    await plane.lab.fail("wireguard", "left1");
    const seen = new Set<string>();
    await eventually(
      "a handshake again",
      40_000,
      async () => {
        for (const [, endpoint = ""] of (await endpoints()).matchAll(/\t(\d\S+)/g)) seen.add(endpoint);
        return /\t[1-9]\d+\n/.test(await plane.sh("left1", "wg show ism0 latest-handshakes 2>/dev/null; true")) ? true : undefined;
      },
      { everyMs: 20 },
    );
    for (const [, endpoint = ""] of (await endpoints()).matchAll(/\t(\d\S+)/g)) seen.add(endpoint);
    expect([...seen]).toEqual(["203.0.113.10:51820"]);
    await reaches("left1", "cloud1");
  });
});

describe("a node that changes its public address", () => {
  test("is followed within seconds", async () => {
    await reaches("left1", "cloud1");
    const world = netnsName(NAME, WORLD);
    await netnsScript(world, "ip addr add 203.0.113.22/30 dev w-cloud1");
    const started = performance.now();
    await plane.sh(
      "cloud1",
      "ip addr add 203.0.113.21/30 dev eth0 && ip route replace default via 203.0.113.22 && ip addr del 203.0.113.10/30 dev eth0; true",
    );
    await plane.sh("cloud1", "ip route replace default via 203.0.113.22");
    await reaches("left1", "cloud1");
    // WireGuard alone would never find it: the NAT lets in nobody that was not asked. Without loss of the connection's address it took minutes.
    expect(performance.now() - started).toBeLessThan(30_000);
    await eventually("the peers dial the new address", 40_000, async () =>
      (await plane.status("left1")).peers.find(({ node }) => node === "cloud1")?.endpoint === "203.0.113.21:51820" ? true : undefined,
    );
  });
});
