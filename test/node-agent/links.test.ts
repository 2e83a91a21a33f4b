import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import { EMPTY_KERNEL } from "../../mesh/kernel/operations.ts";
import type { KernelState, WgInterface } from "../../mesh/kernel/types.ts";
import { adoptLinks, formatLinks, gatewaysInUse, linksExhausted, numberLinks, parseLinks } from "../../node-agent/links.ts";
import { key, name, rawViews, withPaths } from "./plans.ts";

const { plan } = parsePlan(rawViews());
if (plan === undefined) throw new Error("no plan");
const names = fc.uniqueArray(fc.integer({ min: 1, max: 80 }), { maxLength: 70 }).map((list) => list.map((n) => name(`g${n}`)).toSorted());

describe("numbers of links", () => {
  test("that are used up name the gateways without one, and where fewer gateways are said", () => {
    expect(linksExhausted([])).toBeUndefined();
    expect(linksExhausted([name("gw64"), name("gw65")])).toMatch(/none for gw64, gw65: .*Site spec\.gateways/);
  });

  test("every candidate of every path of ours has one, and a path that this node serves has none", () => {
    expect(gatewaysInUse(plan)).toEqual(["g1", "g2"]);
    expect(gatewaysInUse(withPaths(plan, { "egress/a": ["g2", "unknown"], "egress/b": ["c", "g1"] }))).toEqual(["g2"]);
  });

  test("a gateway that the plan no longer names keeps its link while a choice still uses it", () => {
    const changed = withPaths(plan, { "egress/a": ["g2"] });
    const choice = (active: string, draining: string) => ({ active: [name(active)], draining: [{ node: name(draining), until: 1 }] });
    expect(gatewaysInUse(changed, new Map([["egress/a", choice("g1", "g2")]]))).toEqual(["g1", "g2"]);
    expect(gatewaysInUse(changed, new Map([["egress/a", choice("g2", "g1")]]))).toEqual(["g1", "g2"]);
    expect(
      gatewaysInUse(
        changed,
        new Map([
          ["egress/a", choice("g2", "gone")],
          ["egress/b", choice("g1", "g1")],
        ]),
      ),
    ).toEqual(["g2"]);
  });

  test("stay with their gateway over any change of the plan, are unique, and go from 1 to 63", () => {
    fc.assert(
      fc.property(names, names, (first, second) => {
        const before = numberLinks(first, new Map(), new Map()).links;
        const { links, without } = numberLinks(second, before, new Map());
        for (const [node, k] of links) if (before.has(node)) expect(k).toBe(before.get(node));
        expect(new Set(links.values()).size).toBe(links.size);
        for (const k of links.values()) expect(k).toBeGreaterThanOrEqual(1);
        for (const k of links.values()) expect(k).toBeLessThanOrEqual(63);
        expect(links.size + without.length).toBe(second.length);
        expect(without.length).toBe(Math.max(0, second.length - 63));
      }),
    );
  });

  test("come back from disk, and from the kernel where the disk has lost them", () => {
    const links = numberLinks([name("g1"), name("g2")], new Map(), new Map([[name("g1"), 7]])).links;
    expect(links.get(name("g1"))).toBe(7);
    expect(parseLinks(JSON.parse(formatLinks(links)))).toEqual(links);
    const link = (n: number): WgInterface => ({
      name: "ismg5",
      listenPort: 1,
      fwmark: 0,
      mtu: 1420,
      publicKey: key(1) as never,
      up: true,
      peers: new Map([[key(n), { publicKey: key(n), allowedIps: [], keepalive: 25 }]]) as never,
    });
    const observed: KernelState = {
      ...EMPTY_KERNEL,
      wireguard: new Map([
        ["ismg5", link(3)],
        ["ism0", link(2)],
      ]),
    };
    expect(adoptLinks(plan, observed)).toEqual(new Map([["g2", 5]]));
  });
});
