/** 2,000 destinations on a real kernel. Prints what it measured; `isthmus bench routes` judges the times. Needs root. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { desiredKernel } from "../../../mesh/kernel/desired.ts";
import { applyOperations, diffKernel } from "../../../mesh/kernel/diff.ts";
import type { DesiredInput, KernelState } from "../../../mesh/kernel/types.ts";
import { choice, cidr, EGRESS, input, ip, node, path, PEERS, plan } from "../../mesh/kernel/fixtures.ts";
import { isRoot, openLan, type Lan, type Machine } from "./namespaces.ts";

const MANY = Array.from({ length: 2_000 }, (_, i) => `198.18.${i >> 8}.${i & 255}/32`);
const LAN = Array.from({ length: 2_000 }, (_, i) => `198.19.${i >> 8}.${i & 255}/32`);

describe.runIf(isRoot)("2,000 destinations", () => {
  let lan: Lan;
  let machine: Machine;
  let believed: KernelState;
  let base: DesiredInput;

  beforeAll(async () => {
    lan = openLan("r");
    machine = await lan.machine("dc1", "192.168.88.11/24", "ip -n NS route add default via 192.168.88.1");
    base = input({
      plan: plan("dc1"),
      publicKey: machine.publicKey,
      host: await machine.hostFacts(),
      links: new Map([
        [node("do1"), 1],
        [node("do2"), 2],
      ]),
    });
    believed = desiredKernel(base).state;
    const results = await machine.converge(believed);
    expect(results.filter(({ ok }) => !ok)).toEqual([]);
  });
  afterAll(() => lan.close());

  const go = async (what: string, next: DesiredInput): Promise<void> => {
    const from = performance.now();
    const desired = desiredKernel(next).state;
    const operations = diffKernel(desired, believed);
    const decided = performance.now() - from;
    const { ms, failed } = await machine.timed(operations);
    expect(failed).toEqual([]);
    believed = applyOperations(believed, operations);
    expect(await machine.difference(desired)).toEqual([]);
    console.log(`${what}: ${operations.length} operations, decided in ${decided.toFixed(1)} ms, applied in ${ms.toFixed(1)} ms`);
  };

  const overlay = (destinations: readonly string[], active: string): DesiredInput => ({
    ...base,
    plan: { ...base.plan, peers: PEERS, paths: new Map([[EGRESS, path(destinations, ["do1", "do2"])]]) },
    choices: new Map([[EGRESS, choice([active])]]),
  });

  it("programs, moves and changes overlay destinations", async () => {
    const first = overlay(MANY, "do1");
    await go("program 2,000 overlay destinations", first);
    await go("move them all", { ...first, choices: new Map([[EGRESS, choice(["do2"])]]) });
    await go("change one of them", overlay([...MANY.slice(1), "198.18.200.1/32"], "do2"));
    await go("remove them all", { ...base, plan: plan("dc1") });
  });

  it("moves and changes routes through LAN gateways", async () => {
    const routes = (destinations: readonly string[]): DesiredInput["plan"] => ({
      ...base.plan,
      lanRoutes: new Map([
        [
          "staticroute/many",
          {
            created: 1,
            gateways: [ip("192.168.88.5")],
            table: 254,
            strategy: "Failover",
            health: { type: "none", interval: "100ms", threshold: 3, holdDown: "5s" },
            destinations: destinations.map(cidr),
          },
        ],
      ]),
    });
    const all = routes(LAN);
    await go("program 2,000 LAN routes", { ...base, plan: all });
    await go("move them all", { ...base, plan: all, lanChoices: new Map([["staticroute/many", [ip("192.168.88.12")]]]) });
    await go("spread them over two", { ...base, plan: all, lanChoices: new Map([["staticroute/many", [ip("192.168.88.12"), ip("192.168.88.5")]]]) });
    await go("change one of them", {
      ...base,
      plan: routes([...LAN.slice(1), "198.19.200.1/32"]),
      lanChoices: new Map([["staticroute/many", [ip("192.168.88.12"), ip("192.168.88.5")]]]),
    });
    await go("remove them all", base);
  });
});
