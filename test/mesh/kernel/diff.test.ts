import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { desiredKernel } from "../../../mesh/kernel/desired.ts";
import { applyOperations, describeFor, describeOperation, diffKernel, EMPTY_KERNEL, type Operation } from "../../../mesh/kernel/diff.ts";
import {
  routeKey,
  ruleKey,
  type KernelState,
  type Nexthop,
  type Route,
  type Rule,
  type WgInterface,
  type WgPeer,
} from "../../../mesh/kernel/types.ts";
import type { Endpoint } from "../../../mesh/model/scalars.ts";
import { choice, cidr, clientInput, EGRESS, gatewayInput, ip, keyOf, node } from "./fixtures.ts";

const LINKS = ["ism0", "ismgw0", "ismg1", "ismg2", "ismg3"] as const;
const PREFIXES = ["10.1.0.0/16", "10.2.0.0/16", "0.0.0.0/0", "34.0.0.0/8", "34.1.0.0/16"] as const;

const peerArb = fc.record({
  n: fc.integer({ min: 1, max: 5 }),
  allowed: fc.subarray([...PREFIXES]),
  keepalive: fc.constantFrom(0, 25),
  port: fc.option(fc.integer({ min: 1, max: 9 })),
});
const linkArb = (name: string) =>
  fc
    .record({
      port: fc.constantFrom(1, 2),
      mtu: fc.constantFrom(1380, 1420),
      up: fc.boolean(),
      broken: fc.boolean(),
      peers: fc.uniqueArray(peerArb, { selector: ({ n }) => n, maxLength: 4 }),
    })
    .map(({ port, mtu, up, broken, peers }): WgInterface => {
      const taken = new Set<string>();
      const list = peers.map(({ n, allowed, keepalive, port: at }): WgPeer => {
        const own = allowed.filter((one) => !taken.has(one));
        for (const one of own) taken.add(one);
        return { publicKey: keyOf(n), allowedIps: own.map(cidr), keepalive, ...(at === null ? {} : { endpoint: `192.0.2.1:${at}` as Endpoint }) };
      });
      return {
        name,
        listenPort: port,
        fwmark: 1,
        mtu,
        publicKey: keyOf(9),
        up,
        peers: new Map(list.map((one) => [one.publicKey, one])),
        ...(broken ? { broken: true } : {}),
      };
    });

