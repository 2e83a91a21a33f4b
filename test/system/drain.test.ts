/** A planned move loses no packet and breaks no connection (I5): drain, reboot, uncordon, failback. Needs root. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
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
    expect((await packets.stop()).lost).toBe(0);
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
