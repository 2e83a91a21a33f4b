/** A planned move loses no packet and breaks no connection (I5): drain, reboot, uncordon, failback. Needs root. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { GapReport } from "../../lab/gap.ts";
import { eventually } from "../../lab/shell.ts";
import { conditionOf, egress, INTERNET, type Flow, type Plane, planeUp, settled, steady } from "./plane.ts";

const NAME = `t-${process.pid}-kn`;
const ECHO_PORT = 7;

let plane: Plane;

beforeAll(async () => {
  plane = await planeUp(NAME, { manifests: false });
  // lanhost sends what the datacenter steers through datacenter1.
  await plane.sh("lanhost", `ip route add ${INTERNET} via 192.168.88.11`);
}, 120_000);

afterAll(async () => plane.down());

/** Connections by the tracking table of a gateway: where they go in this moment. */
const tracked = async (gateway: string): Promise<number> =>
  Number(await plane.sh(gateway, `conntrack -L -p tcp --orig-dst ${INTERNET} --dport ${ECHO_PORT} --state ESTABLISHED 2>/dev/null | wc -l`));
const drained = async (status: "True" | "False", reason: string): Promise<unknown> =>
  conditionOf(plane, "meshnodes", "do1", "Drained", (one) => one.status === status && one.reason === reason);

async function intact(flows: readonly Flow[]): Promise<void> {
  for (const flow of flows) {
    const report = await flow.stop();
    expect(report.error).toBeUndefined();
    expect(report.echoed).toBe(report.sent);
    expect(report.sent).toBeGreaterThan(20);
  }
}

describe("drain and uncordon", () => {
  test("lose no packet and break no connection, local or forwarded; then the node can be rebooted", async () => {
    await settled(plane);
    await plane.apply(egress());
    await steady(plane, "datacenter1", "do1");
    const local = await plane.flow("datacenter1", INTERNET, ECHO_PORT);
    const forwarded = await plane.flow("lanhost", INTERNET, ECHO_PORT);
    const packets = await plane.lab.startGapStream({ from: "datacenter1", to: INTERNET, protocol: "udp", intervalMs: 5 });
    expect(await tracked("do1")).toBe(2);

    const said = plane.cli("drain", "do1", "--timeout", "10m");
    await plane.becomes("new flows leave by do2", "datacenter1", plane.addressOf("do2"));
    await plane.becomes("new forwarded flows too", "lanhost", plane.addressOf("do2"));
    await drained("False", "FlowsLeft");
    expect(await tracked("do1")).toBe(2);
    await intact([local, forwarded]);
    expect((await packets.stop()).gaps).toEqual([]);
    // Nobody knows that a UDP flow is over; its entry would hold the drain up for two more minutes.
    await plane.sh("do1", `conntrack -D -p udp --orig-dst ${INTERNET} 2>/dev/null; true`);
    await drained("True", "NoFlowsLeft");
    await said;
    expect(await plane.cli("describe", "node", "do1")).toMatch(/Drained +True/);
    expect(await plane.cli("get", "nodes", "-o", "wide")).toMatch(/do1.*Ready,Drained/);

    await plane.lab.fail("node", "do1");
    await plane.lab.heal("node", "do1");
    await settled(plane);
    expect(await plane.seenFrom("datacenter1")).toBe(plane.addressOf("do2"));
    const later = await plane.flow("datacenter1", INTERNET, ECHO_PORT);
    await plane.cli("uncordon", "do1");
    await plane.becomes("failback to do1", "datacenter1", plane.addressOf("do1"));
    await new Promise((wake) => setTimeout(wake, 500));
    await intact([later]);
  });

  test("flows that stay are moved at drainTimeout", async () => {
    await settled(plane);
    await plane.apply(egress());
    await steady(plane, "datacenter1", "do1");
    const packets = await plane.lab.startGapStream({ from: "datacenter1", to: INTERNET, protocol: "icmp", intervalMs: 50 });
    await plane.cli("drain", "do1", "--timeout", "3s");
    await eventually("the flow table of do1's link points at do2's", 30_000, async () => {
      const { links } = await plane.status("datacenter1");
      const k = (gateway: string): string => links.find((link) => link.gateway === gateway)?.interface.slice(4) ?? "";
      const groups = await plane.sh("datacenter1", "ip nexthop");
      return groups.includes(`id 15710${k("do1")} group 15700${k("do2")}`) ? true : undefined;
    });
    await drained("True", "NotUsed");
    await packets.stop();
    await plane.cli("uncordon", "do1");
    await steady(plane, "datacenter1", "do1");
    await conditionOf(plane, "meshnodes", "do1", "Ready", ({ status }) => status === "True");
  });
});

describe("a drain without a timeout of its own", () => {
  test("ends with the drain timeout of the intent, and at once where nothing uses the node; a label that is given meanwhile changes nothing", async () => {
    await settled(plane);
    await plane.apply(egress({ drainTimeout: "2s" }));
    await steady(plane, "datacenter1", "do1");
    for (const node of ["do2", "do1"]) {
      // It gives up 15 s after the intent's drain timeout; clients that nobody hears of count as gone after a minute only.
      await plane.cli("drain", node);
      await plane.cli("label", "node", node, "rack=7");
      const { conditions } = (await plane.object("meshnodes", node)).status ?? {};
      expect(conditions?.find(({ type }) => type === "Drained")).toMatchObject({ status: "True" });
      await plane.cli("label", "node", node, "rack-");
      await plane.cli("uncordon", node);
      await settled(plane);
      await steady(plane, "datacenter1", "do1");
    }
  });
});

