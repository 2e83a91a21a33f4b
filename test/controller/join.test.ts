import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RunningController } from "../../controller/main.ts";
import { call, eventually, joinMachine, makeMachine, makeSite, makeToken, newNode, startController, temporaryFolder } from "./harness.ts";

describe("joining", () => {
  const folder = temporaryFolder();
  let controller: RunningController;
  beforeAll(async () => {
    controller = await startController(folder.path);
    await makeSite(controller, "dc1");
  });
  afterAll(async () => {
    await controller.close();
    folder.remove();
  });

  test("a node gets a certificate, an address and its first plan, and its peers hear of it", async () => {
    const { secret } = await makeToken(controller, { site: "dc1" });
    const one = await newNode(controller, secret, "one", { endpoints: ["203.0.113.1:51820"] });
    const two = await newNode(controller, secret, "two", { endpoints: ["203.0.113.2:51820"] });
    await eventually(() => expect(one.view("mesh")?.get("peer/two")).toMatchObject({ i: 2, k: two.machine.publicKey, s: "dc1" }));
    expect([...(two.view("mesh")?.keys() ?? [])]).toEqual(expect.arrayContaining(["network", "peer/one", "peer/two", "site/dc1"]));
    expect(two.view("node/two")?.get("self")).toMatchObject({ name: "two", index: 2 });
    await one.disconnect();
    await two.disconnect();
  });

  test("of 500 joins at once on 100 uses exactly 100 succeed, each with an address of its own", { timeout: 60_000 }, async () => {
    const { secret, name } = await makeToken(controller, { site: "dc1", uses: 100 });
    const machines = await Promise.all(Array.from({ length: 500 }, (_, i) => makeMachine(`many-${i}`)));
    const outcomes = await Promise.allSettled(machines.map((machine) => joinMachine(controller, machine, secret)));
    const joined = outcomes.filter((one) => one.status === "fulfilled");
    expect(joined).toHaveLength(100);
    const refused = outcomes.flatMap((one) => (one.status === "rejected" ? [(one.reason as { code: string }).code] : []));
    expect(new Set(refused)).toEqual(new Set(["TokenSpent"]));
    const { items } = await call<{ items: { spec: { index: number } }[] }>(controller, "GET", "/v1/resources/meshnodes");
    expect(new Set(items.map((node) => node.spec.index)).size).toBe(items.length);
    expect(await call(controller, "GET", `/v1/resources/jointokens/${name}`)).toMatchObject({ status: { used: 100 } });
  });
});
