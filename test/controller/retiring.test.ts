import { afterEach, beforeEach, expect, test } from "vitest";
import type { RunningController } from "../../controller/main.ts";
import { RETIRE_GRACE_MS } from "../../mesh/compile/retiring.ts";
import type { EventRecord } from "../../mesh/model/answers.ts";
import type { PathPlan } from "../../mesh/model/plan.ts";
import type { Condition } from "../../mesh/model/meta.ts";
import { call, eventually, makeSite, makeToken, newNode, startController, temporaryFolder, type TestAgent } from "./harness.ts";

const START = Date.now();
const UNTIL = START + 30_000 + RETIRE_GRACE_MS;
let stack: AsyncDisposableStack;
beforeEach(() => {
  stack = new AsyncDisposableStack();
});
afterEach(() => stack.disposeAsync());

const egress = (...sites: string[]): object => ({
  apiVersion: "isthmus.dev/v1alpha1",
  kind: "EgressGateway",
  metadata: { name: "out" },
  spec: {
    destinations: ["34.160.111.145"],
    sources: { nodeSelector: { "isthmus.dev/site": "dc" } },
    gateways: sites.map((site) => ({ site })),
    drainTimeout: "30s",
  },
});
const apply = async (controller: RunningController, document: object): Promise<unknown> =>
  call(controller, "POST", "/v1/apply", { documents: [document] });
const retiring = (agent: TestAgent): string[] =>
  ((agent.view("egress/out")?.get("path") as PathPlan | undefined)?.gateways ?? []).filter((one) => one.retiring === true).map(({ node }) => node);
const conditions = async (controller: RunningController): Promise<readonly Condition[]> =>
  (await call<{ status: { conditions: Condition[] } }>(controller, "GET", "/v1/resources/egressgateways/out")).status.conditions;

test("a gateway that an intent lets go serves on until its drain timeout, also over a restart of the controller, and then no more", async () => {
  const folder = temporaryFolder();
  stack.defer(folder.remove);
  let now = START;
  const start = async (): Promise<RunningController> => startController(folder.path, { clock: () => now });
  let controller = await start();
  stack.defer(async () => controller.close());
  for (const site of ["dc", "east", "west"]) await makeSite(controller, site);
  const agents: Record<string, TestAgent> = {};
  for (const [name, site] of Object.entries({ client: "dc", gw1: "east", gw2: "west" })) {
    agents[name] = await newNode(controller, (await makeToken(controller, { site })).secret, name);
  }
  const { client, gw1 } = agents as { client: TestAgent; gw1: TestAgent };
  await apply(controller, egress("east", "west"));
  await eventually(() => expect(gw1.view("node/gw1")?.has("serve/egress/out")).toBe(true));

  await apply(controller, egress("west"));
  await eventually(() => expect(retiring(client)).toEqual(["gw1"]));
  expect(gw1.view("node/gw1")?.has("serve/egress/out")).toBe(true);
  expect(gw1.view("node/gw1")?.has("client/client")).toBe(true);
  await eventually(async () =>
    expect((await conditions(controller)).find(({ type }) => type === "Retiring")?.message).toBe(
      `gateway gw1 serves established flows until ${new Date(UNTIL).toISOString()}`,
    ),
  );
  const { items } = await call<{ items: EventRecord[] }>(controller, "GET", "/v1/events?about=egress/out");
  expect(items.map(({ reason }) => reason)).toContain("Retiring");

  await controller.close();
  now = UNTIL - 1_000;
  controller = await start();
  await Promise.all(Object.values(agents).map((agent) => agent.connect(controller)));
  await apply(controller, { ...egress("west"), metadata: { name: "out", labels: { seen: "true" } } });
  expect(retiring(client)).toEqual(["gw1"]);

  await controller.close();
  now = UNTIL;
  controller = await start();
  await Promise.all(Object.values(agents).map((agent) => agent.connect(controller)));
  await eventually(() => expect(retiring(client)).toEqual([]));
  await eventually(() => expect(gw1.view("node/gw1")?.has("serve/egress/out")).toBe(false));
  expect((await conditions(controller)).some(({ type }) => type === "Retiring")).toBe(false);
});

test("an intent that is deleted goes at once, and leaves no fact behind", async () => {
  const folder = temporaryFolder();
  stack.defer(folder.remove);
  const controller = await startController(folder.path);
  stack.defer(async () => controller.close());
  for (const site of ["dc", "east"]) await makeSite(controller, site);
  const gw1 = await newNode(controller, (await makeToken(controller, { site: "east" })).secret, "gw1");
  await apply(controller, egress("east"));
  await eventually(() => expect(gw1.view("node/gw1")?.has("serve/egress/out")).toBe(true));
  await call(controller, "DELETE", "/v1/resources/egressgateways/out");
  await eventually(() => expect(gw1.view("node/gw1")?.has("serve/egress/out")).toBe(false));
  // Made again with another gateway, it owes nothing to the one before.
  await apply(controller, egress("dc"));
  const { status } = await call<{ status: { conditions: Condition[] } }>(controller, "GET", "/v1/resources/egressgateways/out");
  expect(status.conditions.some(({ type }) => type === "Retiring")).toBe(false);
});

test("a clock that is set back prolongs nothing beyond a drain timeout from then", async () => {
  const folder = temporaryFolder();
  stack.defer(folder.remove);
  let now = START;
  const controller = await startController(folder.path, { clock: () => now });
  stack.defer(async () => controller.close());
  for (const site of ["dc", "east", "west"]) await makeSite(controller, site);
  for (const [name, site] of Object.entries({ gw1: "east", gw2: "west" }))
    await newNode(controller, (await makeToken(controller, { site })).secret, name);
  const until = async (): Promise<string | undefined> =>
    (await conditions(controller)).find(({ type }) => type === "Retiring")?.message?.replace(/.* until /, "");
  await apply(controller, egress("east", "west"));
  await apply(controller, egress("west"));
  await eventually(async () => expect(await until()).toBe(new Date(UNTIL).toISOString()));
  now = START - 3_600_000;
  // A plan of which the path is no part.
  await newNode(controller, (await makeToken(controller, { site: "dc" })).secret, "other");
  await eventually(async () => expect(await until()).toBe(new Date(UNTIL - 3_600_000).toISOString()));
});
