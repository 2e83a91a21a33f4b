/** An agent that says too much: it is slowed down or cut off, people are told, and the others notice nothing. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { RunningController } from "../../../controller/main.ts";
import { BYTES, MESSAGES } from "../../../controller/stream/allowance.ts";
import { call, eventually, makeSite, makeToken, newNode, startController, temporaryFolder, type TestAgent } from "../harness.ts";

const folder = temporaryFolder();
let controller: RunningController;
let secret: string;
let agents: TestAgent[] = [];
/** Stands still unless a test moves it: on a busy machine an agent would have paid off what it said by the time it says more. */
let clock = 0;

beforeAll(async () => {
  controller = await startController(folder.path, { monotonic: () => clock });
  await makeSite(controller, "dc1");
  ({ secret } = await makeToken(controller, { site: "dc1" }));
});
afterEach(async () => {
  await Promise.all(agents.map((agent) => agent.disconnect()));
  agents = [];
});
afterAll(async () => {
  await controller.close();
  folder.remove();
});

const join = async (name: string): Promise<TestAgent> => {
  const agent = await newNode(controller, secret, name);
  agents.push(agent);
  return agent;
};
const reasons = async (node: string): Promise<string[]> => {
  const { items } = await call<{ items: { reason: string }[] }>(controller, "GET", `/v1/events?about=node/${node}`);
  return items.map(({ reason }) => reason);
};
const applied = async (node: string): Promise<unknown> => {
  const { status } = await call<{ status: { appliedRevision?: number } }>(controller, "GET", `/v1/resources/meshnodes/${node}`);
  return status.appliedRevision;
};
const report = (agent: TestAgent, revision: number): void => agent.report({ applied: { lineage: "l", epoch: 1, revision } });

describe("an agent that says too much", () => {
  test("is slowed down, told of, and heard all the same", async () => {
    const [noisy, calm] = [await join("noisy"), await join("calm")];
    const messages = MESSAGES.burst + 2 * MESSAGES.perSecond;
    for (let revision = 1; revision <= messages; revision++) report(noisy, revision);
    report(calm, 7);
    await eventually(async () => expect(await applied("calm")).toBe(7));
    await eventually(async () => expect(await reasons("noisy")).toContain("AgentSlowed"), 20_000);
    clock += 10_000;
    await eventually(async () => expect(await applied("noisy")).toBe(messages), 20_000);
    expect(await reasons("calm")).not.toContain("AgentSlowed");
    expect(noisy.connected).toBe(true);
  });

  test("by far is cut off, and may come back when it has been quiet for as long", async () => {
    const flooder = await join("flooder");
    const message = "x".repeat(BYTES.burst / 2);
    for (let i = 0; i < 3; i++) flooder.send({ t: "report", kernel: message });
    await eventually(() => expect(flooder.connected).toBe(false), 20_000);
    expect(flooder.messages.at(-1)).toMatchObject({ t: "refused", code: "TooManyMessages" });
    expect(await reasons("flooder")).toContain("AgentCutOff");
    expect(await call(controller, "GET", "/v1/resources/meshnodes/flooder")).toMatchObject({ status: { connected: false } });
    flooder.messages.length = 0;
    await flooder.connect(controller);
    expect(flooder.messages).toEqual([expect.objectContaining({ t: "refused", code: "TooManyMessages" })]);
    clock += ((3 * message.length - BYTES.burst) / BYTES.perSecond) * 1_000 + 1_000;
    await flooder.connect(controller);
    expect(flooder.messages.at(-1)).toMatchObject({ t: "hello" });
  });

  /** An agent that holds a view of 80 KB. */
  const wide = async (name: string): Promise<TestAgent> => {
    const agent = await join(name);
    const route = {
      apiVersion: "isthmus.dev/v1alpha1",
      kind: "MeshRoute",
      metadata: { name: "wide" },
      spec: {
        destinations: Array.from({ length: 4_000 }, (_, i) => `10.${50 + (i >> 8)}.${i & 255}.0/24`),
        gateways: [{ address: "192.0.2.1" }],
      },
    };
    await call(controller, "POST", "/v1/apply", { documents: [route] });
    await eventually(() => expect(agent.view("lanroute/wide")?.size).toBeGreaterThan(4_000), 20_000);
    return agent;
  };
  const askForAll = (agent: TestAgent): void => agent.send({ t: "buckets", v: "lanroute/wide", h: Array.from({ length: 256 }, () => "0") });

  test("by asking for its views again and again is slowed by what is sent to it", async () => {
    const asker = await wide("asker");
    // Nearly all that it may say, in few messages.
    for (let i = 0; i < 2; i++) asker.send({ t: "report", kernel: "x".repeat(BYTES.burst / 2 - 64 * 1024) });
    report(asker, 7);
    await eventually(async () => expect(await applied("asker")).toBe(7), 20_000);
    expect(await reasons("asker")).not.toContain("AgentSlowed");
    const before = asker.bytes;
    for (let i = 0; i < 10 && !(await reasons("asker")).includes("AgentSlowed"); i++) {
      const had = asker.bytes;
      askForAll(asker);
      await eventually(() => expect(asker.bytes).toBeGreaterThan(had), 20_000);
    }
    expect(await reasons("asker")).toContain("AgentSlowed");
    expect(asker.bytes).toBeGreaterThan(before);
    expect(asker.bytes - before).toBeLessThan(BYTES.burst / 8);
    expect(asker.connected).toBe(true);
  });

  test("by asking a great deal before it reads is no slow reader", async () => {
    const eager = await wide("eager");
    const before = eager.bytes;
    for (let i = 0; i < 300; i++) askForAll(eager);
    report(eager, 7);
    await eventually(async () => expect(await applied("eager")).toBe(7), 20_000);
    await eventually(() => expect(eager.bytes).toBeGreaterThan(before), 20_000);
    expect(eager.connected).toBe(true);
    expect(String(await call<Buffer>(controller, "GET", "/metrics"))).toMatch(/^isthmus_slow_readers_total 0$/m);
  });

  test("by events loses some of them", async () => {
    const teller = await join("teller");
    const at = Date.now();
    for (let i = 0; i < 10; i++) {
      const events = Array.from({ length: 100 }, (_, j) => ({ at, type: "Normal" as const, reason: "Moved", message: `${i} ${j}`, about: "node" }));
      teller.report({ events });
    }
    await eventually(async () => expect(await reasons("teller")).toContain("EventsDropped"));
    const { items } = await call<{ items: { node?: string }[] }>(controller, "GET", "/v1/events?about=node");
    expect(items.filter(({ node }) => node === "teller").length).toBeLessThan(700);
  });
});
