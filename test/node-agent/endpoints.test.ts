import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import { EMPTY_KERNEL } from "../../mesh/kernel/operations.ts";
import type { KernelState } from "../../mesh/kernel/types.ts";
import type { PeerPlan } from "../../mesh/model/plan.ts";
import type { Endpoint } from "../../mesh/model/scalars.ts";
import { TURN_MS } from "../../node-agent/dial.ts";
import { createDialer, type WgStatus } from "../../node-agent/endpoints.ts";
import { key, name, rawViews } from "./plans.ts";

const NOW = 1_800_000_000_500;
const PUBLIC = "203.0.113.3:51821" as Endpoint;
const PRIVATE = "10.116.0.3:51821" as Endpoint;

describe("what is dialed of a gateway that was dead", () => {
  const folder = mkdtempSync(join(tmpdir(), "isthmus-endpoints-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const families = new Set([4] as const);
  const raw = rawViews();
  raw.get("mesh")?.set("peer/g1", { i: 2, k: key(2), s: "one", e: ["203.0.113.3:51820", "10.116.0.3:51820"] });
  const plan = parsePlan(raw).plan;
  if (plan === undefined) throw new Error("no plan");
  const links = new Map([[name("g1"), 1]]);
  const seen = (endpoint: Endpoint, handshakeAt: number): WgStatus => {
    const peer = { publicKey: key(2), endpoint, latestHandshake: Math.floor(handshakeAt / 1_000), allowedIps: [], keepalive: 25 };
    return new Map([["ismg1", new Map([[key(2) as PeerPlan["k"], peer]])]]) as unknown as WgStatus;
  };
  const kernel = (status: WgStatus): KernelState => {
    const wireguard = new Map([...status].map(([ifname, peers]) => [ifname, { name: ifname, peers }]));
    return { ...EMPTY_KERNEL, wireguard: wireguard as unknown as KernelState["wireguard"] };
  };

  test("is not written over the endpoint from which it opened the session itself, before anybody has judged that", () => {
    const { round, dialFor } = createDialer(join(folder, "back"), () => {});
    round(plan, links, families, new Map(), NOW);
    const turn = NOW + TURN_MS;
    expect(round(plan, links, families, seen(PUBLIC, 0), turn).resets).toMatchObject([{ ifname: "ismg1", node: "g1" }]);
    expect(dialFor(kernel(seen(PUBLIC, 0))).get(name("g1"))).toMatchObject({ gateway: PRIVATE });
    expect(dialFor(kernel(seen(PUBLIC, turn + 300))).get(name("g1"))?.gateway).toBeUndefined();
  });

  test("is written where the session that stands there is older than this attempt", () => {
    const { round, dialFor } = createDialer(join(folder, "old"), () => {});
    round(plan, links, families, new Map(), NOW);
    round(plan, links, families, seen(PUBLIC, 0), NOW + TURN_MS);
    expect(dialFor(kernel(seen(PUBLIC, NOW + TURN_MS - 2_000))).get(name("g1"))).toMatchObject({ gateway: PRIVATE });
  });
});
