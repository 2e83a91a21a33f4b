import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { RunningController } from "../../../controller/main.ts";
import { call, joinMachine, makeMachine, makeSite, makeToken, startController, temporaryFolder } from "../harness.ts";

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
});
