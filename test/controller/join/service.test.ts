import { join } from "node:path";
import { expect, test } from "vitest";
import { ensureNetwork } from "../../../controller/first-start.ts";
import { secretHash } from "../../../controller/join/records.ts";
import { createJoinService } from "../../../controller/join/service.ts";
import type { Authority } from "../../../controller/pki/authority.ts";
import { commit } from "../../../controller/reconcile/draft.ts";
import { FOLDER, resourceKey } from "../../../controller/reconcile/keys.ts";
import { openMirror } from "../../../controller/reconcile/mirror.ts";
import { startPlanner } from "../../../controller/reconcile/planner.ts";
import { openSqliteStore } from "../../../controller/store/sqlite.ts";
import { JoinRequest } from "../../../mesh/model/wire.ts";
import { joinBody, makeMachine, temporaryFolder } from "../harness.ts";

const fail = (thrown: unknown): never => {
  throw thrown;
};

test("a newcomer is in everybody's plan before its certificate is made: 2 ms that nobody else waits for", async () => {
  const folder = temporaryFolder();
  const store = openSqliteStore(join(folder.path, "store.db"));
  const mirror = await openMirror(store, fail);
  const settings = { now: () => 0, newUid: () => "uid" };
  await ensureNetwork(store, mirror, { ...settings, randomBytes: (size) => new Uint8Array(size) }, {});
  const { epoch } = await store.state();
  const spec = { site: "cloud", uses: 1, expires: new Date(1_000).toISOString() };
  await commit(store, mirror, (draft) => {
    draft.write(resourceKey("Site", "cloud"), { kind: "Site", metadata: { name: "cloud" }, spec: { kind: "cloud", subnets: [], snat: "None" } });
    draft.write(resourceKey("JoinToken", "t"), { kind: "JoinToken", metadata: { name: "t" }, spec, status: { used: 0, epoch } });
    draft.write(FOLDER.secrets + secretHash("secret"), { token: "t" });
  });
  const order: string[] = [];
  const planner = startPlanner({
    mirror,
    // No time passes, so no round waits for the window of the one before.
    monotonic: () => 0,
    random: () => 0,
    publish: (output) => void (output.views.get("mesh")?.has("peer/a") === true && order.push("published")),
    onRound: () => {},
    onFailure: fail,
  });
  const authority = {
    issue: async () => {
      order.push("certificate");
      return "";
    },
  } as unknown as Authority;
  const joins = createJoinService({ store, mirror, authority, ...settings });
  const { action } = await joins.join(JoinRequest.parse(joinBody(await makeMachine("a"), "secret")), undefined);
  expect(action).toBe("joined");
  expect(order).toEqual(["published", "certificate"]);
  planner.close();
  await mirror.close();
  await store.close();
  folder.remove();
});
