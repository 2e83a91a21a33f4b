import { describe, expect, test } from "vitest";
import { kindFolder } from "../../../controller/reconcile/keys.ts";
import type { Mirror } from "../../../controller/reconcile/mirror.ts";
import { createReports } from "../../../controller/reconcile/reports.ts";
import { keepStatus } from "../../../controller/reconcile/status.ts";
import type { Item } from "../../../controller/store/types.ts";
import type { Resource } from "../../../mesh/model/resources.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";

const NAME = "n" as NodeName;
const node = { kind: "MeshNode", metadata: { name: NAME, generation: 1 }, spec: { site: "dc1" } } as unknown as Resource<"MeshNode">;

function setUp() {
  const nodes = new Map<string, Item>([[NAME, { key: NAME, value: node, revision: 1 }]]);
  const state = { now: 1_000, revision: 1, folds: 0 };
  const mirror = {
    get revision() {
      return state.revision;
    },
    get: () => undefined,
    folder: (folder: string) => {
      if (folder === kindFolder("MeshNode")) state.folds++;
      return folder === kindFolder("MeshNode") ? nodes : new Map<string, Item>();
    },
  } as unknown as Mirror;
  const reports = createReports(new Map());
  const status = keepStatus({ mirror, reports, output: () => undefined, now: () => state.now, epoch: () => 1 });
  const since = (): number => {
    const ready = status.withStatus(node).status?.conditions?.find(({ type }) => type === "Ready");
    return Date.parse(ready?.lastTransitionTime ?? "");
  };
  return { nodes, state, reports, status, since };
}

describe("since when a condition holds", () => {
  test("is when it changed, not when somebody first looked", () => {
    const { state, reports, status, since } = setUp();
    reports.touch(NAME, { connected: true, lastSeen: state.now });
    status.fold();
    state.now = 60_000;
    reports.touch(NAME, { connected: true, lastSeen: state.now });
    status.fold();
    expect(since()).toBe(1_000);
    reports.touch(NAME, { connected: false, lastSeen: state.now });
    status.fold();
    state.now = 90_000;
    expect(since()).toBe(60_000);
  });

  test("is forgotten with the object, so that nothing piles up and a namesake starts anew", () => {
    const { nodes, state, reports, status, since } = setUp();
    reports.touch(NAME, { connected: true, lastSeen: state.now });
    status.fold();
    nodes.clear();
    state.revision++;
    status.fold();
    state.now = 60_000;
    expect(since()).toBe(60_000);
  });

  test("costs nothing while nothing changes", () => {
    const { state, reports, status } = setUp();
    reports.touch(NAME, { connected: true, lastSeen: 1 });
    status.fold();
    const { folds } = state;
    reports.touch(NAME, { connected: true, lastSeen: 2 });
    status.fold();
    expect(state.folds).toBe(folds);
    reports.merge(NAME, { t: "report", kernel: "6.12" }, true);
    status.fold();
    expect(state.folds).toBeGreaterThan(folds);
  });
});

describe("a site", () => {
  const dc1 = { kind: "Site", metadata: { name: "dc1" }, spec: { kind: "onprem" } } as unknown as Resource<"Site">;

  test("is ready when its nodes are, and names those that are not", () => {
    const { nodes, state, reports, status } = setUp();
    const said = (): unknown => {
      const { nodes: counts, conditions } = status.withStatus(dc1).status ?? {};
      return { counts, ready: conditions?.map(({ type, reason, message }) => `${type} ${reason}: ${message}`) };
    };
    expect(said()).toEqual({ counts: { total: 1, ready: 0 }, ready: ["Ready NoNodeReady: 1 of 1 node is not ready: n"] });
    reports.touch(NAME, { connected: true, lastSeen: state.now });
    reports.merge(NAME, { t: "report", conditions: [] }, true);
    expect(said()).toEqual({ counts: { total: 1, ready: 1 }, ready: ["Ready AllNodesReady: 1 node"] });
    nodes.clear();
    expect(said()).toMatchObject({ ready: ["Ready NoNodes: no node has joined this site"] });
  });
});
