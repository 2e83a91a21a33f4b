/** A site's LAN, both ways: clients reach it through the site's gateway node, and its machines reach the overlay. Needs root. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { desiredKernel } from "../../../mesh/kernel/desired.ts";
import type { PathId, PeerPlan, Plan } from "../../../mesh/model/plan.ts";
import type { Endpoint, NodeName } from "../../../mesh/model/scalars.ts";
import { choice, cidr, input, NETWORK, node, path, peer } from "../../mesh/kernel/fixtures.ts";
import { eventually, isRoot, openLan, type Lan, type Machine } from "./namespaces.ts";

const SITE: PathId = "subnet/dc";

describe.runIf(isRoot)("a site's subnet", () => {
  let wire: Lan;
  let gateway: Machine;
  let remote: Machine;
  let machine: Machine;

  beforeAll(async () => {
    wire = openLan("s");
    // One wire for all; only the gateway and the machine without an agent have addresses of the LAN.
    [gateway, remote, machine] = await Promise.all([
      wire.machine("dc1", "192.0.2.1/24", "ip -n NS addr add 172.20.88.11/24 dev eth0; ip -n NS route add default via 192.0.2.254"),
      wire.machine("do1", "192.0.2.2/24", "ip -n NS route add default via 192.0.2.254"),
      wire.machine("lan", "172.20.88.50/24", "ip -n NS route add 10.101.0.0/16 via 172.20.88.11"),
    ]);
    const peers = new Map<NodeName, PeerPlan>([
      [node("dc1"), { ...peer(1, "dc", ["192.0.2.1:51820"]), k: gateway.publicKey }],
      [node("do1"), { ...peer(2, "region1", ["192.0.2.2:51820"]), k: remote.publicKey }],
    ]);
    const common = {
      network: { ...NETWORK, controllers: [] },
      peers,
      sites: new Map(),
      lanRoutes: new Map(),
      paths: new Map([[SITE, path(["172.20.88.0/24"], ["dc1"])]]),
    };
    const gatewayPlan: Plan = {
      ...common,
      self: { name: node("dc1"), index: 1, site: peers.get(node("dc1"))!.s, labels: {}, advertise: [], subnets: [cidr("172.20.88.0/24")] },
      serves: new Map([[SITE, { snat: { type: "Masquerade" }, uplink: [], uplinkIntervalMs: 100, threshold: 3, holdDownMs: 5_000 }]]),
      clients: new Map([[node("do1"), { paths: [SITE] }]]),
    };
    const remotePlan: Plan = {
      ...common,
      self: { name: node("do1"), index: 2, site: peers.get(node("do1"))!.s, labels: {}, advertise: [], subnets: [] },
      serves: new Map(),
      clients: new Map(),
    };
    const dial = { mesh: "192.0.2.1:51820" as Endpoint, gateway: "192.0.2.1:51821" as Endpoint };
    const states = [
      [gateway, desiredKernel(input({ plan: gatewayPlan, host: await gateway.hostFacts(), publicKey: gateway.publicKey })).state],
      [
        remote,
        desiredKernel(
          input({
            plan: remotePlan,
            host: await remote.hostFacts(),
            publicKey: remote.publicKey,
            links: new Map([[node("dc1"), 1]]),
            choices: new Map([[SITE, choice(["dc1"])]]),
            dial: new Map([[node("dc1"), dial]]),
          }),
        ).state,
      ],
    ] as const;
    for (const [one, desired] of states) {
      const results = await one.converge(desired);
      expect(results.filter(({ ok }) => !ok)).toEqual([]);
      expect(await one.difference(desired)).toEqual([]);
    }
  });
  afterAll(() => wire.close());

  it("is reached by nodes of other sites, translated to the gateway's own LAN address", async () => {
    await machine.serve({ port: 80 });
    await eventually(5_000, "a ping to the machine of the LAN", () => remote.ok("ping -c1 -W1 172.20.88.50"));
    const flow = await remote.open({ host: "172.20.88.50", port: 80 });
    expect(await remote.say({ id: flow, withinMs: 1_000 })).toBe("172.20.88.11");
  });

  it("includes the gateway's own LAN address, which answers over the link", () => {
    expect(remote.ok("ping -c1 -W1 172.20.88.11")).toBe(true);
  });

  it("reaches the overlay through the gateway, as the gateway", async () => {
    await remote.serve({ port: 81 });
    const flow = await machine.open({ host: "10.101.0.2", port: 81 });
    expect(await machine.say({ id: flow, withinMs: 1_000 })).toBe("10.101.0.1");
  });

  it("reaches the gateway's own overlay address", () => {
    expect(machine.ok("ping -c1 -W1 10.101.0.1")).toBe(true);
  });

  it("cannot pretend to be an overlay address", () => {
    const asked = (): string => /^Icmp: (?:\S+ ){8}(\S+)/m.exec(gateway.sh("grep '^Icmp: [0-9]' /proc/net/snmp"))?.[1] ?? "";
    const before = asked();
    machine.sh("ip addr add 10.101.0.77/32 dev lo");
    expect(machine.ok("ping -c1 -W1 -I 10.101.0.77 10.101.0.1")).toBe(false);
    expect(asked()).toBe(before);
    machine.sh("ip addr del 10.101.0.77/32 dev lo");
    expect(machine.ok("ping -c1 -W1 10.101.0.1")).toBe(true);
    expect(Number(asked())).toBe(Number(before) + 1);
  });

  it("does not carry machines of other networks into the overlay", () => {
    gateway.sh(
      "nft 'add table ip watch; add chain ip watch out { type filter hook postrouting priority -400; }; add rule ip watch out oifname ism0 ip saddr 192.0.2.66 counter'",
    );
    machine.sh("ip addr add 192.0.2.66/24 dev eth0; ip route replace 10.101.0.0/16 via 192.0.2.1");
    expect(machine.ok("ping -c1 -W1 -I 192.0.2.66 10.101.0.2")).toBe(false);
    expect(gateway.sh("nft list table ip watch")).toContain("counter packets 0 bytes 0");
    gateway.sh("nft delete table ip watch");
  });
});