describe("a change of the intent", () => {
  const via = (...sites: string[]): object => ({ gateways: sites.map((site, i) => ({ site, priority: 200 - i })), failback: { type: "Immediate" } });
  const conditionIs = async (type: string): Promise<unknown> =>
    conditionOf(plane, "egressgateways", "internet", type, ({ status }) => status === "True");
  /** Flows through do1 that a change must not break. */
  async function throughDo1(): Promise<{ readonly flows: readonly Flow[]; outages(): Promise<GapReport["gaps"]> }> {
    await settled(plane);
    await plane.apply(egress({ ...via("do1", "do2"), drainTimeout: "10m" }));
    await steady(plane, "datacenter1", "do1");
    const flows = [await plane.flow("datacenter1", INTERNET, ECHO_PORT), await plane.flow("lanhost", INTERNET, ECHO_PORT)];
    const packets = await plane.lab.startGapStream({ from: "datacenter1", to: INTERNET, protocol: "udp", intervalMs: 5 });
    expect(await tracked("do1")).toBe(2);
    return { flows, outages: async () => (await packets.stop()).gaps };
  }
  /** New flows go by do2, local and forwarded, and do1 still has the old ones. */
  async function moved(): Promise<void> {
    await plane.becomes("new flows leave by do2", "datacenter1", plane.addressOf("do2"));
    await plane.becomes("new forwarded flows too", "lanhost", plane.addressOf("do2"));
    await new Promise((wake) => setTimeout(wake, 1_000));
    expect(await tracked("do1")).toBe(2);
  }

  test("that lets a gateway go moves new flows, breaks none, loses no packet, and says so", async () => {
    const { flows, outages } = await throughDo1();
    const document = egress({ ...via("do2"), drainTimeout: "10m" });
    const { nodes } = (await plane.controller.call("POST", "/v1/diff", { documents: [document] })) as {
      nodes: { node: string; changes: { what: string; to?: string }[] }[];
    };
    expect(nodes.find(({ node }) => node === "do1")?.changes).toContainEqual(
      expect.objectContaining({ what: "serving egress/internet", to: "for established flows only, until the drain timeout" }),
    );
    await plane.apply(document);
    await moved();
    await conditionIs("Retiring");
    expect(await plane.cli("describe", "egress", "internet")).toMatch(/Retiring +True/);
    expect((await plane.explain("datacenter1", INTERNET)).candidates).toContainEqual(
      expect.objectContaining({ node: "do1", active: false, why: "Retiring" }),
    );
    // It serves on although both ends forget what they have in memory.
    await plane.lab.crash("ctl");
    await plane.lab.crash("datacenter1");
    await plane.lab.crash("do1");
    await settled(plane);
    expect(await tracked("do1")).toBe(2);
    await intact(flows);
    expect(await outages()).toEqual([]);
  });

  test("that gives a destination to another intent, or takes a label away, breaks nothing either, though the controller dies meanwhile", async () => {
    const { flows, outages } = await throughDo1();
    const elsewhere = { ...(egress({ ...via("do2"), drainTimeout: "10m" }, "other") as { spec: object }) };
    const narrowed = egress({ ...via("do1"), destinations: ["34.160.112.0/24"], drainTimeout: "10m" });
    await plane.apply(narrowed, elsewhere);
    await moved();
    // The controller's clock of it goes on where it was.
    await plane.lab.crash("ctl");
    await eventually("what was let go is closed to new flows", 60_000, async () =>
      (await plane.sh("do1", "nft list table inet isthmus")).includes("ct status confirmed") ? true : undefined,
    );
    await settled(plane);
    expect(await tracked("do1")).toBe(2);
    await intact(flows);
    expect(await outages()).toEqual([]);
    await plane.remove("egressgateways", "other");

    const again = await throughDo1();
    const labelled = egress({ gateways: [{ nodeSelector: { egress: "true" } }], failback: { type: "Immediate" }, drainTimeout: "10m" });
    await plane.apply(labelled);
    await plane.cli("label", "node", "do1", "egress-");
    await moved();
    await intact(again.flows);
    expect(await again.outages()).toEqual([]);
    await plane.cli("label", "node", "do1", "egress=true");
    await steady(plane, "datacenter1", "do1");
  });

  test("and a drain that is taken back and given again", async () => {
    const { flows, outages } = await throughDo1();
    for (const _ of [1, 2]) {
      await plane.cli("drain", "do1", "--timeout", "10m", "--no-wait");
      await plane.becomes("new flows leave by do2", "datacenter1", plane.addressOf("do2"));
      await plane.cli("uncordon", "do1");
      await plane.becomes("and by do1 again", "datacenter1", plane.addressOf("do1"));
    }
    expect(await tracked("do1")).toBe(2);
    await intact(flows);
    expect(await outages()).toEqual([]);
  });

  test("lets the gateway go at its drain timeout: packets go on by the new one, and the old one forwards nothing", async () => {
    await settled(plane);
    await plane.apply(egress({ ...via("do1", "do2"), drainTimeout: "2s" }));
    await steady(plane, "datacenter1", "do1");
    const packets = await plane.lab.startGapStream({ from: "datacenter1", to: INTERNET, protocol: "udp", intervalMs: 5 });
    await plane.apply(egress({ ...via("do2"), drainTimeout: "2s" }));
    await eventually("do1 serves no more", 60_000, async () =>
      (await plane.sh("do1", "nft list table inet isthmus")).includes("d4_egress/internet") ? undefined : true,
    );
    await new Promise((wake) => setTimeout(wake, 500));
    expect((await packets.stop()).gaps).toEqual([]);
    const { conditions } = (await plane.object("egressgateways", "internet")).status ?? {};
    expect(conditions?.find(({ type }) => type === "Retiring")?.message ?? "").not.toContain("do1");
  });
});
