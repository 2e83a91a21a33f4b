/**
 * Ways that are long, lossy or out of order (netem), which the kernels of small machines do not have. Runs in the virtual machine of
 * `isthmus test kernel`.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { netnsName, WORLD } from "../../../lab/names.ts";
import { patient } from "../../../lab/patience.ts";
import { eventually, netnsScript } from "../../../lab/shell.ts";
import { egress, INTERNET, type Plane, planeUp, settled, steady } from "../../system/plane.ts";

const NAME = `t-${process.pid}-k`;
const CLIENT = "datacenter1";
/** What nothing moves for: 200 probes. */
const WATCH_MS = 20_000;

let plane: Plane;

beforeAll(async () => {
  plane = await planeUp(NAME, { manifests: false });
  await plane.apply(egress());
}, patient(120_000));

afterAll(async () => plane.down());

/** What the way to a gateway does to packets, until the test is over. */
async function worsen(gateway: string, what: string): Promise<void> {
  await netnsScript(netnsName(NAME, WORLD), `tc qdisc replace dev w-${gateway} root netem ${what} limit 10000`);
}

afterEach(async () => {
  for (const gateway of ["do1", "do2"]) await netnsScript(netnsName(NAME, WORLD), `tc qdisc del dev w-${gateway} root 2>/dev/null || :`);
});

async function rttIsLong(gateway: string): Promise<void> {
  await eventually(`the way to ${gateway} is seen to be long`, 30_000, async () => {
    const link = (await plane.status(CLIENT)).links.find((one) => one.gateway === gateway);
    return (link?.rttMs ?? 0) > 200 ? true : undefined;
  });
}

/** The choice, and since when it is made, stay what they were, and a connection lives through it with all that it sent. */
async function staysWhile(work: () => Promise<void>): Promise<void> {
  await settled(plane);
  const before = await steady(plane, CLIENT, "do1");
  const flow = await plane.flow(CLIENT, INTERNET, 7);
  await work();
  await new Promise((wake) => setTimeout(wake, WATCH_MS));
  const report = await flow.stop();
  const after = await steady(plane, CLIENT, "do1");
  expect([after.reason, Math.abs(after.since - before.since) < 50]).toEqual([before.reason, true]);
  expect(report.error).toBeUndefined();
  expect(report.echoed).toBe(report.sent);
}

describe("nothing moves", () => {
  test("when the way to the gateway becomes 250 ms long", async () => {
    await staysWhile(async () => worsen("do1", "delay 250ms"));
    await rttIsLong("do1");
  });

  test("when the way to the gateway loses one packet in twenty and lets one in four overtake others, with a threshold for such ways", async () => {
    // Three in a row are lost once in 15 minutes on such a way, five in a row once in four days.
    await plane.apply(egress({ health: { holdDown: "1s", threshold: 5 } }));
    await staysWhile(async () => worsen("do1", "delay 60ms 20ms reorder 25% loss 5%"));
    const dropped = /dropped ([0-9]+)/.exec((await netnsScript(netnsName(NAME, WORLD), "tc -s qdisc show dev w-do1")).stdout)?.[1];
    expect(Number(dropped)).toBeGreaterThan(0);
    await plane.apply(egress());
  });
});

test("a gateway's death is seen on ways that are 250 ms long", async () => {
  await settled(plane);
  await steady(plane, CLIENT, "do1");
  for (const gateway of ["do1", "do2"]) await worsen(gateway, "delay 250ms");
  for (const gateway of ["do1", "do2"]) await rttIsLong(gateway);
  await steady(plane, CLIENT, "do1");
  await plane.lab.fail("node", "do1");
  await plane.becomes("egress by do2", CLIENT, plane.addressOf("do2"));
  expect((await plane.status(CLIENT)).paths).toContainEqual(expect.objectContaining({ active: ["do2"], reason: "GatewayDown" }));
  await settled(plane, "do1");
});
