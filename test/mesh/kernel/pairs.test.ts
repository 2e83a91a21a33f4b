import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { desiredKernel } from "../../../mesh/kernel/desired.ts";
import { EMPTY_KERNEL } from "../../../mesh/kernel/diff.ts";
import { openLinks } from "../../../mesh/kernel/pairs.ts";
import type { DesiredInput, KernelState } from "../../../mesh/kernel/types.ts";
import type { Explanation } from "../../../mesh/model/answers.ts";
import { contains, hostCidr, parseCidr } from "../../../mesh/net/ip.ts";
import { createDialer, type Dialer, type WgStatus } from "../../../node-agent/endpoints.ts";
import { explain } from "../../../node-agent/explain.ts";
import { choice, node } from "./fixtures.ts";
import { inputOf, intents, LAN, type Name, NODES, type Snat } from "./two-sites.ts";

const stateOf = (name: Name, snat?: { s: Snat; t: Snat }): KernelState =>
  desiredKernel(inputOf(intents(snat === undefined ? {} : { snat }), name)).state;
const rules = (state: KernelState, chain: string): string[] => {
  const body = state.nft!.body.split("\n").map((line) => line.trim());
  const from = body.indexOf(`chain ${chain} {`);
  return body.slice(from + 2, body.indexOf("}", from));
};

describe("a pairwise link", () => {
  it("joins the gateways of two sites, with everything allowed on both ends, and takes them off ismgw0", () => {
    const a1 = stateOf("a1");
    const mine = inputOf(intents(), "a1");
    for (const other of ["b1", "b2"] as const) {
      const k = mine.links.get(node(other))!;
      const key = mine.plan.peers.get(node(other))!.k;
      const theirs = inputOf(intents(), other).links.get(node("a1"))!;
      expect(a1.wireguard.get(`ismg${k}`)!.peers.get(key)).toMatchObject({
        allowedIps: ["0.0.0.0/0", "::/0"],
        endpoint: `192.0.2.${other === "b1" ? 3 : 4}:${51_830 + theirs}`,
      });
      expect(a1.wireguard.get("ismgw0")!.peers.has(key)).toBe(false);
    }
    expect(a1.wireguard.get("ismgw0")!.peers.size).toBe(1);
    expect([...a1.wireguard.keys()]).toEqual(["ism0", "ismgw0", "ismg1", "ismg2"]);
  });

  it("is made for no more nodes than need it: not for a node without a LAN, and not where both sites masquerade", () => {
    const paired = (name: Name, snat?: { s: Snat; t: Snat }): string[] =>
      openLinks(inputOf(intents(snat === undefined ? {} : { snat }), name)).flatMap(({ node, paired }) => (paired ? [node] : []));
    expect(NODES.map((name) => paired(name))).toEqual([["b1", "b2"], ["b1", "b2"], ["a1", "a2"], ["a1", "a2"], []]);
    expect(NODES.map((name) => paired(name, { s: "None", t: "Masquerade" }).length)).toEqual([2, 2, 2, 2, 0]);
    expect(NODES.map((name) => paired(name, { s: "Masquerade", t: "Masquerade" }).length)).toEqual([0, 0, 0, 0, 0]);
  });

  it("changes nothing where every site masquerades", () => {
    for (const name of NODES) {
      const { nft, rules, routes } = stateOf(name, { s: "Masquerade", t: "Masquerade" });
      expect(nft!.body).not.toMatch(/@(s4_|far|pair)|ct state new/);
      expect([...rules.values()].some(({ priority }) => priority === 15_706)).toBe(false);
      expect([...routes.values()].filter(({ dst, dev }) => dst.startsWith("10.102.") && dev?.startsWith("ismg"))).toEqual(
        name === "c" ? [] : [expect.objectContaining({ dev: "ismgw0" })],
      );
    }
  });

  it("is probed as any link: the other end's probes are turned round on it, and go back by it", () => {
    const a1 = stateOf("a1");
    const k = inputOf(intents(), "a1").links.get(node("b1"))!;
    expect(rules(a1, "early").some((rule) => rule.includes(`"ismg${k}"`) && rule.includes("udp dport 51819"))).toBe(true);
    expect(rules(a1, "transit")).toContain(`iifname "ismg${k}" oifname "ismg${k}" ct state untracked udp dport 51819 accept`);
    expect(a1.sysctls.get(`net.ipv4.conf.ismg${k}.accept_local`)).toBe("1");
    expect([...a1.routes.values()].find(({ dst }) => dst === "10.102.0.3/32")).toMatchObject({ table: 157, dev: `ismg${k}`, src: "10.103.0.1" });
  });

  it("I4: answers from an underlay address of the gateway never come to main while the link is down", () => {
    const k = inputOf(intents(), "b1").links.get(node("a1"))!;
    const marked = [...stateOf("b1").rules.values()].filter(({ family, fwmark }) => family === 4 && fwmark === k << 24);
    expect(marked.map(({ priority, table }) => [priority, table])).toEqual([
      [15_706, 157 + k],
      [15_707, 157],
    ]);
    const underlay = Math.min(...[...stateOf("b1").rules.values()].flatMap(({ from, priority }) => (from === undefined ? [] : [priority])));
    expect(underlay).toBeGreaterThan(15_707);
    expect([...stateOf("b1").routes.values()].find(({ dst, type }) => dst === LAN.s && type === "unreachable")).toBeDefined();
  });
});

