import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { RunningController } from "../../../controller/main.ts";
import { call, eventually, joinMachine, makeMachine, makeSite, makeToken, newNode, startController, temporaryFolder } from "../harness.ts";

const document = (kind: string, name: string, spec: object): object => ({ apiVersion: "isthmus.dev/v1alpha1", kind, metadata: { name }, spec });
const network = (topology: string): object => document("MeshNetwork", "isthmus", { topology });
const site = (name: string, spec: object = {}): object => document("Site", name, { kind: "cloud", ...spec });
const selected = { gateways: { role: "gateway" } };

describe("topology SiteGateways", () => {
  const folder = temporaryFolder();
  let controller: RunningController;
  const apply = (...documents: object[]): Promise<unknown> => call(controller, "POST", "/v1/apply", { documents });
  const label = (node: string, patch: object): Promise<unknown> => call(controller, "PATCH", `/v1/resources/meshnodes/${node}/labels`, patch);
  const refused = (site: string): object => ({ code: "Invalid", message: expect.stringContaining(`site ${site} `) });

  beforeAll(async () => {
    controller = await startController(folder.path);
    await makeSite(controller, "dc");
    await makeSite(controller, "east", selected);
    for (const [name, at, labels] of [
      ["a1", "dc", {}],
      ["a2", "dc", {}],
      ["b1", "east", { role: "gateway" }],
    ] as const)
      await joinMachine(controller, await makeMachine(name), (await makeToken(controller, { site: at, labels })).secret);
  });
  beforeEach(async () => {
    await apply(network("FullMesh"), site("dc"), site("east", selected));
    await label("a1", { set: { role: "gateway" }, overwrite: true });
    await label("a2", { set: {}, remove: ["role"] });
  });
  afterAll(async () => {
    await controller.close();
    folder.remove();
  });

  test("is refused while a site does not say which of its nodes are gateways, and such a site is refused with it", async () => {
    const why = { ...refused("dc"), remedy: expect.stringMatching(/spec\.gateways/) };
    await expect(apply(network("SiteGateways"))).rejects.toMatchObject(why);
    await expect(call(controller, "POST", "/v1/apply", { documents: [network("SiteGateways")], dryRun: true })).rejects.toMatchObject(why);
    await expect(call(controller, "POST", "/v1/diff", { documents: [network("SiteGateways")], delete: [] })).rejects.toMatchObject(why);
    await apply(network("SiteGateways"), site("dc", selected));
    await expect(apply(site("dc"))).rejects.toMatchObject(refused("dc"));
    await expect(apply(site("dc", { gateways: {} }))).rejects.toMatchObject(refused("dc"));
    await expect(apply(site("new"))).rejects.toMatchObject(refused("new"));
    await apply(network("FullMesh"), site("dc"));
  });

  test("a site with nodes keeps a gateway, whoever takes the last one away", async () => {
    const why = { ...refused("dc"), remedy: expect.stringContaining("role=") };
    await expect(apply(network("SiteGateways"), site("dc", { gateways: { role: "typo" } }))).rejects.toMatchObject({
      ...why,
      message: expect.stringContaining("role=typo"),
    });
    await apply(network("SiteGateways"), site("dc", selected));
    await expect(apply(site("dc", { gateways: { role: "typo" } }))).rejects.toMatchObject(why);
    await expect(label("a1", { set: {}, remove: ["role"] })).rejects.toMatchObject(why);
    await expect(label("a1", { set: { role: "other" }, overwrite: true })).rejects.toMatchObject(why);
    await expect(call(controller, "DELETE", "/v1/resources/meshnodes/a1")).rejects.toMatchObject(why);
    await expect(call(controller, "DELETE", "/v1/resources/meshnodes/a1?dryRun=1")).rejects.toMatchObject(why);
    await expect(call(controller, "GET", "/v1/resources/meshnodes/a1")).resolves.toMatchObject({ spec: { labels: { role: "gateway" } } });
    // Another one first, and then it may go; a site that is empty needs none.
    await label("a2", { set: { role: "gateway" } });
    await label("a1", { set: {}, remove: ["role"] });
    await apply(site("void", { gateways: { role: "typo" } }));
  });

  test("of two changes at once that each rely on the other's gateway, one is refused", async () => {
    await label("a2", { set: { role: "gateway" } });
    await apply(network("SiteGateways"), site("dc", selected));
    const outcomes = await Promise.allSettled(["a1", "a2"].map((name) => label(name, { set: {}, remove: ["role"] })));
    expect(outcomes.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
  });

  test("what a site lacks already does not stand in the way of other changes, and its last node may go", async () => {
    await apply(network("SiteGateways"), site("dc", selected), site("late", selected));
    const { secret } = await makeToken(controller, { site: "late" });
    for (const name of ["c1", "c2"]) await joinMachine(controller, await makeMachine(name), secret);
    await label("c2", { set: { tier: "gold" } });
    await apply(site("late", { ...selected, priority: 7 }));
    await call(controller, "DELETE", "/v1/resources/meshnodes/c1");
    await label("c2", { set: { role: "gateway" } });
    await call(controller, "DELETE", "/v1/resources/meshnodes/c2");
  });

  test("a site's last gateway may leave by itself", async () => {
    await makeSite(controller, "short", selected);
    const { secret } = await makeToken(controller, { site: "short" });
    const leaver = await newNode(controller, (await makeToken(controller, { site: "short", labels: { role: "gateway" } })).secret, "d1");
    await joinMachine(controller, await makeMachine("d2"), secret);
    await apply(network("SiteGateways"), site("dc", selected));
    leaver.send({ t: "leave" });
    await eventually(() => expect(leaver.messages).toContainEqual({ t: "removed", node: "d1" }));
    await call(controller, "DELETE", "/v1/resources/meshnodes/d2");
    await leaver.disconnect();
  });
});
