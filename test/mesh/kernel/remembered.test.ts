/** What is remembered between runs changes what a run costs, never what it says. */
import * as fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { diffKernel } from "../../../mesh/kernel/diff.ts";
import { desiredKernel } from "../../../mesh/kernel/desired.ts";
import type { Desired, DesiredInput, HostFacts } from "../../../mesh/kernel/types.ts";
import type { LanRoutePlan, PathId, Plan } from "../../../mesh/model/plan.ts";
import { choice, cidr, EGRESS, host, input, ip, node, path, plan } from "./fixtures.ts";

const DESTINATIONS = ["34.0.0.0/8", "34.160.111.145/32", "203.0.113.0/24", "198.51.100.0/25", "192.168.88.7/32", "2001:db8::/32", "2001:db8:1::/48"];
/** Inside a destination, and a destination itself: carved out, and refused. */
const SHIELDED = ["34.5.6.7", "34.160.111.145", "192.168.88.7"];
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
const parts = {
  web: some,
  other: some,
  lan: some,
  table: fc.constantFrom(254, 100),
  active: fc.subarray(["do1", "do2"]),
  otherActive: fc.subarray(["do1", "do2"]),
  onNoGateway: fc.constantFrom("Unreachable" as const, "Underlay" as const),
  lanActive: fc.subarray(LAN_GATEWAYS, { minLength: 1 }),
  shielded: fc.oneof(fc.subarray(SHIELDED), fc.subarray(SHIELDED, { minLength: 1, maxLength: 1 })),
  why: fc.constantFrom("a session", "the DNS server of this node"),
  metric: fc.constantFrom(undefined, 0, 50),
};
type Step = { readonly [K in keyof typeof parts]: (typeof parts)[K] extends fc.Arbitrary<infer T> ? T : never };
const steps: fc.Arbitrary<Step> = fc.record(parts);
/** As in life: one thing after the other, while all else stays the very same object. */
const change: fc.Arbitrary<Partial<Step>> = fc.oneof(
  ...Object.entries(parts).map(([key, value]) => fc.record({ [key]: value }) as fc.Arbitrary<Partial<Step>>),
);
const sequences = fc
  .tuple(steps, fc.array(change, { minLength: 3, maxLength: 8 }))
  .map(([first, changes]) => changes.reduce<Step[]>((before, one) => [...before, { ...(before.at(-1) ?? first), ...one }], [first]));

const known = new Map<string, unknown>();
function same<T>(content: unknown, make: () => T): T {
  const key = JSON.stringify(content);
  if (!known.has(key)) known.set(key, make());
  return known.get(key) as T;
}

const planOf = ({ web, other, lan, table, onNoGateway }: Step): Plan =>
  same(["plan", web, other, lan, table, onNoGateway], () =>
    plan("dc1", {
      paths: new Map([
        [EGRESS, path(web, ["do1", "do2"], { onNoGateway })],
        ["egress/other" as PathId, path(other, ["do2", "do1"], { created: 3 })],
      ]),
      lanRoutes: new Map([["lanroute/office", lanRoute(lan, table)]]),
    }),
  );

const hostOf = ({ shielded, why, metric }: Step): HostFacts =>
  same(["host", shielded, why, metric ?? "none"], () =>
    host({
      protectedAddresses: shielded.map((address) => ({ address: ip(address), why })),
      mainRoutes: [
        ...host().mainRoutes,
        ...(metric === undefined ? [] : [{ dst: cidr("34.0.0.0/8"), via: ip("192.168.88.1"), dev: "eth0", metric }]),
      ],
    }),
  );

const inputOf = (step: Step): DesiredInput =>
  input({
    plan: planOf(step),
    host: hostOf(step),
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
      fc.asyncProperty(sequences, async (sequence) => {
        for (const step of sequence) expect(bytes(desiredKernel(inputOf(step)))).toBe(bytes(await withoutMemory(inputOf(step))));
      }),
      { numRuns: 60 },
    );
  });

  it("is still there after a question about another plan, as a diff asks it", () => {
    const step = { ...BASE, web: ["34.0.0.0/8"], lan: ["198.51.100.0/25"] };
    const before = desiredKernel(inputOf(step)).state;
    desiredKernel(inputOf({ ...step, other: ["203.0.113.0/24"] }));
    expect(desiredKernel(inputOf(step)).state.routes).toBe(before.routes);
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

const BASE: Step = {
  web: [],
  other: [],
  lan: [],
  table: 254,
  active: ["do1"],
  otherActive: ["do1"],
  onNoGateway: "Unreachable",
  lanActive: LAN_GATEWAYS.slice(0, 1),
  shielded: [],
  why: "a session",
  metric: undefined,
};