describe("a flow", () => {
  it("belongs to the link that it comes by now, also where that was ismgw0 before, and the other way round", () => {
    const inbound = rules(stateOf("b1"), "inbound");
    const links = "{ 10.102.0.0/16, 10.103.0.0/16 }";
    expect(inbound).toContain(
      'iifname "ismgw0" ct direction original ct mark and 0x7f000000 < 0x40000000 ct mark set ct mark and 0x80ffffff or 0x40000000',
    );
    expect(inbound).toContain(
      `iifname "ismg1" ct direction original ip daddr != ${links} ct mark and 0x7f000000 < 0x41000000 ct mark set ct mark and 0x80ffffff or 0x01000000`,
    );
  });
});

describe("I11: over a link begin", () => {
  const sources = (name: Name, other: Name, snat?: { s: Snat; t: Snat }): readonly string[] | undefined => {
    const k = inputOf(intents(snat === undefined ? {} : { snat }), name).links.get(node(other));
    return stateOf(name, snat).nft!.sets.get(`s4_${k}`);
  };

  it("flows of the other end itself and of its LAN, and no others", () => {
    expect(sources("b1", "a1")).toEqual(["10.101.0.1/32", "10.102.0.1/32", "10.103.0.1/32", LAN.s]);
    expect(sources("c", "a1")).toEqual(["10.101.0.1/32", "10.102.0.1/32", "10.103.0.1/32", LAN.s]);
    for (const name of NODES) {
      const state = stateOf(name);
      for (const { k } of openLinks(inputOf(intents(), name)))
        expect(rules(state, "inbound")).toContain(`iifname "ismg${k}" ct state new ip saddr != @s4_${k} drop`);
    }
  });

  it("none of a LAN that masquerades", () => {
    expect(sources("b1", "a1", { s: "Masquerade", t: "None" })).toEqual(["10.101.0.1/32", "10.102.0.1/32", "10.103.0.1/32"]);
    expect(sources("c", "a1", { s: "Masquerade", t: "None" })).toBeUndefined();
  });

  it("and only from such sources is anything forwarded into the LAN", () => {
    const state = stateOf("b1");
    const allowed = new Set(NODES.flatMap((name) => (name.startsWith("b") ? [] : inputOf(intents(), name).plan.self.index)));
    for (const cidr of state.nft!.sets.get("c4_subnet/t")!) {
      const own = [...allowed].some((i) => [`10.101.0.${i}`, `10.102.0.${i}`].some((one) => hostCidr(one) === cidr));
      expect(own || contains(parseCidr(LAN.s as never), parseCidr(cidr))).toBe(true);
    }
  });
});

