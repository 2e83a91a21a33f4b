/** What is remembered between runs changes what a run costs, never what it says. */
import * as fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { diffKernel } from "../../../mesh/kernel/diff.ts";
import { desiredKernel } from "../../../mesh/kernel/desired.ts";
import type { Desired, DesiredInput } from "../../../mesh/kernel/types.ts";
import type { LanRoutePlan, PathId } from "../../../mesh/model/plan.ts";
import { choice, cidr, EGRESS, host, input, ip, node, path, plan } from "./fixtures.ts";

const DESTINATIONS = ["34.0.0.0/8", "34.160.111.145/32", "203.0.113.0/24", "198.51.100.0/25", "192.168.88.7/32", "2001:db8::/32", "2001:db8:1::/48"];
const LAN_GATEWAYS = ["192.168.88.5", "192.168.88.6", "10.9.9.9"];

const lanRoute = (destinations: readonly string[], table: number): LanRoutePlan & { destinations: readonly ReturnType<typeof cidr>[] } => ({
  created: 2,
  gateways: LAN_GATEWAYS.map(ip),
  table,
  strategy: "Spread",
  health: { type: "icmp", interval: "100ms", threshold: 3, holdDown: "5s" },
  destinations: destinations.map(cidr),
});

const some = fc.subarray(DESTINATIONS);
const steps = fc.record({
  web: some,
  other: some,
  lan: some,
  table: fc.constantFrom(254, 100),
  active: fc.subarray(["do1", "do2"]),
  otherActive: fc.subarray(["do1", "do2"]),
  onNoGateway: fc.constantFrom("Unreachable" as const, "Underlay" as const),
  lanActive: fc.subarray(LAN_GATEWAYS, { minLength: 1 }),
  shielded: fc.subarray(["34.5.6.7", "198.51.100.9"]),
  metric: fc.constantFrom(undefined, 0, 50),
});

const inputOf = (step: typeof steps extends fc.Arbitrary<infer T> ? T : never): DesiredInput =>
  input({
    plan: plan("dc1", {
      paths: new Map([
        [EGRESS, path(step.web, ["do1", "do2"], { onNoGateway: step.onNoGateway })],
        ["egress/other" as PathId, path(step.other, ["do2", "do1"], { created: 3 })],
      ]),
      lanRoutes: new Map([["lanroute/office", lanRoute(step.lan, step.table)]]),
    }),
    host: host({
      protectedAddresses: step.shielded.map((address) => ({ address: ip(address), why: "a session" })),
      mainRoutes: [
        ...host().mainRoutes,
        ...(step.metric === undefined ? [] : [{ dst: cidr("34.0.0.0/8"), via: ip("192.168.88.1"), dev: "eth0", metric: step.metric }]),
      ],
    }),
    links: new Map([
      [node("do1"), 1],
      [node("do2"), 2],
    ]),
    choices: new Map([
      [EGRESS, choice(step.active)],
      ["egress/other" as PathId, choice(step.otherActive)],
    ]),
    lanChoices: new Map([["lanroute/office", step.lanActive.map(ip)]]),
  });

const bytes = (desired: Desired): string =>
  JSON.stringify(desired, (_, value: unknown) => (value instanceof Map || value instanceof Set ? [...value] : value));

/** By modules that have seen nothing yet. */
async function withoutMemory(one: DesiredInput): Promise<Desired> {
  vi.resetModules();
  const fresh = await import("../../../mesh/kernel/desired.ts");
  return fresh.desiredKernel(one);
}

describe("what the kernel's desired state remembers", () => {
  it("says after any sequence of plans, hosts and choices what it says of the last one alone", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(steps, { minLength: 2, maxLength: 5 }), async (sequence) => {
        for (const step of sequence) expect(bytes(desiredKernel(inputOf(step)))).toBe(bytes(await withoutMemory(inputOf(step))));
      }),
      { numRuns: 40 },
    );
  });

  it("keeps the routes of all other destinations as they are when one of them changes", () => {
    const many = Array.from({ length: 50 }, (_, i) => `100.64.0.${i}/32`);
    const step = { ...BASE, web: many, lan: many.map((one) => one.replace("100.64", "198.18")) };
    const before = desiredKernel(inputOf(step)).state;
    const after = desiredKernel(inputOf({ ...step, web: ["100.65.0.1/32", ...many.slice(1)] })).state;
    const made = [...after.routes].filter(([key, route]) => before.routes.get(key) !== route).map(([, { dst }]) => dst);
    expect(new Set(made)).toEqual(new Set(["100.65.0.1/32"]));
    expect(diffKernel(after, before)).toHaveLength(4);
  });
});

const BASE: Parameters<typeof inputOf>[0] = {
  web: [],
  other: [],
  lan: [],
  table: 254,
  active: ["do1"],
  otherActive: ["do1"],
  onNoGateway: "Unreachable",
  lanActive: LAN_GATEWAYS.slice(0, 1),
  shielded: [],
  metric: undefined,
};
