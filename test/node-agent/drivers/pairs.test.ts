/** Two LANs that keep their addresses, each behind two gateways: over pairwise links, whichever gateway a packet takes. Needs root. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { desiredKernel } from "../../../mesh/kernel/desired.ts";
import type { DesiredInput } from "../../../mesh/kernel/types.ts";
import { choice, node } from "../../mesh/kernel/fixtures.ts";
import { inputOf, intents, type Name, NODES } from "../../mesh/kernel/two-sites.ts";
import { eventually, isRoot, openLan, type Lan, type Machine } from "./namespaces.ts";

const ADDRESSES: Record<Name, string> = { a1: "192.0.2.1", a2: "192.0.2.2", b1: "192.0.2.3", b2: "192.0.2.4", c: "192.0.2.5" };
const LANS: Partial<Record<Name, string>> = { a1: "172.20.1.11/24", a2: "172.20.1.12/24", b1: "172.20.2.11/24", b2: "172.20.2.12/24" };
const S = "172.20.1.50";
const T = "172.20.2.50";
const PORT = 80;

describe.runIf(isRoot)("two LANs that keep their addresses", () => {
  let wire: Lan;
  let nodes: ReadonlyMap<Name, Machine>;
  let s: Machine;
  let t: Machine;
  let world: ReturnType<typeof intents>;
  const at = (name: Name): Machine => nodes.get(name)!;
  const linkOf = (from: Name, to: Name): string => `ismg${inputOf(world, from).links.get(node(to))}`;

  const converge = async (name: Name, parts: Partial<DesiredInput> = {}): Promise<void> => {
    const one = at(name);
    const desired = desiredKernel(inputOf(world, name, { host: await one.hostFacts(), ...parts })).state;
    expect((await one.converge(desired)).filter(({ ok }) => !ok)).toEqual([]);
    // Endpoints are left to WireGuard once a peer stands.
    const calm = desiredKernel(inputOf(world, name, { host: await one.hostFacts(), ...parts, dial: new Map() })).state;
    expect(await one.difference(calm)).toEqual([]);
  };
  const seen = async (from: Machine, host: string): Promise<string> => from.say({ id: await from.open({ host, port: PORT }), withinMs: 1_000 });
  const reaches = (from: Machine, to: string): Promise<unknown> =>
    eventually(10_000, `${from.name} pings ${to}`, () => from.ok(`ping -c1 -W1 ${to}`));

  beforeAll(async () => {
    wire = openLan("p");
    const made = await Promise.all(
      NODES.map(async (name) => {
        const lan = LANS[name] === undefined ? "" : `ip -n NS addr add ${LANS[name]} dev eth0;`;
        return [name, await wire.machine(name, `${ADDRESSES[name]}/24`, `${lan} ip -n NS route add default via 192.0.2.254`)] as const;
      }),
    );
    nodes = new Map(made);
    const route = (via: string): string => ["10.101.0.0/16", "172.20.0.0/16"].map((to) => `ip -n NS route add ${to} via ${via}`).join("; ");
    s = await wire.machine("s", `${S}/24`, route("172.20.1.11"));
    t = await wire.machine("t", `${T}/24`, route("172.20.2.11"));
    world = intents({ keys: new Map(made.map(([name, machine]) => [name, machine.publicKey])), addresses: ADDRESSES });
    for (const name of NODES) await converge(name);
    for (const machine of [s, t, at("c")]) await machine.serve({ port: PORT });
    await Promise.all([reaches(s, T), reaches(at("c"), S), reaches(at("c"), T)]);
  }, 60_000);
  afterAll(() => wire.close());

  it("see each other's own addresses, whichever began", async () => {
    expect(await seen(s, T)).toBe(S);
    expect(await seen(t, S)).toBe(T);
  });

  it("and nodes of other sites see them, and are seen, too", async () => {
    expect(await seen(s, "10.101.0.5")).toBe(S);
    expect(await seen(t, "10.101.0.5")).toBe(T);
    expect(await seen(at("c"), S)).toBe("10.101.0.5");
  });

  it("reach the overlay addresses and the LAN addresses of both gateways of the other site", async () => {
    for (const address of ["10.101.0.3", "10.101.0.4", "172.20.2.11", "172.20.2.12"]) await reaches(s, address);
  });

  it("reach each other when answers leave by the other gateway", async () => {
    t.sh("ip route replace 172.20.1.0/24 via 172.20.2.12");
    expect(await seen(s, T)).toBe(S);
    s.sh("ip route replace 172.20.2.0/24 via 172.20.1.12");
    expect(await seen(s, T)).toBe(S);
    expect(await seen(t, S)).toBe(T);
    s.sh("ip route replace 172.20.2.0/24 via 172.20.1.11");
    t.sh("ip route replace 172.20.1.0/24 via 172.20.2.11");
  });

  it("keep an open connection when the gateway of either side is gone", async () => {
    const flow = await s.open({ host: T, port: PORT });
    expect(await s.say({ id: flow, withinMs: 1_000 })).toBe(S);
    at("a1").sh(`ip link set ${linkOf("a1", "b1")} down; ip link set ${linkOf("a1", "b2")} down; ip addr del 172.20.1.11/24 dev eth0`);
    const away = new Map([["subnet/s", choice(["a2"])]]) as never;
    for (const name of ["b1", "b2"] as const) await converge(name, { choices: away, deadLinks: new Set([node("a1")]) });
    s.sh("ip route replace 172.20.2.0/24 via 172.20.1.12");
    expect(await s.say({ id: flow, withinMs: 3_000 })).toBe(S);
    at("b1").sh(`ip link set ${linkOf("b1", "a2")} down; ip addr del 172.20.2.11/24 dev eth0`);
    await converge("a2", { choices: new Map([["subnet/t", choice(["b2"])]]) as never, deadLinks: new Set([node("b1")]) });
    t.sh("ip route replace 172.20.1.0/24 via 172.20.2.12");
    expect(await s.say({ id: flow, withinMs: 3_000 })).toBe(S);
    // All as before.
    at("a1").sh("ip addr add 172.20.1.11/24 dev eth0");
    at("b1").sh("ip addr add 172.20.2.11/24 dev eth0");
    for (const name of NODES) await converge(name);
    s.sh("ip route replace 172.20.2.0/24 via 172.20.1.11");
    t.sh("ip route replace 172.20.1.0/24 via 172.20.2.11");
    await reaches(s, T);
  });

  it("I11: a gateway brings in its own LAN only, not the addresses of others", async () => {
    const link = linkOf("a1", "b1");
    const drops = (): string => at("b1").sh(`nft list chain ip watch in`);
    at("b1").sh(
      "nft 'add table ip watch; add chain ip watch in { type filter hook forward priority 10; }; add rule ip watch in ip daddr 172.20.2.50 icmp type echo-request counter'",
    );
    for (const forged of ["10.101.0.5", "172.20.9.9", "198.51.100.9"]) {
      at("a1").sh(`ip addr add ${forged}/32 dev lo; ip route add ${T}/32 dev ${link} table 99; ip rule add from ${forged} lookup 99 priority 100`);
      expect(at("a1").ok(`ping -c1 -W1 -I ${forged} ${T}`)).toBe(false);
      at("a1").sh(`ip rule del priority 100; ip route flush table 99; ip addr del ${forged}/32 dev lo`);
    }
    expect(drops()).toContain("counter packets 0 bytes 0");
    expect(s.ok(`ping -c1 -W1 ${T}`)).toBe(true);
    expect(drops()).toContain("counter packets 1 ");
    at("b1").sh("nft delete table ip watch");
  });

  it("are probed both ways over the one link", async () => {
    const probe = { port: 51_819, withinMs: 2_000 };
    await eventually(10_000, "a1 hears b1", () => at("a1").echo({ from: "10.102.0.1", to: "10.103.0.3", ...probe }));
    await eventually(10_000, "b1 hears a1", () => at("b1").echo({ from: "10.102.0.3", to: "10.103.0.1", ...probe }));
  });

  it("I4: leave nothing on the wire but what is encrypted, also without their links", async () => {
    const watch =
      "nft 'add table ip leak; add chain ip leak out { type filter hook postrouting priority 300; }; add rule ip leak out oifname eth0 ip saddr 172.20.0.0/16 ip daddr 172.20.0.0/16";
    for (const name of ["a1", "a2"] as const) at(name).sh(`${watch} ip daddr 172.20.2.0/24 counter'`);
    for (const name of ["b1", "b2"] as const) at(name).sh(`${watch} ip daddr 172.20.1.0/24 counter'`);
    await reaches(s, T);
    const killed = at("b1").pids(`wireguard-go ${linkOf("b1", "a1")}`);
    for (const pid of killed) process.kill(pid, "SIGKILL");
    for (const [from, to] of [
      [s, T],
      [t, S],
      [s, "172.20.2.11"],
    ] as const)
      from.ok(`ping -c2 -i 0.2 -W1 ${to}`);
    for (const name of ["a1", "a2", "b1", "b2"] as const) {
      expect(at(name).sh("nft list table ip leak")).toContain("counter packets 0 bytes 0");
      at(name).sh("nft delete table ip leak");
    }
    await converge("b1");
  });
});