describe("the LAN of a site that keeps its addresses", () => {
  it("is translated only where the other end would not let it in", () => {
    const a1 = stateOf("a1");
    const [k1, k2] = ["b1", "b2"].map((name) => inputOf(intents(), "a1").links.get(node(name)));
    expect(rules(a1, "translate").filter((rule) => rule.startsWith('oifname "ism') && rule.includes("ip saddr"))).toEqual([
      'oifname "ismgw0" ip saddr @d4_subnet/s accept',
      `oifname "ismg${k1}" ip saddr @d4_subnet/s ip daddr @pair4_site accept`,
      `oifname "ismg${k2}" ip saddr @d4_subnet/s ip daddr @pair4_site accept`,
      'oifname "ism*" ip saddr @lan4_site snat ip to 10.101.0.1',
    ]);
    expect(a1.nft!.sets.get("pair4_site")).toEqual(["10.101.0.3/32", "10.101.0.4/32", LAN.t]);
  });

  it("reaches nodes of other sites by their links, and those of its own site by the mesh", () => {
    expect(stateOf("a1").nft!.sets.get("far4_site")).toEqual(["10.101.0.5/32"]);
  });

  it("is not translated on its way in either", () => {
    const translate = rules(stateOf("b1"), "translate").filter((rule) => rule.includes("@c4_subnet/t"));
    expect(translate).toEqual([
      expect.stringMatching(/^oifname != "ism\*" ct mark and 0x7f000000 \{ 0x40000000, 0x01000000, 0x02000000 \} .* accept$/),
    ]);
    const masked = rules(stateOf("b1", { s: "None", t: "Masquerade" }), "translate").filter((rule) => rule.includes("@c4_subnet/t"));
    expect(masked).toEqual([expect.stringMatching(/masquerade$/)]);
  });
});

describe("what stays on a pairwise link", () => {
  const parts = inputOf(intents(), "b1");
  const [k1, k2] = ["a1", "a2"].map((name) => parts.links.get(node(name))!) as [number, number];
  const flows = (more: Partial<DesiredInput>): readonly number[] | undefined =>
    desiredKernel({ ...parts, ...more }).state.nexthops.get(157_100 + k2)?.group;

  it("is what the other end began, though this node itself prefers another gateway; until the link dies, or a drain is over", () => {
    expect(flows({})).toEqual([157_000 + k2]);
    expect(flows({ deadLinks: new Set([node("a2")]) })).toEqual([157_000 + k1]);
    const rejected = [{ node: node("a2"), why: "Draining" as const, since: 0 }];
    const drained = new Map([["subnet/s" as const, choice(["a1"], { rejected })]]);
    const draining = new Map([["subnet/s" as const, choice(["a1"], { rejected, draining: [{ node: node("a2"), until: 9 }] })]]);
    expect(flows({ choices: draining })).toEqual([157_000 + k2]);
    expect(flows({ choices: drained })).toEqual([157_000 + k1]);
  });

  it("is what goes to the other end itself, which no other gateway reaches", () => {
    const routes = [...desiredKernel({ ...parts, deadLinks: new Set([node("a2")]) }).state.routes.values()];
    expect(routes.find(({ table, dst }) => table === 157 + k2 && dst === "10.101.0.2/32")).toMatchObject({ dev: `ismg${k2}` });
  });
});

