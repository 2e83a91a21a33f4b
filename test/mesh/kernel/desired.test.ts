import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { desiredKernel, pathSlots } from "../../../mesh/kernel/desired.ts";
import type { DesiredInput, KernelState, Route } from "../../../mesh/kernel/types.ts";
import type { PathId } from "../../../mesh/model/plan.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { choice, cidr, clientInput, EGRESS, gatewayInput, host, input, ip, NETWORK, node, path, PEERS, plan } from "./fixtures.ts";

const stateOf = (one: DesiredInput): KernelState => desiredKernel(one).state;
const route = (state: KernelState, dst: string, type: Route["type"]): Route | undefined =>
  [...state.routes.values()].find((one) => one.table === 157 && one.dst === dst && one.type === type);
const bytes = (state: KernelState): string =>
  JSON.stringify(state, (_, value: unknown) => (value instanceof Map ? [...value] : value instanceof Set ? [...value] : value));

describe("desiredKernel", () => {
  it("gives the same bytes whatever the order of its input", () => {
    const shuffled = <K, V>(map: ReadonlyMap<K, V>): fc.Arbitrary<Map<K, V>> =>
      fc.shuffledSubarray([...map], { minLength: map.size }).map((entries) => new Map(entries));
    for (const base of [clientInput(), gatewayInput()]) {
      const expected = bytes(stateOf(base));
      fc.assert(
        fc.property(
          shuffled(base.links),
          shuffled(PEERS),
          fc.shuffledSubarray([...base.plan.paths.get(EGRESS)!.destinations], { minLength: 2 }),
          (links, peers, destinations) => {
            const paths = new Map([[EGRESS, { ...base.plan.paths.get(EGRESS)!, destinations }]]);
            expect(bytes(stateOf({ ...base, links, plan: { ...base.plan, peers, paths } }))).toBe(expected);
          },
        ),
        { numRuns: 30 },
      );
    }
  });

  it("I4: every overlay destination has a fallback that keeps it off the underlay, whatever is alive", () => {
    fc.assert(
      fc.property(
        fc.subarray(["do1", "do2"]),
        fc.subarray(["do1", "do2"]),
        fc.subarray(["34.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "198.51.100.7/32"], { minLength: 1 }),
        (active, dead, destinations) => {
          const state = stateOf(
            clientInput({
              plan: plan("dc1", { paths: new Map([[EGRESS, path(destinations, ["do1", "do2"])]]) }),
              choices: new Map([[EGRESS, choice(active)]]),
              deadLinks: new Set(dead.map(node)),
            }),
          );
          for (const dst of [...destinations, "10.101.0.0/16", "10.102.0.0/15", "fd5e:1::/48"])
            expect(route(state, dst, "unreachable")?.metric).toBe(4_294_967_294);
          for (const dst of destinations) expect(route(state, dst, "unicast") !== undefined).toBe(active.length > 0);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("leaves a destination to the underlay only where the intent says so and no gateway was ever alive", () => {
    const one = (active: readonly string[]): KernelState =>
      stateOf(
        clientInput({
          plan: plan("dc1", { paths: new Map([[EGRESS, path(["34.0.0.0/8"], ["do1"], { onNoGateway: "Underlay" })]]) }),
          choices: new Map([[EGRESS, choice(active)]]),
        }),
      );
    expect(route(one([]), "34.0.0.0/8", "unreachable")).toBeUndefined();
    expect(route(one([]), "34.0.0.0/8", "throw")).toBeDefined();
    expect(route(one(["do1"]), "34.0.0.0/8", "unreachable")).toBeDefined();
    expect(route(one(["do1"]), "34.0.0.0/8", "throw")).toBeUndefined();
  });

  it("gives the same routes object after a failover: only groups moved", () => {
    const base = clientInput();
    const before = stateOf(base);
    const after = stateOf({ ...base, choices: new Map([[EGRESS, choice(["do2"])]]), deadLinks: new Set([node("do1")]) });
    expect(after.routes).toBe(before.routes);
  });

  it("keeps every path's group number while others come and go", () => {
    const ids = Array.from({ length: 200 }, (_, i): PathId => `egress/path-${i}`);
    const all = pathSlots(ids);
    expect(new Set(all.values()).size).toBe(200);
    const fewer = pathSlots(ids.filter((_, i) => i % 2 === 0));
    const moved = [...fewer].filter(([id, slot]) => all.get(id) !== slot);
    expect(moved.length).toBeLessThan(5);
    for (const slot of all.values()) expect(slot >= 157_200 && slot < 197_200).toBe(true);
  });

  it("points the flows of a dead link, and of one whose drain is over, at a live one", () => {
    const group = (extra: Partial<DesiredInput>, id: number): readonly number[] | undefined => stateOf(clientInput(extra)).nexthops.get(id)?.group;
    const moved = new Map([[EGRESS, choice(["do2"])]]);
    expect(group({}, 157_101)).toEqual([157_001]);
    expect(group({ choices: moved, deadLinks: new Set([node("do1")]) }, 157_101)).toEqual([157_002]);
    expect(group({ choices: new Map([[EGRESS, choice(["do2"], { draining: [{ node: node("do1"), until: 9 }] })]]) }, 157_101)).toEqual([157_001]);
    expect(group({ choices: moved }, 157_101)).toEqual([157_002]);
    // Nowhere to go: the last working choice stays.
    expect(group({ deadLinks: new Set([node("do1"), node("do2")]) }, 157_101)).toEqual([157_001]);
  });

  it("spreads over several links, with the kernel's flow hash", () => {
    const state = stateOf(
      clientInput({
        plan: plan("dc1", { paths: new Map([[EGRESS, path(["34.0.0.0/8"], ["do1", "do2"], { strategy: "Spread" })]]) }),
        choices: new Map([[EGRESS, choice(["do2", "do1"])]]),
      }),
    );
    const id = route(state, "34.0.0.0/8", "unicast")!.nexthopId!;
    expect(state.nexthops.get(id)?.group).toEqual([157_001, 157_002]);
    expect(state.sysctls.get("net.ipv4.fib_multipath_hash_policy")).toBe("1");
    expect(stateOf(clientInput()).sysctls.has("net.ipv4.fib_multipath_hash_policy")).toBe(false);
  });

  it("forwards on gateways only, and keeps a default route from router advertisements", () => {
    expect(stateOf(clientInput()).sysctls.has("net.ipv4.ip_forward")).toBe(false);
    const names = [...stateOf(gatewayInput({ host: host({ raInterfaces: ["eth0.7"] }) })).sysctls.keys()];
    expect(names).toContain("net.ipv4.ip_forward");
    expect(names.indexOf("net.ipv6.conf.eth0/7.accept_ra")).toBeGreaterThan(-1);
    expect(names.indexOf("net.ipv6.conf.eth0/7.accept_ra")).toBeLessThan(names.indexOf("net.ipv6.conf.all.forwarding"));
  });

  it("I11: a gateway lets a client send from its own addresses only", () => {
    const peers = stateOf(gatewayInput()).wireguard.get("ismgw0")!.peers;
    expect([...peers.values()].map(({ allowedIps }) => allowedIps)).toEqual([
      ["10.101.0.1/32", "10.102.0.1/32", "fd5e:1:0:1::1/128", "fd5e:1::1/128"],
    ]);
  });

  it("keeps a gateway's sessions with its clients alive from its own side, so that it opens them itself after a reboot", () => {
    const peers = stateOf(gatewayInput()).wireguard.get("ismgw0")!.peers;
    expect([...peers.values()].map(({ keepalive }) => keepalive)).toEqual([25]);
  });

  it("gives a client one link a gateway, with everything allowed and the same key and mark", () => {
    const { wireguard } = stateOf(clientInput());
    expect([...wireguard.keys()]).toEqual(["ism0", "ismg1", "ismg2"]);
    const link = wireguard.get("ismg2")!;
    expect([...link.peers.values()]).toMatchObject([{ publicKey: PEERS.get(node("do2"))!.k, allowedIps: ["0.0.0.0/0", "::/0"], keepalive: 25 }]);
    expect(link).toMatchObject({ listenPort: 51_832, fwmark: 0x41000000, publicKey: PEERS.get(node("dc1"))!.k });
  });

  it("writes nothing of IPv6 where the host has none, and no v6 routes on links below 1280 bytes", () => {
    const none = stateOf(clientInput({ host: host({ ipv6: false }) }));
    expect([...none.addresses].some((one) => one.includes(":"))).toBe(false);
    expect([...none.routes.values(), ...none.rules.values()].some(({ family }) => family === 6)).toBe(false);
    const small = stateOf(clientInput({ host: host({ overlayMtu: 1200 }) }));
    expect(route(small, "2001:db8::/32", "unicast")).toBeUndefined();
    expect(route(small, "2001:db8::/32", "unreachable")).toBeDefined();
    expect(small.nexthops.get(157_001)?.family).toBe(4);
  });

  describe("where fewer bytes get through to a peer than the underlay lets one expect", () => {
    const narrow = (bytes: number, measuring = {}): KernelState =>
      stateOf({ ...clientInput(), pathMtu: new Map([[node("do1"), bytes]]), ...measuring });

    it("its link has that MTU, and the mesh keeps its own but for that peer", () => {
      const state = narrow(1300);
      expect([...state.wireguard].map(([name, { mtu }]) => [name, mtu])).toEqual([
        ["ism0", 1420],
        ["ismg1", 1300],
        ["ismg2", 1420],
      ]);
      const mine = [...state.routes.values()].filter(({ mtu }) => mtu !== undefined);
      expect(mine.map(({ dev, mtu, family }) => [dev, mtu, family])).toEqual([
        ["ism0", 1300, 4],
        ["ism0", 1300, 6],
      ]);
      expect(route(state, "2001:db8::/32", "unicast")).toBeDefined();
      // While it is measured, nothing keeps large packets off the mesh.
      expect([...narrow(1300, { measuring: node("do1") }).routes.values()].some(({ mtu }) => mtu !== undefined)).toBe(false);
      expect(narrow(1300, { measuring: node("do1") }).wireguard.get("ismg1")?.mtu).toBe(1300);
    });

    it("there is no IPv6 below 1280 bytes: not by that link, nor by a path that may move to it", () => {
      const state = narrow(1200);
      expect(state.nexthops.get(157_001)?.family).toBe(4);
      expect(state.nexthops.get(157_002)?.family).toBeUndefined();
      expect(route(state, "2001:db8::/32", "unicast")).toBeUndefined();
      expect(route(state, "2001:db8::/32", "unreachable")).toBeDefined();
      expect(route(state, "34.160.111.145/32", "unicast")).toBeDefined();
      const sixth = [...state.routes.values()].filter(({ family, dev, nexthopId }) => family === 6 && (dev === "ismg1" || nexthopId !== undefined));
      expect(sixth).toEqual([]);
    });
  });

  it("keeps to the bits of the mark mask", () => {
    const narrow = { ...NETWORK, markMask: "0x00007f00" };
    const base = clientInput();
    const state = stateOf({ ...base, plan: { ...base.plan, network: narrow } });
    expect(state.wireguard.get("ism0")!.fwmark).toBe(0x4100);
    expect([...state.rules.values()].every(({ fwmark, fwmask }) => fwmark === undefined || (fwmask === 0x7f00 && (fwmark & ~0x7f00) === 0))).toBe(
      true,
    );
    expect(state.nft!.body).toContain("ct mark and 0xffff80ff or 0x00000100");
    expect(state.nft!.body).not.toContain("0x7f000000");
  });

  it("translates as the intent says, the more specific path first", () => {
    const base = gatewayInput();
    const serve = (snat: "None" | "Masquerade") => ({ snat: { type: snat }, uplink: [], uplinkIntervalMs: 100, threshold: 3, holdDownMs: 5_000 });
    const inner: PathId = "egress/inner";
    const two = {
      ...base,
      plan: {
        ...base.plan,
        paths: new Map([
          [EGRESS, path(["0.0.0.0/0"], ["do1"])],
          [inner, path(["34.0.0.0/8"], ["do1"])],
        ] as const),
        serves: new Map([
          [EGRESS, serve("Masquerade")],
          [inner, serve("None")],
          ["egress/fixed", serve("None")],
        ] as const),
        clients: new Map([[node("dc1"), { paths: [EGRESS, inner] }]]),
      },
    };
    const rules = stateOf(two)
      .nft!.body.split("\n")
      .filter((line) => line.includes("ip saddr @c4_") && line.includes("ct mark"));
    expect(rules.map((line) => line.trim().split(" ").at(-1))).toEqual(["accept", "masquerade"]);
    const fixed = {
      ...base,
      plan: { ...base.plan, serves: new Map([[EGRESS, { ...serve("None"), snat: { type: "Address" as const, address: ip("203.0.113.7") } }]]) },
    };
    expect(stateOf(fixed).nft!.body).toContain("snat ip to 203.0.113.7");
    expect(stateOf(fixed).nft!.body).toMatch(/@d6_egress\/web masquerade/);
  });

  it("forwards and translates new flows to what it serves and to what clients may not have heard of yet, only running ones to the rest", () => {
    const base = gatewayInput();
    const nftOf = (parts: object) => {
      const serves = new Map([
        [EGRESS, { snat: { type: "Masquerade" as const }, uplink: [], uplinkIntervalMs: 100, threshold: 3, holdDownMs: 5_000, ...parts }],
      ]);
      return stateOf({ ...base, plan: { ...base.plan, paths: new Map([[EGRESS, path(["34.0.0.0/16"], ["do1"])]]), serves } }).nft!;
    };
    const rulesOf = (parts: object): string[] =>
      nftOf(parts)
        .body.split("\n")
        .filter((line) => line.includes("ip saddr @c4_") && line.includes(" ip daddr "))
        .map((line) => line.replace(/.* ip daddr /, ""));
    const retired = [cidr("34.1.0.0/16"), cidr("34.2.0.0/16")];
    expect(rulesOf({ retired })).toEqual(["@d4_egress/web accept", "@d4_egress/web masquerade"]);
    const settled = [cidr("34.2.0.0/16")];
    expect(rulesOf({ retired, settled })).toEqual([
      "@n4_egress/web accept",
      "@d4_egress/web ct status confirmed accept",
      "@n4_egress/web masquerade",
    ]);
    const { sets } = nftOf({ retired, settled });
    expect(sets.get("n4_egress/web")).toEqual(["34.0.0.0/16", "34.1.0.0/16"]);
    expect(sets.get("d4_egress/web")).toEqual(["34.0.0.0/16", "34.1.0.0/16", "34.2.0.0/16"]);
  });

  it("lets the LAN of a site into the overlay through the site's gateways only", () => {
    const subnets = [cidr("192.168.88.0/24")];
    const site: PathId = "subnet/dc";
    const own = plan("dc1");
    const gateway = input({
      plan: {
        ...own,
        self: { ...own.self, subnets },
        paths: new Map([[site, path(["192.168.88.0/24"], ["dc1"])]]),
        serves: new Map([[site, { snat: { type: "Masquerade" }, uplink: [], uplinkIntervalMs: 100, threshold: 3, holdDownMs: 5_000 }]]),
      },
    });
    expect(stateOf(gateway).nft!.sets.get("lan4_site")).toEqual(subnets);
    expect(stateOf(gateway).sysctls.get("net.ipv4.ip_forward")).toBe("1");
    expect(stateOf(input({ plan: { ...own, self: { ...own.self, subnets } } })).nft!.sets.get("lan4_site")).toEqual([]);
  });

  it("names every node by its mesh addresses", () => {
    expect(stateOf(clientInput()).hosts.get("do2.isthmus")).toEqual(["10.101.0.3", "fd5e:1::3"]);
    const peers = new Map([...PEERS, ["localhost" as NodeName, PEERS.get(node("do2"))!]]);
    expect(stateOf(clientInput({ plan: plan("dc1", { peers }) })).hosts.has("localhost")).toBe(false);
  });
});
