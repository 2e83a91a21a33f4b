/**
 * Traffic meant for the overlay never leaves by the underlay, whatever dies (I4), and no intent cuts a node off from those who
 * reach it by its own addresses (I9). Packets are counted at the world's edge, before anything could drop them. Needs root.
 */
import { execa } from "execa";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { netnsName, WORLD } from "../../lab/names.ts";
import { patient } from "../../lab/patience.ts";
import { eventually, netnsScript } from "../../lab/shell.ts";
import { background, conditionOf, INTERNET, type Plane, planeUp, settled, watchLeaks } from "./plane.ts";

const NAME = `t-${process.pid}-kl`;
const DATACENTER = "w-dc-router";
const OVERLAY = ["10.101.0.0/16", "10.102.0.0/15"];
const RA = fileURLToPath(new URL("router-advertisement.py", import.meta.url));

let plane: Plane;

beforeAll(async () => {
  plane = await planeUp(NAME);
}, patient(120_000));

afterAll(async () => plane.down());

/** The covered host and the overlay itself, as seen on the datacenter's uplink and both clouds' interfaces. */
const watch = async (): Promise<() => Promise<number>> => watchLeaks(NAME, [INTERNET, ...OVERLAY], [DATACENTER]);

/** Traffic of all sorts that is meant for the overlay, for as long as the work takes. */
async function underTraffic(work: () => Promise<void>): Promise<void> {
  const [peer] = (await plane.status("do2")).overlay;
  const streams = [
    await plane.lab.startGapStream({ from: "datacenter1", to: INTERNET, protocol: "udp", intervalMs: 5 }),
    await plane.lab.startGapStream({ from: "datacenter1", to: INTERNET, protocol: "icmp", intervalMs: 10 }),
    await plane.lab.startGapStream({ from: "datacenter1", to: peer ?? "", protocol: "icmp", intervalMs: 10 }),
    await plane.lab.startGapStream({ from: "lanhost", to: peer ?? "", protocol: "icmp", intervalMs: 10 }),
  ];
  try {
    await work();
  } finally {
    for (const stream of streams) await stream.stop();
  }
}

describe("not one packet in the clear", () => {
  test("when wireguard-go of the active link is killed, again and again", async () => {
    await settled(plane);
    const leaks = await watch();
    await underTraffic(async () => {
      for (let i = 0; i < 3; i++) {
        await plane.lab.fail("wireguard", "datacenter1", "active");
        await plane.becomes("traffic flows again", "datacenter1", [plane.addressOf("do1"), plane.addressOf("do2")]);
      }
      await plane.lab.fail("wireguard", "datacenter1", "ism0");
      const peer = (await plane.status("do2")).overlay[0] ?? "";
      await eventually("the mesh is back", 30_000, async () =>
        (await plane.lab.exec("datacenter1", ["ping", "-c", "1", "-W", "1", peer], { mayFail: true })).code === 0 ? true : undefined,
      );
    });
    expect(await leaks()).toBe(0);
  });

  test("when the carrier of eth0 is lost for two seconds with the agent dead", async () => {
    await settled(plane);
    const leaks = await watch();
    await underTraffic(async () => {
      await plane.lab.fail("agent", "datacenter1");
      await plane.lab.fail("carrier", "datacenter1");
      await new Promise((wake) => setTimeout(wake, 2_000));
      await plane.lab.heal("carrier");
      await plane.becomes("traffic flows again, still without an agent", "datacenter1", [plane.addressOf("do1"), plane.addressOf("do2")]);
      await plane.lab.heal("agent");
    });
    expect(await leaks()).toBe(0);
  });

  test("when wireguard-go dies with the agent dead: unreachable, until the agent is back", async () => {
    await settled(plane);
    const leaks = await watch();
    await underTraffic(async () => {
      await plane.lab.fail("agent", "datacenter1");
      for (const link of ["ismg1", "ismg2", "ism0"]) await plane.lab.fail("wireguard", "datacenter1", link);
      expect(await plane.seenFrom("datacenter1")).toBe("");
      await plane.lab.heal("agent");
      await plane.becomes("traffic flows again", "datacenter1", [plane.addressOf("do1"), plane.addressOf("do2")]);
    });
    expect(await leaks()).toBe(0);
  });

  test("when all gateways are dead, and the last choice stays; that it carries nothing is said, and no longer than it is so", async () => {
    await settled(plane);
    const leaks = await watch();
    await underTraffic(async () => {
      await plane.lab.fail("node", "do1", "do2");
      await eventually("the node says that the last choice stays", 20_000, async () =>
        (await plane.explain("datacenter1", INTERNET)).reason === "LastKnown" ? true : undefined,
      );
      expect(await plane.seenFrom("datacenter1")).toBe("");
      const ready = await conditionOf(plane, "egressgateways", "internet", "Ready", ({ status }) => status === "False");
      expect(ready).toMatchObject({ reason: "NodesFailing", message: expect.stringContaining("LastKnown") });
      const { results, events } = await plane.status("datacenter1");
      expect(results["egress/internet"]).toMatchObject({ ok: false, reason: "LastKnown" });
      expect(events).toContainEqual(expect.objectContaining({ type: "Warning", reason: "LastKnown", about: "egress/internet" }));
      await plane.lab.heal();
      await plane.becomes("traffic flows again", "datacenter1", [plane.addressOf("do1"), plane.addressOf("do2")]);
    });
    await conditionOf(plane, "egressgateways", "internet", "Ready", ({ status }) => status === "True");
    await plane.lab.fail("agent", "datacenter1");
    await plane.lab.heal("agent");
    const heard = await eventually("the new agent has heard its gateways", 30_000, async () => {
      const status = await plane.status("datacenter1").catch(() => undefined);
      return status !== undefined && status.links.length > 0 && status.links.every(({ verdict }) => verdict === "Up") ? status : undefined;
    });
    expect(heard.results["egress/internet"]).toMatchObject({ ok: true });
    expect(heard.events.map(({ reason }) => reason)).not.toContain("LastKnown");
    expect(await leaks()).toBe(0);
    // The counter can count: lanhost goes to the covered host by its router.
    expect(await plane.seenFrom("lanhost")).toBe(plane.addressOf("dc-router"));
    expect(await leaks()).toBeGreaterThan(0);
  });
});

