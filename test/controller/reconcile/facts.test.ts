import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { keepFacts } from "../../../controller/reconcile/facts.ts";
import { FOLDER, resourceKey } from "../../../controller/reconcile/keys.ts";
import { openMirror } from "../../../controller/reconcile/mirror.ts";
import { openSqliteStore } from "../../../controller/store/sqlite.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";
import type { AgentReport, NodeFacts } from "../../../mesh/model/wire.ts";
import { eventually } from "../harness.ts";

const folder = mkdtempSync(join(tmpdir(), "ist-facts-"));
afterAll(() => rmSync(folder, { recursive: true }));
const unexpected = (error: unknown): never => {
  throw error;
};

test("the first links that a connection tells replace those of the one before; later ones are changes", async () => {
  const store = openSqliteStore(join(folder, "facts.db"));
  const mirror = await openMirror(store, unexpected);
  const node = "n" as NodeName;
  await store.txn({ put: [{ key: resourceKey("MeshNode", node), value: {} }] });
  const facts = keepFacts({ store, mirror, onFailure: unexpected });
  const links = (ports: Record<string, number | null>): AgentReport => ({ t: "report", links: ports });
  const kept = (): unknown => (mirror.get(FOLDER.facts + node)?.value as NodeFacts | undefined)?.links;
  facts.report(node, links({ a: 1001, b: 1002 }), { wholeLinks: true });
  await eventually(() => expect(kept()).toEqual({ a: 1001, b: 1002 }));
  facts.report(node, links({ c: 1003, a: null }), { wholeLinks: false });
  await eventually(() => expect(kept()).toEqual({ b: 1002, c: 1003 }));
  facts.report(node, links({ a: 2001 }), { wholeLinks: true });
  await eventually(() => expect(kept()).toEqual({ a: 2001 }));
  facts.report(node, { t: "report", advertise: [] }, { wholeLinks: true });
  await new Promise((resolve) => setImmediate(resolve));
  expect(kept()).toEqual({ a: 2001 });
  facts.close();
  await mirror.close();
  await store.close();
});

test("a node that changes its mind all the time makes few revisions, keeps nobody waiting, and its last word holds", async () => {
  const store = openSqliteStore(join(folder, "pace.db"));
  const mirror = await openMirror(store, unexpected);
  const [restless, calm] = ["restless", "calm"] as [NodeName, NodeName];
  for (const node of [restless, calm]) await store.txn({ put: [{ key: resourceKey("MeshNode", node), value: {} }] });
  const facts = keepFacts({ store, mirror, onFailure: unexpected });
  const say = (node: NodeName, port: number): void => facts.report(node, { t: "report", links: { a: port } }, { wholeLinks: true });
  const kept = (node: NodeName): unknown => (mirror.get(FOLDER.facts + node)?.value as NodeFacts | undefined)?.links["a"];
  const seen = new Set<unknown>();
  let last = 1_000;
  const speaking = setInterval(() => {
    say(restless, ++last);
    seen.add(kept(restless));
  }, 5);
  await eventually(() => expect(last).toBeGreaterThan(1_400), 20_000);
  expect(seen.size).toBeLessThan(40);
  seen.clear();
  for (let port = 1; port <= 12; port++) {
    say(calm, port);
    await eventually(() => expect(kept(calm)).toBe(port));
  }
  // Each of its changes waits for two seconds; the calm one's do not wait with them.
  expect(seen.size).toBeLessThan(5);
  clearInterval(speaking);
  await eventually(() => expect(kept(restless)).toBe(last), 10_000);
  facts.close();
  await mirror.close();
  await store.close();
});