describe("the dialer", () => {
  let folder = "";
  beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), "ist-pairs-"))));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const dialed = (name: Name, snat: Snat): Map<string, object> => {
    const { plan, links } = inputOf(intents({ snat: { s: snat, t: snat } }), name);
    const dialer = createDialer(join(folder, `${name}-${snat}`), () => {});
    dialer.round(plan, links, new Set([4]), new Map(), 1_000);
    return new Map(dialer.dialFor(EMPTY_KERNEL));
  };

  describe("when a site begins or ends to keep its addresses", () => {
    const NOW = 1_800_000_000_000;
    const at = (snat: Snat, nat: readonly Name[] = []): DesiredInput => inputOf(intents({ snat: { s: snat, t: snat }, nat }), "a1");
    const k = at("None").links.get(node("b1"))!;
    const key = at("None").plan.peers.get(node("b1"))!.k;
    const port = at("None").plan.clients.get(node("b1"))!.port!;
    const seen = (endpoint: string): WgStatus =>
      new Map([[`ismg${k}`, new Map([[key, { publicKey: key, endpoint, latestHandshake: NOW / 1_000 }]])]]) as unknown as WgStatus;
    const round = (dialer: Dialer, { plan, links }: DesiredInput, status: WgStatus): readonly string[] =>
      dialer.round(plan, links, new Set([4]), status, NOW).resets.flatMap(({ ifname }) => (ifname === `ismg${k}` ? [ifname] : []));

    it("the link's session begins anew at the other interface, once", () => {
      const dialer = createDialer(join(folder, "turn"), () => {});
      expect(round(dialer, at("None"), seen(`192.0.2.3:${port}`))).toEqual([]);
      // What the pass writes meanwhile is not what was proven for the other interface.
      dialer.ensure(at("Masquerade").plan, at("Masquerade").links, new Set([4]), seen(`192.0.2.3:${port}`), NOW);
      expect(dialer.endpointOf(`ismg${k}`, key)).toBe("192.0.2.3:51821");
      expect(round(dialer, at("Masquerade"), seen(`192.0.2.3:${port}`))).toEqual([`ismg${k}`]);
      expect(dialer.endpointOf(`ismg${k}`, key)).toBe("192.0.2.3:51821");
      expect(round(dialer, at("Masquerade"), seen("192.0.2.3:51821"))).toEqual([]);
      expect(round(dialer, at("None"), seen("192.0.2.3:51821"))).toEqual([`ismg${k}`]);
      expect(dialer.endpointOf(`ismg${k}`, key)).toBe(`192.0.2.3:${port}`);
    });

    it("an end that cannot dial waits for the other, and keeps a session that has come already", () => {
      const dialer = createDialer(join(folder, "came"), () => {});
      const [before, after] = [at("Masquerade", ["b1"]), at("None", ["b1"])];
      expect(round(dialer, before, seen("198.51.100.9:40001"))).toEqual([]);
      dialer.ensure(after.plan, after.links, new Set([4]), seen("198.51.100.9:40001"), NOW);
      expect(round(dialer, after, seen("198.51.100.9:40002"))).toEqual([]);
      expect(dialer.endpointOf(`ismg${k}`, key)).toBe("198.51.100.9:40002");
    });

    it("a gateway that nobody can dial begins its client's session after that", () => {
      const dialer = createDialer(join(folder, "client"), () => {});
      const [before, after] = [at("None", ["a1"]), at("Masquerade", ["a1"])];
      const old = { publicKey: key, endpoint: `192.0.2.3:${port}`, latestHandshake: NOW / 1_000 };
      const status = (...ifnames: string[]): WgStatus => new Map(ifnames.map((name) => [name, new Map([[key, old]])])) as unknown as WgStatus;
      const all = (one: DesiredInput, seen: WgStatus): string[] =>
        dialer
          .round(one.plan, one.links, new Set([4]), seen, NOW)
          .resets.filter(({ node }) => node === "b1")
          .map(({ ifname }) => ifname);
      expect(all(before, status(`ismg${k}`))).toEqual([]);
      dialer.ensure(after.plan, after.links, new Set([4]), status(`ismg${k}`), NOW);
      expect(all(after, status(`ismg${k}`, "ismgw0"))).toEqual([`ismg${k}`, "ismgw0"]);
      expect(dialer.endpointOf("ismgw0", key)).toBe(`192.0.2.3:${port}`);
    });

    it("an agent that was away meanwhile sees that its session is with the wrong one", () => {
      const dialer = createDialer(join(folder, "away"), () => {});
      expect(round(dialer, at("Masquerade"), seen(`192.0.2.3:${port}`))).toEqual([`ismg${k}`]);
    });
  });

  it("takes both ends of a pairwise link to each other's port of it, and other links to ismgw0", () => {
    const theirs = 51_830 + inputOf(intents(), "b1").links.get(node("a1"))!;
    expect(dialed("a1", "None").get("b1")).toEqual({ mesh: "192.0.2.3:51820", gateway: `192.0.2.3:${theirs}` });
    expect(dialed("a1", "Masquerade").get("b1")).toEqual({ mesh: "192.0.2.3:51820", gateway: "192.0.2.3:51821" });
    expect(dialed("c", "None").get("a1")).toEqual({ mesh: "192.0.2.1:51820", gateway: "192.0.2.1:51821" });
  });
});

describe("explain", () => {
  it("names the pairwise link, and goes back over it", () => {
    const ask = (destination: string): Explanation =>
      explain({
        input: inputOf(intents(), "a1"),
        refusals: [],
        linkViews: new Map(),
        lans: new Map(),
        destination: destination as never,
        wall: (at) => at,
        now: 0,
      });
    const dev = `ismg${inputOf(intents(), "a1").links.get(node("b1"))}`;
    expect(ask("172.20.2.50")).toMatchObject({ verdict: "Gateway", owner: "subnet/t", snat: "None", hops: [{ dev }, { at: "b1" }] });
    expect(ask("172.20.2.50").hops[0]?.what).toContain("pairwise link to b1");
    expect(ask("10.102.0.3")).toMatchObject({ hops: [{ dev }] });
    expect(ask("10.102.0.5")).toMatchObject({ hops: [{ dev: "ismgw0" }] });
  });
});
