/** The drivers against a real kernel: two gateways, a client, wireguard-go. Needs root. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Choice } from "../../../mesh/elect/types.ts";
import { desiredKernel } from "../../../mesh/kernel/desired.ts";
import type { DesiredInput, KernelState } from "../../../mesh/kernel/types.ts";
import type { PeerPlan, Plan } from "../../../mesh/model/plan.ts";
import type { Endpoint, NodeName } from "../../../mesh/model/scalars.ts";
import { choice, cidr, EGRESS, input, NETWORK, node, path, peer } from "../../mesh/kernel/fixtures.ts";
import { eventually, isRoot, kill, openLan, type Lan, type Machine } from "./namespaces.ts";

const SITE = "subnet/region1" as const;
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
  }, 30_000);
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
      serves: new Map([[EGRESS, { snat: { type: "Masquerade" }, uplink: [], uplinkIntervalMs: 100, threshold: 3 }]]),
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
    for (const [machine, desired] of [[do1, await gateway(do1, "do1")], [do2, await gateway(do2, "do2")], [dc1, await client()]] as const) {
      const results = await machine.converge(desired);
      expect(results.filter(({ ok }) => !ok)).toEqual([]);
      expect(await machine.difference(desired)).toEqual([]);
    }
  }, 30_000);

  it("carries egress through the chosen gateway, which translates the source", async () => {
    server.sh("(while true; do nc -l -p 8080 -q 0 </dev/null >/dev/null 2>&1; done) >/dev/null 2>&1 &");
    await eventually(5_000, "a ping through do1", () => dc1.ok("ping -c1 -W1 203.0.113.100"));
    expect(server.ok("ping -c1 -W1 10.101.0.1")).toBe(false);
  });
});
