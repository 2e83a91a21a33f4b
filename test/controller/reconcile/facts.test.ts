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
