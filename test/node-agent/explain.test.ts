import { describe, expect, test } from "vitest";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import type { Choice, LinkView } from "../../mesh/elect/types.ts";
import { desiredKernel } from "../../mesh/kernel/desired.ts";
import type { DesiredInput } from "../../mesh/kernel/types.ts";
import type { Explanation } from "../../mesh/model/answers.ts";
import type { PathId, PathPlan } from "../../mesh/model/plan.ts";
import type { IpAddress, NodeName, WgPublicKey } from "../../mesh/model/scalars.ts";
import { explain } from "../../node-agent/explain.ts";
import { HOST, key, name, pathPlan, rawViews } from "./plans.ts";

const WEB = "egress/web" as PathId;
const choice: Choice = {
  active: [name("g2")],
  reason: "GatewayDown",
  since: 50,
  rejected: [{ node: name("g1"), why: "Down", since: 40 }],
  draining: [],
  wakeAt: undefined,
};
const views = new Map<NodeName, LinkView>([
  [name("g1"), { node: name("g1"), verdict: "Down", since: 40, gateway: "Unknown", srttMs: undefined }],
  [name("g2"), { node: name("g2"), verdict: "Up", since: 10, gateway: "Serving", srttMs: 12.34 }],
]);

function ask(destination: string, kernel?: { ok: boolean; text: string }, chosen: Choice | undefined = choice, raw = rawViews()): Explanation {
  const { plan } = parsePlan(raw);
  if (plan === undefined) throw new Error("no plan");
  const input: DesiredInput = {
    plan,
    host: HOST,
    publicKey: key(1) as WgPublicKey,
    links: new Map([
      [name("g1"), 1],
      [name("g2"), 2],
    ]),
    choices: new Map(chosen === undefined ? [] : [[WEB, chosen]]),
    deadLinks: new Set(),
    dial: new Map(),
    lanChoices: new Map(),
  };
  const { refusals } = desiredKernel(input);
  return explain({
    input,
    refusals,
    linkViews: views,
    lans: new Map(),
    destination: destination as IpAddress,
    ...(kernel === undefined ? {} : { kernel }),
    wall: (at) => at + 1_000,
    now: 100,
  });
}

