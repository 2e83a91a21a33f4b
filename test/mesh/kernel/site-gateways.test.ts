import { describe, expect, it } from "vitest";
import type { CompileInput } from "../../../mesh/compile/types.ts";
import { cutOff, lostSites } from "../../../mesh/elect/beyond.ts";
import { TIER, tierOf } from "../../../mesh/elect/rank.ts";
import type { LinkView } from "../../../mesh/elect/types.ts";
import { desiredKernel } from "../../../mesh/kernel/desired.ts";
import type { DesiredInput, KernelState } from "../../../mesh/kernel/types.ts";
import type { Explanation } from "../../../mesh/model/answers.ts";
import type { PathId } from "../../../mesh/model/plan.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import { explain } from "../../../node-agent/explain.ts";
import { gatewaysInUse, linksExhausted, numberLinks } from "../../../node-agent/links.ts";
import { facts, input as compileInput, node as meshNode, resource, site } from "../compile/fixtures.ts";
import { choice, node } from "./fixtures.ts";
import { inputOf, withLinks } from "./two-sites.ts";
import { walk, type Walked } from "./walk.ts";

const SITES = { s: ["a1", "a2", "a3", "a4"], t: ["b1", "b2", "b3"], u: ["c1", "c2"], v: ["d1"] } as const;
const NODES: readonly string[] = Object.values(SITES).flat();
const GATEWAYS = new Set(["a1", "a2", "b1", "b2", "c1", "d1"]);
const siteOf = (name: string): string => Object.entries(SITES).find(([, names]) => (names as readonly string[]).includes(name))![0];
const indexOf = (name: string): number => NODES.indexOf(name) + 1;
const meshOf = (name: string): string => `10.101.0.${indexOf(name)}`;
const network = resource("MeshNetwork", "isthmus", { overlay: { v4: "10.101.0.0/16", v6: "fd00:1:2::/48" }, topology: "SiteGateways" });

const world: CompileInput = withLinks(NODES, (links) =>
  compileInput({
    network,
    controllers: [],
    sites: Object.keys(SITES).map((name, i) => site(name, { gateways: { role: "gateway" }, subnets: name === "t" ? ["172.20.2.0/24"] : [] }, i)),
    nodes: NODES.map((name) => meshNode(name, siteOf(name), indexOf(name), { labels: GATEWAYS.has(name) ? { role: "gateway" } : {} })),
    facts: Object.fromEntries(
      NODES.map((name) => {
        const address = `192.0.2.${indexOf(name)}`;
        return [name, facts({ endpoints: [`${address}:51820`], seen: address, links: links(name) })];
      }),
    ),
  }),
);

/** Endpoints of clients on `ismgw0`, as WireGuard learns them. */
const dialed = (name: string): DesiredInput["dial"] => {
  const base = inputOf(world, name);
  return new Map(
    [...base.plan.peers].map(([other, { e }]) => {
      const port = base.plan.clients.get(other)?.port;
      const client = port === undefined ? {} : { client: e[0]!.replace(/:\d+$/, `:${port}`) as never };
      return [other, { ...base.dial.get(other), ...client }];
    }),
  );
};
const inputs = new Map(NODES.map((name) => [name, inputOf(world, name, { dial: dialed(name) })]));
const states = new Map<string, KernelState>([...inputs].map(([name, input]) => [name, desiredKernel(input).state]));
const names = new Map([...inputs].map(([name, { publicKey }]) => [publicKey as string, name]));
const send = (from: string, to: string, src = meshOf(from)): Walked => walk(states, names, from, src, meshOf(to));

