import { expect, test, vi } from "vitest";
import { call, makeSite, makeToken, newNode, startController, temporaryFolder } from "./harness.ts";

const DAY = 24 * 3_600_000;

test("setting the controller's clock, ahead or back, ends no agent's session", async () => {
  const folder = temporaryFolder();
  let now = Date.now();
  const timers = vi.spyOn(globalThis, "setInterval");
  const controller = await startController(folder.path, { clock: () => now });
  const sweeps = timers.mock.calls.flatMap(([work, ms]) => (ms === 2_000 ? [work] : []));
  timers.mockRestore();
  expect(sweeps.length).toBeGreaterThan(0);
  await makeSite(controller, "dc1");
  const agent = await newNode(controller, (await makeToken(controller, { site: "dc1" })).secret, "agent");
  for (const step of [DAY, -2 * DAY]) {
    now += step;
    for (const sweep of sweeps) sweep();
    expect(await call(controller, "GET", "/v1/resources/meshnodes/agent")).toMatchObject({ status: { connected: true } });
    expect(agent.connected).toBe(true);
  }
  await controller.close();
  folder.remove();
});