describe("the way of a packet", () => {
  test("with how long a gateway that answers again must still stay quiet", () => {
    const before = views.get(name("g1"))!;
    views.set(name("g1"), { ...before, holdDownUntil: 2_600 });
    try {
      expect(ask("34.160.111.145").candidates.find(({ node }) => node === "g1")?.message).toContain("counts as up in 2.5 s");
    } finally {
      views.set(name("g1"), before);
    }
  });

  test("over a gateway link, with the choice's reason, its time, and why the other one is not used", () => {
    expect(ask("34.160.111.145")).toMatchObject({
      node: "c",
      verdict: "Gateway",
      owner: "egress/web",
      prefix: "34.160.111.145/32",
      reason: "GatewayDown",
      since: 1_050,
      snat: "Masquerade",
      exit: "203.0.113.4",
      hops: [{ at: "c", dev: "ismg2", table: 157 }, { at: "g2" }],
      candidates: [
        { node: "g1", active: false, why: "Down", since: 1_040, message: "link Down, gateway Unknown" },
        { node: "g2", active: true, why: "GatewayDown", message: "link Up, 12.3 ms, gateway Serving" },
      ],
    });
  });

  test("what the destination sees is told only where it is known", () => {
    const of = (path: Partial<PathPlan>, g2: object = {}, chosen = choice): unknown[] => {
      const gateway = { i: 3, k: key(3), s: "two", e: ["203.0.113.4:51820"], ...g2 };
      const raw = rawViews({ "egress/web": { path: pathPlan(["g1", "g2"], path) }, mesh: { "peer/g2": gateway } });
      const { snat, exit } = ask("34.160.111.145", undefined, chosen, raw);
      return [snat, exit];
    };
    const masquerade = { snat: { type: "Masquerade" } } as const;
    const address = { snat: { type: "Address", address: "192.0.2.7" as IpAddress } } as const;
    expect(of({})).toEqual([undefined, undefined]);
    expect(of({ snat: { type: "None" } })).toEqual(["None", undefined]);
    expect(of(address)).toEqual(["192.0.2.7", "192.0.2.7"]);
    expect(of({ snat: { type: "Address", address: "2001:db8::7" as IpAddress } })).toEqual(["2001:db8::7", undefined]);
    // Endpoints of the LAN, or of the other family, are not what a destination out there sees.
    expect(of(masquerade, { e: ["192.168.1.4:51820", "[2001:db8::4]:51820", "203.0.113.44:51820"] })).toEqual(["Masquerade", "203.0.113.44"]);
    expect(of(masquerade, { e: ["192.168.1.4:51820"] })).toEqual(["Masquerade", undefined]);
    const spread = { ...choice, active: [name("g1"), name("g2")] };
    expect(of(masquerade, {}, spread)).toEqual(["Masquerade", undefined]);
    expect(of(address, {}, spread)).toEqual(["192.0.2.7", "192.0.2.7"]);
  });

  test("the longest prefix decides", () => {
    expect(ask("198.51.100.9")).toMatchObject({ verdict: "Gateway", prefix: "198.51.100.0/24" });
    expect(ask("198.51.101.9")).toMatchObject({ verdict: "Underlay", hops: [{ dev: "eth0", via: "203.0.113.100" }] });
  });

  test("to a node, to oneself, and to an overlay address that nobody holds", () => {
    expect(ask("10.101.0.3")).toMatchObject({ verdict: "Mesh", owner: "peer/g2", hops: [{ dev: "ism0" }, { at: "g2" }] });
    expect(ask("10.101.0.1")).toMatchObject({ verdict: "Local" });
    expect(ask("203.0.113.2")).toMatchObject({ verdict: "Local" });
    expect(ask("10.101.9.9")).toMatchObject({ verdict: "Unreachable" });
  });

  test.each(["127.0.0.1", "127.5.0.1", "::1", "0.0.0.0", "::"])("%s is the node itself, whatever routes there are", (address) => {
    const kernel = { ok: true, text: `local ${address} dev lo table local src ${address}` };
    expect(ask(address, kernel)).toMatchObject({ verdict: "Local", kernel: { agrees: true } });
  });

  test.each(["169.254.1.1", "fe80::1", "224.0.0.5", "ff02::1", "255.255.255.255"])("%s stays on its own network and is told no router", (address) => {
    const said = ask(address);
    expect(said).toMatchObject({ verdict: "Protected" });
    expect(said.hops.map(({ via }) => via)).toEqual([undefined]);
  });

  test("without any gateway it is refused, and does not go by the underlay", () => {
    expect(ask("34.160.111.145", undefined, { ...choice, active: [], reason: "NoneEverAlive" })).toMatchObject({
      verdict: "Unreachable",
      reason: "NoneEverAlive",
    });
  });

  test("what is protected is told by its name, not only that it is", () => {
    const wide = rawViews({ "egress/web": { "d/0.0.0.0/0": 1 } });
    expect(ask("203.0.113.3", undefined, choice, wide).message).toBe(
      "the WireGuard endpoint of g1, which no intent may steer: it keeps the way that it has without Isthmus",
    );
  });

  test("I9: a protected destination inside a wide one keeps its own way, and says so", () => {
    const wide = rawViews({ "egress/web": { "d/0.0.0.0/0": 1 } });
    expect(ask("203.0.113.1", undefined, choice, wide)).toMatchObject({ verdict: "Protected", owner: "egress/web", hops: [{ dev: "eth0" }] });
    expect(ask("8.8.8.8", undefined, choice, wide)).toMatchObject({ verdict: "Gateway", prefix: "0.0.0.0/0" });
  });
});

describe("compared with the kernel", () => {
  test.each([
    ["34.160.111.145", { ok: true, text: "34.160.111.145 dev ismg2 table 157 src 10.102.0.1" }, true],
    ["34.160.111.145", { ok: true, text: "34.160.111.145 via 203.0.113.100 dev eth0 src 203.0.113.2" }, false],
    ["34.160.111.145", { ok: false, text: "RTNETLINK answers: No route to host" }, false],
    ["10.101.9.9", { ok: false, text: "RTNETLINK answers: No route to host" }, true],
    ["10.101.9.9", { ok: true, text: "10.101.9.9 via 203.0.113.100 dev eth0" }, false],
    // WireGuard itself drops what no peer holds.
    ["10.101.9.9", { ok: true, text: "10.101.9.9 dev ism0 table 157 src 10.101.0.1" }, true],
    ["203.0.113.2", { ok: true, text: "local 203.0.113.2 dev lo src 203.0.113.2" }, true],
    ["10.101.0.3", { ok: true, text: "10.101.0.3 dev ism0 table 157 src 10.101.0.1" }, true],
  ])("%s and %o agree: %s", (destination, kernel, agrees) => {
    const said = ask(destination, kernel).kernel;
    expect(said).toMatchObject({ text: kernel.text, agrees });
    expect(said?.note === undefined).toBe(agrees);
  });
});
