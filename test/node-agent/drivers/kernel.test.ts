/** The drivers against a real kernel: two gateways, a client, wireguard-go. Needs root. */
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Choice } from "../../../mesh/elect/types.ts";
import { desiredKernel } from "../../../mesh/kernel/desired.ts";
import type { DesiredInput, KernelState } from "../../../mesh/kernel/types.ts";
import { silentDrift } from "../../../mesh/kernel/silent-drift.ts";
import type { PeerPlan, Plan } from "../../../mesh/model/plan.ts";
import type { Endpoint, NodeName } from "../../../mesh/model/scalars.ts";
import { patient } from "../../../lab/patience.ts";
import { choice, cidr, EGRESS, input, NETWORK, node, path, peer } from "../../mesh/kernel/fixtures.ts";
import { eventually, isRoot, kill, openLan, type Lan, type Machine } from "./namespaces.ts";

const ADDRESSES = { dc1: "192.168.90.11", do1: "192.168.90.1", do2: "192.168.90.2" } as const;

describe.runIf(isRoot)("drivers on a real kernel", () => {
  let lan: Lan;
  let dc1: Machine;
  let do1: Machine;
  let do2: Machine;
  let server: Machine;
  let peers: Map<NodeName, PeerPlan>;

  beforeAll(async () => {
    lan = openLan("k");
    // The server is reached by the underlay through a dead route, so that a leak would be seen there.
    const uplink = "ip -n NS addr add 203.0.113.ID/24 dev eth0";
    [dc1, do1, do2, server] = await Promise.all([
      lan.machine("dc1", `${ADDRESSES.dc1}/24`, "ip -n NS route add default via 192.168.90.99"),
      lan.machine("do1", `${ADDRESSES.do1}/24`, uplink.replace("ID", "1")),
      lan.machine("do2", `${ADDRESSES.do2}/24`, uplink.replace("ID", "2")),
      lan.machine("srv", "203.0.113.100/24", "ip -n NS addr add 192.168.90.99/24 dev eth0"),
    ]);
    peers = new Map([
      [node("dc1"), { ...peer(1, "dc", [`${ADDRESSES.dc1}:51820`]), k: dc1.publicKey }],
      [node("do1"), { ...peer(2, "region1", [`${ADDRESSES.do1}:51820`]), k: do1.publicKey }],
      [node("do2"), { ...peer(3, "region2", [`${ADDRESSES.do2}:51820`]), k: do2.publicKey }],
    ]);
  });
  afterAll(() => lan.close());

  const planOf = (name: keyof typeof ADDRESSES, parts: Partial<Plan>): Plan => ({
    network: { ...NETWORK, controllers: [] },
    self: { name: node(name), index: peers.get(node(name))!.i, site: peers.get(node(name))!.s, labels: {}, advertise: [], subnets: [] },
    peers,
    sites: new Map(),
    paths: new Map([[EGRESS, path(["203.0.113.0/24"], ["do1", "do2"])]]),
    lanRoutes: new Map(),
    serves: new Map(),
    clients: new Map(),
    ...parts,
  });

  const gateway = async (machine: Machine, name: "do1" | "do2"): Promise<KernelState> => {
    const parts: Partial<Plan> = {
      serves: new Map([[EGRESS, { snat: { type: "Masquerade" }, uplink: [], uplinkIntervalMs: 100, threshold: 3, holdDownMs: 5_000 }]]),
      clients: new Map([[node("dc1"), { paths: [EGRESS] }]]),
    };
    return desiredKernel(input({ plan: planOf(name, parts), host: await machine.hostFacts(), publicKey: machine.publicKey })).state;
  };

  const client = async (active: Choice = choice(["do1"]), extra: Partial<DesiredInput> = {}): Promise<KernelState> => {
    const dial = (name: "do1" | "do2") => ({ mesh: `${ADDRESSES[name]}:51820` as Endpoint, gateway: `${ADDRESSES[name]}:51821` as Endpoint });
    const host = await dc1.hostFacts();
    return desiredKernel(
      input({
        plan: planOf("dc1", {}),
        host,
        publicKey: dc1.publicKey,
        links: new Map([
          [node("do1"), 1],
          [node("do2"), 2],
        ]),
        choices: new Map([[EGRESS, active]]),
        dial: new Map([
          [node("do1"), dial("do1")],
          [node("do2"), dial("do2")],
        ]),
        ...extra,
      }),
    ).state;
  };

  it("converges: what is applied is what is observed, and a second diff is empty", async () => {
    for (const [machine, desired] of [
      [do1, await gateway(do1, "do1")],
      [do2, await gateway(do2, "do2")],
      [dc1, await client()],
    ] as const) {
      const results = await machine.converge(desired);
      expect(results.filter(({ ok }) => !ok)).toEqual([]);
      expect(await machine.difference(desired)).toEqual([]);
    }
  });

  const ECHO = { from: "10.102.0.1", to: "10.103.0.2", port: 51819, withinMs: 300 };
  const UNDERLAY = "203.0.113.100";

  it("carries egress through the chosen gateway, which translates the source", async () => {
    await server.serve({ port: 80 });
    await eventually(5_000, "a ping through do1", () => dc1.ok(`ping -c1 -W1 ${UNDERLAY}`));
    const flow = await dc1.open({ host: UNDERLAY, port: 80 });
    expect(await dc1.say({ id: flow, withinMs: 1_000 })).toBe("203.0.113.1");
  });

  it("answers probes from its forward hook, over IPv4 and IPv6", async () => {
    expect(await dc1.echo(ECHO)).toBe(true);
    expect(await dc1.echo({ ...ECHO, from: "fd5e:1:0:1::1", to: "fd5e:1:0:2::2" })).toBe(true);
  });

  it("answers no probe while forwarding is off", async () => {
    do1.sh("sysctl -qw net.ipv4.ip_forward=0");
    expect(await dc1.echo(ECHO)).toBe(false);
    const desired = await gateway(do1, "do1");
    expect((await do1.difference(desired)).map(({ op }) => op)).toEqual(["sysctl.set"]);
    await do1.converge(desired);
    expect(await dc1.echo(ECHO)).toBe(true);
  });

  it("answers no probe while someone else drops what is forwarded, and names the chain", async () => {
    do1.sh("nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'");
    expect(await dc1.echo(ECHO)).toBe(false);
    expect(await do1.blockers()).toEqual(["table ip filter, chain FORWARD"]);
    do1.sh("nft delete table ip filter");
    expect(await dc1.echo(ECHO)).toBe(true);
    expect(await do1.blockers()).toEqual([]);
  });

  it("forwards only what its plan says", async () => {
    // Another destination behind do1, by a route that the client makes itself: the gateway must not carry it.
    do1.sh("ip addr add 198.51.100.1/24 dev eth0");
    server.sh("ip addr add 198.51.100.100/24 dev eth0");
    dc1.sh("ip route add 198.51.100.100/32 dev ismg1 src 10.101.0.1");
    expect(dc1.ok("ping -c1 -W1 198.51.100.100")).toBe(false);
    expect(dc1.ok(`ping -c1 -W1 ${UNDERLAY}`)).toBe(true);
    dc1.sh("ip route del 198.51.100.100/32 dev ismg1");
    do1.sh("ip addr del 198.51.100.1/24 dev eth0");
  });

  it("sees and puts back what someone else changed in WireGuard, and the session goes on", async () => {
    const desired = await client();
    const before = (await dc1.silent()).wireguard.get("ismg1")?.peers.get(do1.publicKey)?.latestHandshake;
    const peer = `peer ${do1.publicKey}`;
    dc1.sh(`umask 077; wg genpsk >${dc1.dir}/psk; wg genkey >${dc1.dir}/other-key`);
    for (const change of [
      `${peer} allowed-ips 198.18.55.0/24`,
      `${peer} allowed-ips 0.0.0.0/0`,
      `${peer} persistent-keepalive 0`,
      `${peer} preshared-key ${dc1.dir}/psk`,
      `${peer} remove`,
      "peer $(wg genkey | wg pubkey) allowed-ips 198.18.55.0/24",
      "listen-port 40000",
      "fwmark 0",
      `private-key ${dc1.dir}/other-key`,
    ]) {
      dc1.sh(`wg set ismg1 ${change}`);
      expect([change, silentDrift(desired, await dc1.silent())]).not.toEqual([change, ""]);
      expect((await dc1.converge(desired)).filter(({ ok }) => !ok)).toEqual([]);
      expect([change, silentDrift(desired, await dc1.silent())]).toEqual([change, ""]);
      expect([change, await dc1.difference(desired)]).toEqual([change, []]);
    }
    dc1.sh(`rm ${dc1.dir}/psk ${dc1.dir}/other-key`);
    expect(before).toBeGreaterThan(0);
    await eventually(20_000, "a ping through do1", () => dc1.ok(`ping -c1 -W1 ${UNDERLAY}`));
  });

  it("lets those in who connect to the node's own address from a covered destination", () => {
    expect(server.ok(`ping -c1 -W1 -I ${UNDERLAY} ${ADDRESSES.dc1}`)).toBe(true);
  });

  it("lets the gateway itself answer over the link that a flow came by", () => {
    // 203.0.113.1 is do1's own address inside the destination.
    expect(dc1.ok("ping -c1 -W1 203.0.113.1")).toBe(true);
  });

  it("keeps established flows on their link in a planned move, and moves new ones", async () => {
    const before = await dc1.open({ host: UNDERLAY, port: 80 });
    expect(await dc1.say({ id: before, withinMs: 1_000 })).toBe("203.0.113.1");
    const results = await dc1.converge(await client(choice(["do2"], { draining: [{ node: node("do1"), until: 1 }] })));
    expect(results.every(({ op, ok }) => ok && op.op === "nexthop.replace")).toBe(true);
    const after = await dc1.open({ host: UNDERLAY, port: 80 });
    expect(await dc1.say({ id: after, withinMs: 1_000 })).toBe("203.0.113.2");
    expect(await dc1.say({ id: before, withinMs: 1_000 })).toBe("203.0.113.1");
  });

  it("moves and resets the flows that remain when the link is given up", async () => {
    const flow = await dc1.open({ host: UNDERLAY, port: 80 });
    expect(await dc1.say({ id: flow, withinMs: 1_000 })).toBe("203.0.113.2");
    await dc1.converge(await client(choice(["do1"]), { deadLinks: new Set([node("do2")]) }));
    expect(await dc1.say({ id: flow, withinMs: 2_000 })).toBe("reset");
    await dc1.converge(await client());
  });

  it("keeps WireGuard running and adopts everything when the agent is killed with its process group", async () => {
    // Interfaces by number, and the processes behind them where the kernel has no WireGuard.
    const running = (): string => `${dc1.sh("ip -o link | grep -oE '^[0-9]+: ism[0-9a-z]+'")}${dc1.pids("wireguard-go").join()}`;
    const before = running();
    expect(before.match(/ism/g)).toHaveLength(3);
    await dc1.restart();
    expect(running()).toEqual(before);
    expect(await dc1.difference(await client())).toEqual([]);
  });

  it("fails closed when the active link goes away, and puts it back", async () => {
    dc1.sh(
      "nft 'add table ip watch; add chain ip watch out { type filter hook postrouting priority 500; }; add rule ip watch out oifname eth0 ip daddr 203.0.113.0/24 counter'",
    );
    const [pid] = dc1.pids("wireguard-go -f ismg1");
    if (pid === undefined) dc1.sh("ip link del ismg1");
    else kill(pid);
    await eventually(2_000, "the link is gone", () => !dc1.ok("ip link show ismg1"));
    expect(dc1.ok(`ping -c2 -i 0.2 -W1 ${UNDERLAY}`)).toBe(false);
    expect(dc1.sh("nft list table ip watch")).toContain("counter packets 0 bytes 0");
    const desired = await client();
    const results = await dc1.converge(desired);
    expect(results.filter(({ ok }) => !ok)).toEqual([]);
    expect(await dc1.difference(desired)).toEqual([]);
    await eventually(5_000, "a ping through the new link", () => dc1.ok(`ping -c1 -W1 ${UNDERLAY}`));
    expect(dc1.sh("nft list table ip watch")).toContain("counter packets 0 bytes 0");
    dc1.sh("nft delete table ip watch");
  });

  it.each([
    ["routes", "ip route flush table 157 || true"],
    ["one v6 route", "ip -6 route del default table 158"],
    ["rules", "ip rule del priority 15790; ip -6 rule del priority 15700"],
    ["nexthops", "ip nexthop flush proto 157"],
    ["the nft table", "nft delete table inet isthmus"],
    ["a rule of the nft table", "nft flush chain inet isthmus pin"],
    ["an address", "ip addr del 10.101.0.1/32 dev lo"],
    ["a link", "ip link del ismg2"],
    ["a link that was set down", "ip link set ismg1 down"],
    ["a peer", "wg set ism0 peer $(wg show ism0 peers | head -1) remove"],
    ["the names", "echo '127.0.0.1 localhost' > HOSTS"],
    ["a sysctl", "sysctl -qw net.ipv4.conf.ismg1.rp_filter=1"],
  ])("puts back %s that someone removed or changed", async (_, script) => {
    const desired = await client();
    expect(await dc1.difference(desired)).toEqual([]);
    dc1.sh(script.replace("HOSTS", `${dc1.dir}/hosts`));
    expect(await dc1.difference(desired)).not.toEqual([]);
    const results = await dc1.converge(desired);
    expect(results.filter(({ ok }) => !ok)).toEqual([]);
    expect(await dc1.difference(desired)).toEqual([]);
  });

  it("makes a link anew whose process lost its socket", async ({ skip }) => {
    skip((await dc1.hostFacts()).wireguard === "kernel", "the kernel has WireGuard: there is no process");
    const desired = await client();
    dc1.sh(`rm /var/run/wireguard/ismg2.sock`);
    const results = await dc1.converge(desired);
    expect(results.filter(({ ok }) => !ok)).toEqual([]);
    expect(await dc1.difference(desired)).toEqual([]);
    expect(dc1.pids("wireguard-go -f ismg2")).toHaveLength(1);
  });

  it("sees and changes all others while one process answers nobody, and makes that one anew when it does not come back", async ({ skip }) => {
    skip((await dc1.hostFacts()).wireguard === "kernel", "the kernel has WireGuard: there is no process");
    const desired = await client();
    const before = await dc1.observe();
    const [pid = 0] = dc1.pids("wireguard-go -f ismg2");
    await stop(pid);
    const looked = await dc1.observe();
    expect(looked.wireguard.get("ismg2")).toEqual({ ...before.wireguard.get("ismg2"), mute: true });
    expect([...looked.wireguard.values()].filter(({ mute }) => mute)).toHaveLength(1);
    const [peer] = desired.wireguard.get("ismg2")!.peers.values();
    const { ms, failed } = await dc1.timed([{ op: "peer.reset", link: "ismg2", peer: peer! }]);
    expect(failed.map(({ error }) => error)).toEqual(["wireguard-go ismg2: does not answer"]);
    // It is not even asked.
    expect(ms).toBeLessThan(patient(300));
    process.kill(pid, "SIGCONT");
    await eventually(5_000, "the process speaks again", async () => (await dc1.silent()).wireguard.get("ismg2")?.mute === undefined);
    expect(await dc1.difference(desired)).toEqual([]);

    await stop(pid);
    await eventually(60_000, "it is given up", async () => (await dc1.observe()).wireguard.get("ismg2")?.broken);
    const results = await dc1.converge(desired);
    expect(results.filter(({ ok }) => !ok)).toEqual([]);
    expect(await dc1.difference(desired)).toEqual([]);
    expect(dc1.pids("wireguard-go -f ismg2")).toHaveLength(1);
    expect(dc1.pids("wireguard-go -f ismg2")).not.toContain(pid);
  }, 90_000);

  it("wakes up when someone changes something", async () => {
    const woken = new Set<string>();
    await dc1.watch((what) => woken.add(what));
    await eventually(5_000, "a wake-up by a route", async () => {
      dc1.sh(
        "ip route replace 198.51.100.0/24 dev eth0; ip route del 198.51.100.0/24 dev eth0; nft add table ip scratch; nft delete table ip scratch",
      );
      await new Promise((resolve) => setImmediate(resolve));
      return woken.has("network") && woken.has("nft");
    });
  });

  it("says that a port is taken, in words that help", async () => {
    const desired = await client();
    const link = desired.wireguard.get("ism0")!;
    await do2.serve({ port: 1 });
    const results = await dc1.apply([{ op: "link.set", link: { ...link, listenPort: 51831 }, before: link }]);
    expect(results[0]).toMatchObject({ ok: false, code: "PortTaken" });
    await dc1.converge(desired);
  });

  it("has groups of nexthops that systemd-networkd leaves alone, and leaves those of others alone", async () => {
    const groups = dc1.sh("ip nexthop show | grep ' group '").trim().split("\n");
    expect(groups.filter((line) => !/ proto kernel *$/.test(line))).toEqual([]);
    dc1.sh("ip nexthop add id 4711 blackhole proto 99; ip nexthop add id 4712 group 4711 proto kernel; ip nexthop add id 157150 group 4711 proto 99");
    expect(await dc1.difference(await client())).toEqual([]);
    dc1.sh("ip nexthop del id 4711");
  });

  it("leaves a foreign route alone that has the destination and metric of one of ours", async () => {
    dc1.sh("ip route add 198.51.100.0/24 via 192.168.90.99 metric 7");
    const route = { family: 4, dst: cidr("198.51.100.0/24"), table: 254, type: "unicast", metric: 7, via: "192.168.90.1" as never } as const;
    const [added] = await dc1.apply([{ op: "route.add", route }]);
    expect(added).toMatchObject({ ok: false, code: "KernelRefused" });
    const [removed] = await dc1.apply([{ op: "route.remove", route }]);
    expect(removed?.ok).toBe(true);
    expect(dc1.sh("ip route show 198.51.100.0/24")).toContain("via 192.168.90.99");
    dc1.sh("ip route del 198.51.100.0/24");
  });

  it("cleans up exactly what is ours", async () => {
    dc1.sh(
      "ip route add 198.51.100.0/24 via 192.168.90.99; ip rule add priority 15780 from 198.51.100.7 lookup 99; ip addr add 198.51.100.9/32 dev lo; nft add table inet other",
    );
    const said = await dc1.cleanup();
    expect(said.length).toBeGreaterThan(20);
    expect(said.filter((line) => line.startsWith("could not"))).toEqual([]);
    expect(said).toContain("restore sysctl net.ipv4.conf.all.src_valid_mark");
    expect(said).toContain("remove nft table inet isthmus");
    expect(said.filter((line) => line.endsWith("from the hosts file"))).toHaveLength(1);
    const left = await dc1.observe();
    expect({ ...left, nft: left.nft ?? null }).toEqual({
      wireguard: new Map(),
      addresses: new Set(),
      nexthops: new Map(),
      routes: new Map(),
      rules: new Map(),
      nft: null,
      sysctls: new Map(),
      hosts: new Map(),
    });
    expect(dc1.pids("wireguard-go")).toEqual([]);
    expect(dc1.sh("cat /proc/sys/net/ipv4/conf/all/src_valid_mark").trim()).toBe("0");
    expect(dc1.sh(`cat ${dc1.dir}/hosts`)).toBe("127.0.0.1 localhost\n");
    expect(dc1.sh("ip route; ip rule; ip addr show dev lo; nft list tables")).toMatch(
      /198\.51\.100\.0\/24 via[^]*15780:[^]*198\.51\.100\.9\/32[^]*table inet other/,
    );
    expect(dc1.sh("ip rule; ip -6 rule")).not.toMatch(/proto 157|157\d\d:\s.*fwmark/);
    expect(await dc1.cleanup()).toEqual([]);
  });
});

/** A signal is not yet a standstill: a thread that runs on another processor may answer once more. */
async function stop(pid: number): Promise<void> {
  // Zero would be this process with all that it started.
  if (pid === 0) throw new Error("there is no such process");
  process.kill(pid, "SIGSTOP");
  const stands = (thread: string): boolean => /^State:\tT/m.test(readFileSync(`/proc/${pid}/task/${thread}/status`, "utf8"));
  await eventually(5_000, "all threads stand still", () => Promise.resolve(readdirSync(`/proc/${pid}/task`).every(stands)));
}