describe("topology SiteGateways", () => {
  it("makes peers of the nodes of one site, and across sites of gateways only", () => {
    for (const [name, { wireguard }] of states) {
      for (const [ifname, { peers }] of wireguard) {
        for (const key of peers.keys()) {
          const other = names.get(key)!;
          if (siteOf(other) !== siteOf(name))
            expect([ifname, GATEWAYS.has(name), GATEWAYS.has(other)]).toEqual([expect.stringMatching(/^ismg\d+$/), true, true]);
        }
      }
      const mesh = new Set([...wireguard.get("ism0")!.peers.keys()].map((key) => names.get(key)));
      expect(NODES.filter((other) => mesh.has(other))).toEqual(NODES.filter((other) => other !== name && siteOf(other) === siteOf(name)));
    }
  });

  it("lets every node reach every other, across sites through one gateway of each side", () => {
    for (const from of NODES) {
      for (const to of NODES) {
        if (from === to) continue;
        const { path, refused } = send(from, to);
        expect([from, to, refused]).toEqual([from, to, undefined]);
        expect(path.at(-1)).toBe(to);
        const between = path.slice(1, -1);
        expect(between.every((one) => GATEWAYS.has(one))).toBe(true);
        const needed = siteOf(from) === siteOf(to) ? 0 : Number(!GATEWAYS.has(from)) + Number(!GATEWAYS.has(to));
        expect(between.length).toBe(needed);
      }
    }
  });

  it("takes the site's other gateway when the first is dead, on either side", () => {
    const second = (name: string, id: PathId, gateway: string): Map<string, KernelState> => {
      const input = inputs.get(name)!;
      const choices = new Map(input.choices).set(id, choice([gateway]));
      return new Map(states).set(name, desiredKernel({ ...input, choices, deadLinks: new Set([node(gateway === "a2" ? "a1" : "b1")]) }).state);
    };
    expect(walk(second("a3", "via/s", "a2"), names, "a3", meshOf("a3"), meshOf("b3")).path).toEqual(["a3", "a2", "b1", "b3"]);
    expect(walk(second("a1", "site/t", "b2"), names, "a3", meshOf("a3"), meshOf("b3")).path).toEqual(["a3", "a1", "b2", "b3"]);
  });

  const narrow = (name: string, to: string): DesiredInput => ({ ...inputs.get(name)!, pathMtu: new Map([[node(to), 1200]]) });
  const linkOf = (name: string, to: string): string => `ismg${inputs.get(name)!.links.get(node(to))!}`;

  it("reaches a gateway behind a narrow way by its link", () => {
    const known = desiredKernel(narrow("a1", "b1")).state;
    const host = [...known.routes.values()].filter(({ dst, table }) => table === 157 && dst === `${meshOf("b1")}/32`);
    expect(host.map(({ dev, mtu }) => [dev, mtu])).toEqual([[linkOf("a1", "b1"), undefined]]);
    expect(walk(new Map(states).set("a1", known), names, "a1", meshOf("a1"), meshOf("b1")).path).toEqual(["a1", "b1"]);
    expect(known.wireguard.get(linkOf("a1", "b1"))?.mtu).toBe(1200);
    const near = desiredKernel(narrow("a3", "a1")).state;
    expect([...near.routes.values()].find(({ dst, table }) => table === 157 && dst === `${meshOf("a1")}/32`)).toMatchObject({
      dev: "ism0",
      mtu: 1200,
    });
  });

  it("gives a pairwise link its full MTU while it is measured, since nothing else leads there", () => {
    const known = desiredKernel(narrow("a1", "b1")).state;
    const measured = desiredKernel({ ...narrow("a1", "b1"), measuring: node("b1") }).state;
    expect(measured.wireguard.get(linkOf("a1", "b1"))?.mtu).toBe(known.wireguard.get("ism0")?.mtu);
    // IPv6 does not come and go with it.
    expect([...measured.routes.keys()]).toEqual([...known.routes.keys()]);
    expect([...measured.nexthops.keys()]).toEqual([...known.nexthops.keys()]);
    // A peer of ism0 is measured there, and its link stays as it is.
    const near = desiredKernel({ ...narrow("a3", "a1"), measuring: node("a1") }).state;
    expect(near.wireguard.get(linkOf("a3", "a1"))?.mtu).toBe(1200);
  });

  it("I11: lets nobody through with an address of elsewhere", () => {
    // A node of the site as another; a gateway as a node of a third site, to another gateway and to a node behind it.
    expect(send("a3", "b3", meshOf("a4")).refused).toMatch(/^a1: ismgw0 does not allow/);
    expect(send("a3", "b3", meshOf("c2")).refused).toMatch(/^a1: ismgw0 does not allow/);
    expect(send("a1", "b1", meshOf("c2")).refused).toMatch(/^b1: 10.101.0.9 may not begin anything/);
    expect(send("a1", "b3", meshOf("c1")).refused).toMatch(/^b1: 10.101.0.8 may not begin anything/);
  });

  it("I4: refuses what no gateway of another site is there for, on the node itself", () => {
    const input = inputs.get("a1")!;
    const none = desiredKernel({ ...input, choices: new Map([...input.choices].map(([id]) => [id, choice([])])) }).state;
    for (const dst of [`${meshOf("b3")}/32`, "10.101.0.0/16", "172.20.2.0/24"])
      expect([...none.routes.values()].some((route) => route.table === 157 && route.dst === dst && route.type === "unreachable")).toBe(true);
    expect(walk(new Map(states).set("a1", none), names, "a1", meshOf("a1"), meshOf("b3")).refused).toBe("a1: no route");
  });

  it("reaches the LANs of other sites through the own site's gateways too", () => {
    const route = [...states.get("a3")!.routes.values()].find(
      ({ table, dst, type }) => table === 157 && dst === "172.20.2.0/24" && type === "unicast",
    );
    expect(states.get("a3")!.nexthops.get(route!.nexthopId!)?.group).toEqual([157_000 + inputs.get("a3")!.links.get(node("a1"))!]);
    expect(inputs.get("a3")!.plan.paths.has("subnet/t")).toBe(false);
    expect(inputs.get("a1")!.plan.paths.has("subnet/t")).toBe(true);
  });

  it("names every node on every node", () => {
    for (const state of states.values()) expect([...state.hosts.keys()].filter((name) => name.endsWith(".isthmus")).length).toBe(NODES.length);
  });

  it("is explained hop by hop", () => {
    const ask = (at: string, to: string): Explanation =>
      explain({
        input: inputs.get(at)!,
        refusals: [],
        linkViews: new Map(),
        lans: new Map(),
        destination: to as never,
        wall: (time) => time,
        now: 0,
      });
    const link = (at: string, to: string): string => `ismg${inputs.get(at)!.links.get(node(to))}`;
    expect(ask("a3", meshOf("b3"))).toMatchObject({ verdict: "Gateway", owner: "via/s", hops: [{ dev: link("a3", "a1") }, { at: "a1" }] });
    expect(ask("a1", meshOf("b3"))).toMatchObject({ verdict: "Gateway", owner: "site/t", hops: [{ dev: link("a1", "b1") }, { at: "b1" }] });
    expect(ask("a1", meshOf("b2"))).toMatchObject({ verdict: "Mesh", owner: "peer/b2", hops: [{ dev: link("a1", "b2") }, { at: "b2" }] });
    expect(ask("a3", meshOf("a4"))).toMatchObject({ verdict: "Mesh", hops: [{ dev: "ism0" }, { at: "a4" }] });
    expect(ask("a1", "10.101.7.7")).toMatchObject({ verdict: "Unreachable" });
  });

  describe("a gateway that reaches no gateway of another site", () => {
    const views = (at: string, verdict: (other: string) => LinkView["verdict"], recovering = false): ReadonlyMap<NodeName, LinkView> =>
      new Map(
        [...inputs.get(at)!.links.keys()].map((other) => [
          other,
          { node: other, verdict: verdict(other), since: 0, gateway: "Serving", ...(recovering ? { holdDownUntil: 1 } : {}) } as LinkView,
        ]),
      );
    const said = (at: string, links: ReadonlyMap<NodeName, LinkView>): readonly PathId[] => cutOff(inputs.get(at)!.plan, links);

    it("says to its own site's nodes that it carries nothing for them", () => {
      expect(
        said(
          "a1",
          views("a1", () => "Down"),
        ),
      ).toEqual(["via/s"]);
    });

    it("and to nobody when one other site answers, again or still, or nothing is known yet", () => {
      expect(
        said(
          "a1",
          views("a1", (other) => (other === "d1" ? "Up" : "Down")),
        ),
      ).toEqual([]);
      expect(
        said(
          "a1",
          views("a1", (other) => (other === "d1" ? "Unknown" : "Down")),
        ),
      ).toEqual([]);
      expect(
        said(
          "a1",
          views("a1", () => "Down", true),
        ),
      ).toEqual([]);
      expect(said("a1", new Map())).toEqual([]);
    });

    it("names a site of several that it does not reach, and moves nobody for it", () => {
      const { plan } = inputs.get("a1")!;
      const links = views("a1", (other) => (other.startsWith("b") ? "Down" : "Up"));
      expect(lostSites(plan, links)).toEqual(["site/t"]);
      expect(tierOf("via/s", { node: node("a1"), verdict: "Up", since: 0, gateway: "Serving", srttMs: 1, downPaths: lostSites(plan, links) })).toBe(
        TIER.Good,
      );
      for (const verdict of ["Up", "Down", "Unknown"] as const)
        expect(
          lostSites(
            plan,
            views("a1", () => verdict),
          ),
        ).toEqual([]);
      expect(
        lostSites(
          inputs.get("a3")!.plan,
          views("a3", () => "Down"),
        ),
      ).toEqual([]);
    });

    it("while a node that is no gateway, or has nobody behind it, has nothing to say", () => {
      expect(
        said(
          "a3",
          views("a3", () => "Down"),
        ),
      ).toEqual([]);
      expect(
        said(
          "d1",
          views("d1", () => "Down"),
        ),
      ).toEqual([]);
    });
  });

  it("with more gateways of other sites than links, uses 63, names the rest, and leaves nothing half done", () => {
    const others = Array.from({ length: 64 }, (_, i) => `t${String(i + 1).padStart(2, "0")}`);
    const all = ["a1", "a3", ...others];
    const crowd = withLinks(["a1"], (links) =>
      compileInput({
        network,
        controllers: [],
        sites: ["s", ...others].map((name, i) => site(name, { gateways: { role: "gateway" } }, i)),
        nodes: all.map((name, i) => meshNode(name, name.startsWith("a") ? "s" : name, i + 1, { labels: name === "a3" ? {} : { role: "gateway" } })),
        facts: Object.fromEntries(
          all.map((name, i) => [
            name,
            facts({ endpoints: [`192.0.2.${i + 1}:51820`], seen: `192.0.2.${i + 1}`, links: name === "a1" ? links(name) : { a1: 51_831 } }),
          ]),
        ),
      }),
    );
    const input = inputOf(crowd, "a1");
    const { without } = numberLinks(gatewaysInUse(input.plan), new Map(), new Map());
    expect(without).toEqual(["t64"]);
    expect(linksExhausted(without)).toMatch(/63 links are in use; none for t64/);
    const { wireguard, nexthops, routes, nft } = desiredKernel(input).state;
    expect([...wireguard.keys()].filter((name) => /^ismg[1-9]/.test(name))).toHaveLength(63);
    const left = input.plan.peers.get(node("t64"))!.k;
    expect([...wireguard.values()].some(({ peers }) => peers.has(left))).toBe(false);
    for (const { dev, group } of nexthops.values()) {
      if (dev !== undefined) expect(wireguard.has(dev)).toBe(true);
      for (const id of group ?? []) expect(nexthops.has(id)).toBe(true);
    }
    for (const { nexthopId, dev } of routes.values()) {
      if (nexthopId !== undefined) expect(nexthops.has(nexthopId)).toBe(true);
      if (dev?.startsWith("ism") === true) expect(wireguard.has(dev)).toBe(true);
    }
    expect(nft!.body).not.toMatch(/ismg64|undefined/);
    const ways = [...routes.values()].filter(({ table, type }) => table === 157 && type === "unicast").map(({ dst }) => dst as string);
    expect([ways.includes("10.101.0.65/32"), ways.includes("10.101.0.66/32")]).toEqual([true, false]);
    expect(cutOff(input.plan, new Map())).toEqual([]);
  });
});
