/** What nobody can use any more says so where people look: tokens of another time or of no site, and a node that is refused. */
import { join } from "node:path";
import { expect, test } from "vitest";
import type { RunningController } from "../../../controller/main.ts";
import type { Resource } from "../../../mesh/model/resources.ts";
import { call, makeSite, makeToken, newNode, saveBackup, startController, startRestored, startWithSite, temporaryFolder } from "../harness.ts";

const stateOf = async (controller: RunningController, name: string): Promise<string | undefined> =>
  (await call<Resource<"JoinToken">>(controller, "GET", `/v1/resources/jointokens/${name}`)).status?.state;

test("a token of a deleted site, and one from before a restore, are not called Active", async () => {
  const folder = temporaryFolder();
  const first = await startController(folder.path);
  for (const site of ["kept", "gone"]) await makeSite(first, site);
  await makeToken(first, { site: "kept" });
  await makeToken(first, { site: "gone" });
  await makeToken(first, { site: "gone" });
  await call(first, "POST", "/v1/tokens/gone-2/revoke");
  expect([await stateOf(first, "kept"), await stateOf(first, "gone"), await stateOf(first, "gone-2")]).toEqual(["Active", "Active", "Revoked"]);
  const warning = "1 active token is for it: gone. Nobody joins with it until the site is applied again";
  expect(await call(first, "DELETE", "/v1/resources/sites/gone?dryRun=1")).toMatchObject({ warnings: [warning] });
  expect(await call(first, "DELETE", "/v1/resources/sites/gone")).toMatchObject({ warnings: [warning] });
  expect([await stateOf(first, "kept"), await stateOf(first, "gone")]).toEqual(["Active", "SiteDeleted"]);
  await makeSite(first, "gone");
  expect(await stateOf(first, "gone")).toBe("Active");

  const backup = join(folder.path, "backup");
  await saveBackup(first, backup);
  await first.close();
  const second = await startRestored(folder.path, backup);
  await call(second, "POST", "/v1/recovery/confirm", {});
  expect([await stateOf(second, "kept"), await stateOf(second, "gone-2")]).toEqual(["Void", "Revoked"]);
  await makeToken(second, { site: "kept" });
  expect(await stateOf(second, "kept-2")).toBe("Active");
  expect(await call(second, "DELETE", "/v1/resources/sites/gone")).not.toHaveProperty("warnings");
  await second.close();
  folder.remove();
});

test.each([
  ["VirtualIP", "virtualips", { address: "192.168.88.200", scope: "Lan", candidates: [{ nodeSelector: { role: "edge" } }] }],
  ["MeshCluster", "meshclusters", { kubeconfig: { path: "/etc/kubeconfig" } }],
])("a %s is taken with a warning, and with a condition, that nothing acts on it", async (kind, plural, spec) => {
  const folder = temporaryFolder();
  const controller = await startController(folder.path);
  const message = `this version checks and stores a ${kind}, and nothing acts on it yet`;
  const documents = [{ apiVersion: "isthmus.dev/v1alpha1", kind, metadata: { name: "one" }, spec }];
  expect(await call(controller, "POST", "/v1/apply", { documents })).toMatchObject({ results: [{ action: "created", warnings: [message] }] });
  expect(await call(controller, "GET", `/v1/resources/${plural}/one`)).toMatchObject({
    status: { conditions: [{ type: "Ready", status: "False", reason: "NotSupported", message }] },
  });
  await controller.close();
  folder.remove();
});

test("a revoked node says that it is, and not that nobody hears it", async () => {
  const folder = temporaryFolder();
  const { controller, secret } = await startWithSite(folder.path);
  await newNode(controller, secret, "one");
  const ready = expect.objectContaining({ type: "Ready", status: "False", reason: "CertificateRevoked" }) as unknown;
  expect(await call(controller, "POST", "/v1/nodes/one/revoke")).toMatchObject({
    status: { conditions: expect.arrayContaining([ready]) as unknown },
  });
  expect(await call(controller, "GET", "/v1/resources/sites/dc1")).toMatchObject({ status: { nodes: { total: 1, ready: 0 } } });
  await controller.close();
  folder.remove();
});