describe("a default route through the overlay", () => {
  const everything = {
    apiVersion: "isthmus.dev/v1alpha1",
    kind: "EgressGateway",
    metadata: { name: "everything" },
    spec: { destinations: ["0.0.0.0/0", "::/0"], sources: { nodeSelector: { "isthmus.dev/site": "do2" } }, gateways: [{ site: "do1" }] },
  };

  test("leaves connections from covered destinations to the node's own address alone, new ones too", async () => {
    await settled(plane);
    const server = await background(NAME, "do2", ["python3", "-c", ECHO]);
    try {
      const target = plane.addressOf("do2");
      // The internet host is a covered destination; so is the controller's neighbour, whose address is protected.
      const before = await eventually("the server listens", 15_000, async () => plane.flow("inet", target, 2222).catch(() => undefined), {
        everyMs: 200,
      });
      await plane.apply(everything);
      await plane.becomes("do2's own traffic leaves by do1", "do2", plane.addressOf("do1"));
      const after = await plane.flow("inet", target, 2222);
      await new Promise((wake) => setTimeout(wake, 1_500));
      for (const flow of [before, after]) {
        const report = await flow.stop();
        expect(report.error).toBeUndefined();
        expect(report.sent).toBeGreaterThan(20);
        expect(report.echoed).toBe(report.sent);
      }
      await settled(plane);
      expect((await plane.status("do2")).controller.connected).toBe(true);
    } finally {
      await server.stop();
      await plane.remove("egressgateways", "everything").catch(() => {});
    }
    await plane.becomes("without it do2 goes by its own uplink", "do2", plane.addressOf("do2"), "34.160.111.145");
  });

  test("does not cost a node its IPv6 default route from router advertisements", async () => {
    await settled(plane);
    // do2 has no IPv6 default route yet, and its agent has turned forwarding on. A reboot lets the kernel start as an installation does.
    const router = await routerAdvertisements();
    const defaultRoute = async (): Promise<string> => (await plane.sh("do2", "ip -6 route show default")).trim();
    try {
      await plane.lab.fail("node", "do2");
      await plane.lab.heal("node", "do2");
      await netnsScript(netnsName(NAME, WORLD), "echo 0 >/proc/sys/net/ipv6/conf/w-do2/disable_ipv6");
      const forwards = async (): Promise<boolean> => (await plane.sh("do2", "cat /proc/sys/net/ipv6/conf/all/forwarding")).trim() === "1";
      await eventually("a default route by advertisement", 30_000, async () => ((await defaultRoute()).includes("proto ra") ? true : undefined), {
        everyMs: 100,
      });
      await eventually("forwarding is on", 30_000, async () => ((await forwards()) ? true : undefined), { everyMs: 100 });
      await plane.sh("do2", "sleep 1");
      expect(await defaultRoute()).toContain("proto ra");
      expect((await plane.sh("do2", "cat /proc/sys/net/ipv6/conf/eth0/accept_ra")).trim()).toBe("2");
      // And it is renewed: the lifetime of an advertisement goes on while forwarding.
      await plane.sh("do2", "ip -6 route del default || true");
      await eventually("the next advertisement is taken", 30_000, async () => ((await defaultRoute()).includes("proto ra") ? true : undefined), {
        everyMs: 100,
      });
    } finally {
      await router.stop();
    }
  });
});

/** A router on do2's uplink that advertises itself every 500 ms. */
async function routerAdvertisements(): Promise<{ stop(): Promise<void> }> {
  const child = execa("ip", ["netns", "exec", netnsName(NAME, WORLD), "python3", RA, "w-do2"], { reject: false, stdin: "ignore", buffer: false });
  return {
    async stop() {
      child.kill("SIGKILL");
      await child;
    },
  };
}

const ECHO = `
import socket, threading
server = socket.socket(); server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", 2222)); server.listen(8)
def serve(one):
    while True:
        data = one.recv(4096)
        if not data: return
        one.sendall(data)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
`;