/** States as a kernel can hold them: nexthops need their device, groups their members, routes their nexthop or device. */
const stateArb: fc.Arbitrary<KernelState> = fc
  .record({
    links: fc.subarray([...LINKS]).chain((names) => fc.tuple(...names.map(linkArb))),
    groups: fc.array(fc.record({ id: fc.integer({ min: 157_200, max: 157_204 }), members: fc.subarray([1, 2, 3], { minLength: 1 }) }), {
      maxLength: 4,
    }),
    routes: fc.array(
      fc.record({
        dst: fc.constantFrom(...PREFIXES),
        table: fc.constantFrom(157, 158, 254),
        metric: fc.constantFrom(5, 1024),
        way: fc.constantFrom("group", "dev", "via", "throw", "unreachable"),
        pick: fc.nat(9),
      }),
      { maxLength: 12 },
    ),
    rules: fc.array(
      fc.record({ priority: fc.constantFrom(15_700, 15_710, 15_790), mark: fc.option(fc.constantFrom(1, 2)), table: fc.constantFrom(157, 254) }),
      { maxLength: 5 },
    ),
    addresses: fc.subarray(["10.101.0.1/32", "10.102.0.1/32", "fd00::1/128"]),
    nft: fc.option(fc.record({ body: fc.constantFrom("a", "b"), set: fc.subarray([...PREFIXES]) })),
    sysctls: fc.dictionary(fc.constantFrom("net.ipv4.ip_forward", "net.ipv4.conf.ism0.rp_filter"), fc.constantFrom("0", "1", "2")),
    hosts: fc.dictionary(fc.constantFrom("a", "b"), fc.constantFrom("10.101.0.1", "10.101.0.2")),
  })
  .map(({ links, groups, routes, rules, addresses, nft, sysctls, hosts }) => {
    const usable = links.filter(({ up, broken }) => up && broken !== true).map(({ name }) => name);
    const ks = [1, 2, 3].filter((k) => usable.includes(`ismg${k}`));
    const nexthops: Nexthop[] = ks.map((k) => ({ id: 157_000 + k, dev: `ismg${k}` }));
    for (const { id, members } of groups) {
      const alive = members.filter((k) => ks.includes(k));
      if (alive.length > 0 && !nexthops.some((one) => one.id === id)) nexthops.push({ id, group: alive.map((k) => 157_000 + k) });
    }
    const ids = nexthops.filter(({ group }) => group !== undefined).map(({ id }) => id);
    const list = routes.flatMap(({ dst, table, metric, way, pick }): Route[] => {
      const base = { family: 4, dst: cidr(dst), table, metric } as const;
      if (way === "throw" || way === "unreachable") return [{ ...base, type: way }];
      if (way === "via") return [{ ...base, type: "unicast", via: ip(`192.0.2.${pick + 1}`) }];
      if (way === "dev") return usable.length === 0 ? [] : [{ ...base, type: "unicast", dev: usable[pick % usable.length]! }];
      return ids.length === 0 ? [] : [{ ...base, type: "unicast", nexthopId: ids[pick % ids.length]! }];
    });
    const ruleList = rules.map(({ priority, mark, table }): Rule => ({
      family: 4,
      priority,
      table,
      ...(mark === null ? {} : { fwmark: mark, fwmask: 255 }),
    }));
    return {
      wireguard: new Map(links.map((link) => [link.name, link])),
      addresses: new Set(addresses.map(cidr)),
      nexthops: new Map(nexthops.map((one) => [one.id, one])),
      routes: new Map(list.map((one) => [routeKey(one), one])),
      rules: new Map(ruleList.map((one) => [ruleKey(one), one])),
      nft: nft === null ? undefined : { body: nft.body, sets: new Map([["s", nft.set]]) },
      sysctls: new Map(Object.entries(sysctls)),
      hosts: new Map(Object.entries(hosts).map(([name, address]) => [name, [ip(address)]])),
    };
  });

const desiredArb = stateArb.map((state): KernelState => ({
  ...state,
  wireguard: new Map([...state.wireguard].filter(([, { up, broken }]) => up && broken !== true)),
}));

/** Equal but for the order of maps and for endpoints that the desired state leaves open. */
function comparable(state: KernelState): unknown {
  const sorted = <V>(map: ReadonlyMap<string | number, V>): unknown => [...map].sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
  return {
    wireguard: sorted(
      new Map(
        [...state.wireguard].map(([name, link]) => [
          name,
          {
            ...link,
            peers: sorted(
              new Map([...link.peers].map(([key, { endpoint: _endpoint, ...peer }]) => [key, { ...peer, allowedIps: [...peer.allowedIps].sort() }])),
            ),
          },
        ]),
      ),
    ),
    addresses: [...state.addresses].sort(),
    nexthops: sorted(state.nexthops),
    routes: sorted(state.routes),
    rules: sorted(state.rules),
    nft: state.nft && { body: state.nft.body, sets: sorted(new Map([...state.nft.sets].map(([set, elements]) => [set, [...elements].sort()]))) },
    sysctls: sorted(state.sysctls),
    hosts: sorted(state.hosts),
  };
}

describe("diffKernel", () => {
  it("turns any observed state into any desired one, and is empty afterwards", () => {
    fc.assert(
      fc.property(desiredArb, stateArb, (desired, observed) => {
        const after = applyOperations(observed, diffKernel(desired, observed));
        expect(comparable(after)).toEqual(comparable(desired));
        expect(diffKernel(desired, after)).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  it("is empty for equal states", () => {
    fc.assert(
      fc.property(desiredArb, (state) => {
        expect(diffKernel(structuredClone(state), state)).toEqual([]);
      }),
      { numRuns: 50 },
    );
  });

  it("never uses a nexthop, a device or a group before it is there", () => {
    fc.assert(
      fc.property(desiredArb, stateArb, (desired, observed) => {
        let state = observed;
        for (const operation of diffKernel(desired, observed)) {
          if (operation.op === "nexthop.replace") {
            if (operation.nexthop.dev !== undefined) expect(state.wireguard.has(operation.nexthop.dev)).toBe(true);
            for (const member of operation.nexthop.group ?? []) expect(state.nexthops.has(member)).toBe(true);
          }
          if ((operation.op === "route.replace" || operation.op === "route.add") && operation.route.nexthopId !== undefined)
            expect(state.nexthops.has(operation.route.nexthopId)).toBe(true);
          state = applyOperations(state, [operation]);
        }
      }),
      { numRuns: 200 },
    );
  });

  it("gives a link that is made anew its sysctls, too", () => {
    const desired = desiredKernel(clientInput()).state;
    const broken = { ...desired.wireguard.get("ismg1")!, broken: true as const };
    const operations = diffKernel(desired, { ...desired, wireguard: new Map([...desired.wireguard, ["ismg1", broken]]) });
    const names = operations.flatMap((one) => (one.op === "sysctl.set" ? [one.name] : []));
    expect(names).toEqual([...desired.sysctls.keys()].filter((name) => name.includes(".ismg1.")));
    expect(names).not.toEqual([]);
  });

  it("takes nothing away before what replaces it stands", () => {
    const desired = desiredKernel(gatewayInput()).state;
    const operations = diffKernel(desired, desiredKernel(clientInput()).state);
    const isRemoval = ({ op }: Operation): boolean => op.endsWith(".remove") || op === "sysctl.restore";
    const first = operations.findIndex(isRemoval);
    expect(first).toBeGreaterThan(0);
    expect(operations.slice(first).every((one) => isRemoval(one))).toBe(true);
  });

  it("moves all destinations of a path by replacing groups only", () => {
    const before = desiredKernel(clientInput()).state;
    const after = desiredKernel(clientInput({ choices: new Map([[EGRESS, choice(["do2"])]]), deadLinks: new Set([node("do1")]) })).state;
    const operations = diffKernel(after, before);
    expect(operations.map(({ op }) => op)).toEqual(["nexthop.replace", "nexthop.replace", "nexthop.replace"]);
  });

  it("compares routes once while both sides stay the same, and again when either is another", () => {
    let asked = 0;
    class Counted extends Map<string, Route> {
      override get(key: string): Route | undefined {
        asked++;
        return super.get(key);
      }
    }
    const desired = desiredKernel(clientInput()).state;
    const observed = { ...desired, routes: new Counted([...desired.routes].map(([key, route]) => [key, { ...route }])) };
    expect(diffKernel({ ...desired }, observed)).toEqual([]);
    const once = asked;
    expect(once).toBeGreaterThan(0);
    expect(diffKernel({ ...desired }, { ...observed })).toEqual([]);
    expect(asked).toBe(once);
    const [key, lost] = [...desired.routes][0]!;
    const fewer = new Counted([...observed.routes].filter(([one]) => one !== key));
    for (let i = 0; i < 2; i++)
      expect(diffKernel(desired, { ...desired, routes: fewer })).toMatchObject([{ op: expect.stringMatching(/^route\./), route: lost }]);
    expect(diffKernel(desired, observed)).toEqual([]);
  });

  it("makes group and routes again when a dead link took them along", () => {
    const desired = desiredKernel(clientInput()).state;
    const flushed = applyOperations(desired, [{ op: "link.remove", name: "ismg1" }]);
    expect([...flushed.routes.values()].some(({ dst, type }) => dst === "34.160.111.145/32" && type === "unicast")).toBe(false);
    const kinds = diffKernel(desired, flushed).map(({ op }) => op);
    expect(kinds.indexOf("link.add")).toBeLessThan(kinds.indexOf("nexthop.replace"));
    expect(kinds.indexOf("nexthop.replace")).toBeLessThan(kinds.indexOf("route.replace"));
  });

  it("I4: has its leak guard before any address of the overlay, which would answer by the underlay while no route stands", () => {
    const kinds = diffKernel(desiredKernel(gatewayInput()).state, EMPTY_KERNEL).map(({ op }) => op);
    expect(kinds.indexOf("nft.replace")).toBeLessThan(kinds.indexOf("address.add"));
    expect(kinds.indexOf("nft.replace")).toBeLessThan(kinds.indexOf("link.add"));
  });

  it("a newcomer is written into links that stand before any other link is made", () => {
    const { state: desired } = desiredKernel(clientInput());
    const mesh = desired.wireguard.get("ism0");
    if (mesh === undefined) throw new Error("no mesh interface");
    const [newcomer] = mesh.peers.keys();
    const before = new Map([...mesh.peers].filter(([key]) => key !== newcomer));
    const found = diffKernel(desired, { ...desired, wireguard: new Map([["ism0", { ...mesh, peers: before }]]) });
    const kinds = found.map((one) => (one.op === "peer.add" ? `${one.op} ${one.link}` : one.op));
    expect(kinds[0]).toBe("peer.add ism0");
    expect(kinds.slice(1)).toContain("link.add");
    expect(kinds.lastIndexOf("link.add")).toBeLessThan(kinds.indexOf("peer.add ismg1"));
  });

  it("I4: forwards only when every route and rule stands, so that a gateway that boots lets nothing out in the clear", () => {
    const operations = diffKernel(desiredKernel(gatewayInput()).state, EMPTY_KERNEL);
    const last = operations.findLastIndex(({ op }) => op === "route.replace" || op === "rule.add");
    const forwards = operations.findIndex((one) => one.op === "sysctl.set" && one.name === "net.ipv4.ip_forward");
    expect(last).toBeGreaterThan(-1);
    expect(forwards).toBeGreaterThan(last);
  });

  it("puts the protection of a wide route before the route, and its fallback after", () => {
    const wide = clientInput();
    const path = wide.plan.paths.get(EGRESS)!;
    const desired = desiredKernel({
      ...wide,
      plan: { ...wide.plan, paths: new Map([[EGRESS, { ...path, destinations: [cidr("0.0.0.0/0")] }]]) },
    }).state;
    const types = diffKernel(desired, EMPTY_KERNEL).flatMap((one) => (one.op === "route.replace" && one.route.table === 157 ? [one.route.type] : []));
    expect(types.lastIndexOf("throw")).toBeLessThan(types.indexOf("unicast"));
    expect(types.lastIndexOf("unicast")).toBeLessThan(types.indexOf("unreachable"));
  });

  it("writes the endpoint of a new peer, and of a live one only when the desired state names another", () => {
    const dial = new Map([[node("do1"), { mesh: "203.0.113.1:51820" as Endpoint }]]);
    const desired = desiredKernel(clientInput({ dial })).state;
    const added = diffKernel(desired, EMPTY_KERNEL).find((one) => one.op === "peer.add" && one.link === "ism0" && one.peer.publicKey === keyOf(2));
    expect(added).toMatchObject({ peer: { endpoint: "203.0.113.1:51820" } });
    const roamed = desiredKernel(clientInput({ dial: new Map([[node("do1"), { mesh: "203.0.113.7:4000" as Endpoint }]]) })).state;
    expect(diffKernel(desiredKernel(clientInput()).state, roamed)).toEqual([]);
    expect(diffKernel(desired, roamed)).toMatchObject([{ op: "peer.set", endpoint: "203.0.113.1:51820", add: [], remove: [] }]);
  });

  it("changes elements of a set one by one, and the table only when its body differs", () => {
    const input = gatewayInput();
    const path = input.plan.paths.get(EGRESS)!;
    const more = {
      ...input,
      plan: { ...input.plan, paths: new Map([[EGRESS, { ...path, destinations: [cidr("34.160.111.146/32"), cidr("2001:db8::/32")] }]]) },
    };
    expect(diffKernel(desiredKernel(more).state, desiredKernel(input).state)).toEqual([
      { op: "nft.elements", set: "d4_egress/web", add: ["34.160.111.146/32"], remove: ["34.160.111.145/32"] },
    ]);
  });

  it("adds routes to other tables without replacing what stands there", () => {
    const route: Route = { family: 4, dst: cidr("34.0.0.0/8"), table: 254, type: "unicast", metric: 0, via: ip("192.0.2.1") };
    const desired = { ...EMPTY_KERNEL, routes: new Map([[routeKey(route), route]]) };
    expect(diffKernel(desired, EMPTY_KERNEL)).toEqual([{ op: "route.add", route }]);
    const observed: Route = { ...route, dev: "eth0" };
    expect(diffKernel(desired, { ...EMPTY_KERNEL, routes: new Map([[routeKey(route), observed]]) })).toEqual([]);
  });
});

describe("describeOperation", () => {
  it("says in rows what every operation of a bring-up and its undoing does", () => {
    for (const state of [desiredKernel(clientInput()).state, desiredKernel(gatewayInput()).state]) {
      const up = diffKernel(state, EMPTY_KERNEL).flatMap(describeOperation);
      const down = diffKernel(EMPTY_KERNEL, state).flatMap(describeOperation);
      for (const row of [...up, ...down]) expect(row.what).not.toBe("");
      expect(up.every(({ action }) => action === "add")).toBe(true);
      expect(down.filter(({ action }) => action === "add")).toEqual([]);
    }
  });

  it("calls peers by the names of their nodes", () => {
    const { plan } = clientInput();
    const rows = diffKernel(desiredKernel(clientInput()).state, EMPTY_KERNEL).flatMap(describeFor(plan));
    const peers = rows.flatMap(({ area, what }) => (area === "peer" ? [what] : []));
    expect(peers.length).toBeGreaterThan(2);
    for (const what of peers) expect([...plan.peers.keys()]).toContain(what.split(" on ")[0]);
    const gone = diffKernel(EMPTY_KERNEL, desiredKernel(clientInput()).state).flatMap(describeFor({ peers: new Map() }));
    for (const { area, what } of gone) if (area === "peer") expect(what).toMatch(/=/);
  });

  it("names the rules and elements of the nft table that change", () => {
    const rows = diffKernel(desiredKernel(gatewayInput()).state, desiredKernel(clientInput()).state).flatMap(describeOperation);
    expect(rows).toContainEqual({ area: "nat", action: "add", what: "34.160.111.145/32 in d4_egress/web" });
    expect(
      rows.some(({ area, action, what }) => area === "nat" && action === "add" && what.startsWith("translate: ") && what.endsWith("masquerade")),
    ).toBe(true);
    expect(rows.some(({ area, action, what }) => area === "nat" && action === "remove" && what.startsWith('pin: oifname "ismg1"'))).toBe(true);
  });

  it("shows a move as a change from one nexthop to another", () => {
    const rows = diffKernel(
      desiredKernel(clientInput({ choices: new Map([[EGRESS, choice(["do2"])]]) })).state,
      desiredKernel(clientInput()).state,
    ).flatMap(describeOperation);
    expect(rows).toContainEqual({
      area: "nexthop",
      action: "change",
      what: expect.stringMatching(/^157/),
      from: "group 157001",
      to: "group 157002",
    });
  });
});
