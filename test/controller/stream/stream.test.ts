import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RunningController } from "../../../controller/main.ts";
import {
  call,
  eventually,
  hashesOf,
  https,
  joinMachine,
  makeAgent,
  makeMachine,
  makeSite,
  makeToken,
  newNode,
  startController,
  temporaryFolder,
  type TestAgent,
} from "../harness.ts";
import { receive, type Holdings } from "../../../node-agent/holdings.ts";

const egress = (destinations: string[]): unknown => ({
  apiVersion: "isthmus.dev/v1alpha1",
  kind: "EgressGateway",
  metadata: { name: "web" },
  spec: { destinations, gateways: [{ nodeSelector: { role: "gw" } }], sources: { nodeSelector: { role: "client" } } },
});

describe("the stream", () => {
  const folder = temporaryFolder();
  let controller: RunningController;
  let secret: string;
  beforeAll(async () => {
    controller = await startController(folder.path);
    await makeSite(controller, "dc1");
    ({ secret } = await makeToken(controller, { site: "dc1" }));
  });
  afterAll(async () => {
    await controller.close();
    folder.remove();
  });

  test("an agent that comes back gets only what changed, and nothing when nothing did", async () => {
    const agent = await newNode(controller, secret, "resume");
    await agent.disconnect();
    const before = agent.bytes;
    await agent.connect(controller);
    agent.beat();
    expect(agent.messages.filter((message) => message.t !== "hello")).toEqual([]);
    expect(agent.bytes - before).toBeLessThan(300);
    await agent.disconnect();
    agent.messages.length = 0;
    const other = await newNode(controller, secret, "resume-other");
    await agent.connect(controller);
    await eventually(() => expect(agent.view("mesh")?.has("peer/resume-other")).toBe(true));
    expect(agent.messages.map((message) => message.t)).toEqual(["hello", "delta"]);
    await Promise.all([agent.disconnect(), other.disconnect()]);
  });

  test("what moves from one view to another is never in neither, on a connection and after one that was lost", async () => {
    const MOVING = "34.160.111.145/32";
    for (const site of ["east", "west", "edge"]) await makeSite(controller, site);
    const join = async (site: string, name: string): Promise<TestAgent> => newNode(controller, (await makeToken(controller, { site })).secret, name);
    const all = [await join("east", "gw-east"), await join("west", "gw-west"), await join("edge", "edge-a")];
    const client = all[2]!;
    const intent = (name: string, site: string, destinations: string[]): unknown => ({
      apiVersion: "isthmus.dev/v1alpha1",
      kind: "EgressGateway",
      metadata: { name },
      spec: { destinations, gateways: [{ site }], sources: { nodeSelector: { "isthmus.dev/site": "edge" } } },
    });
    const apply = async (...documents: unknown[]): Promise<unknown> => call(controller, "POST", "/v1/apply", { documents });
    const owners = ({ views }: Holdings): string[] => [...views].flatMap(([id, { view }]) => (view.data.has(`d/${MOVING}`) ? [id] : []));
    const ownedBy = async (id: string): Promise<void> => eventually(() => expect(owners(client.holdings)).toEqual([id]));
    /** Who owned it in every plan that the agent would have taken. */
    const story = (from: Holdings): string[][] => {
      let held = from;
      const seen: string[][] = [];
      for (const message of client.messages.splice(0)) {
        held = receive(held, message).holdings;
        if (held.awaiting.size === 0) seen.push(owners(held));
      }
      return seen;
    };
    await apply(intent("one", "east", [MOVING, "34.160.112.0/24"]));
    await ownedBy("egress/one");
    client.messages.length = 0;

    // Into a view that is new, back again, and into one that is there already.
    const steps: readonly (readonly [string[], string[]])[] = [
      [["34.160.112.0/24"], [MOVING]],
      [[MOVING], ["34.160.113.0/24"]],
      [["34.160.112.0/24"], [MOVING, "34.160.113.0/24"]],
    ];
    for (const [one, two] of steps) {
      const before = client.holdings;
      await apply(intent("one", "east", one), intent("two", "west", two));
      await ownedBy(two.includes(MOVING) ? "egress/two" : "egress/one");
      expect(story(before).filter((ids) => ids.length !== 1)).toEqual([]);
    }
    await client.disconnect();
    const before = client.holdings;
    await apply(intent("one", "east", [MOVING]), intent("two", "west", ["34.160.113.0/24"]));
    await client.connect(controller);
    await ownedBy("egress/one");
    expect(story(before).filter((ids) => ids.length !== 1)).toEqual([]);
    for (const name of ["one", "two"]) await call(controller, "DELETE", `/v1/resources/egressgateways/${name}`);
    await Promise.all(all.map((agent) => agent.disconnect()));
  });

  test("an agent that connects long after its join gets one delta, whatever else was written meanwhile", async () => {
    const machine = await makeMachine("patient");
    const [joined] = await Promise.all([
      joinMachine(controller, machine, secret),
      call(controller, "PATCH", "/v1/resources/sites/dc1/labels", { set: { seen: "yes" } }),
    ]);
    const others = [await newNode(controller, secret, "patient-a"), await newNode(controller, secret, "patient-b")];
    const agent = makeAgent(machine, joined);
    await agent.connect(controller);
    await eventually(() => expect(agent.view("mesh")?.has("peer/patient-b")).toBe(true));
    expect(agent.messages.map((message) => message.t)).toEqual(["hello", "delta"]);
    await Promise.all([agent, ...others].map((one) => one.disconnect()));
  });

  test("an agent whose view was damaged gets the buckets that differ and the fault is counted", async () => {
    const agent = await newNode(controller, secret, "damaged");
    const mesh = agent.holdings.views.get("mesh");
    if (mesh === undefined) throw new Error("no mesh view");
    const data = new Map(mesh.view.data);
    data.delete("peer/damaged");
    agent.holdings = {
      ...agent.holdings,
      views: new Map(agent.holdings.views).set("mesh", { ...mesh, view: { ...mesh.view, data, sums: new Uint32Array(512) } }),
    };
    agent.beat();
    await eventually(() => expect(agent.view("mesh")?.has("peer/damaged")).toBe(true));
    const fill = agent.messages.find((message) => message.t === "fill");
    expect(fill).toMatchObject({ v: "mesh", b: expect.any(Array) });
    await eventually(async () => expect(await call(controller, "GET", "/v1/status")).toMatchObject({ faults: { hashFaults: 1 } }));
    await agent.disconnect();
  });

  test("a gateway that others left as dead, and that says nothing, is soon shown as not connected; one that answers stays", async () => {
    const dead = await newNode(controller, secret, "left-dead");
    await dead.disconnect();
    dead.deaf = true;
    await dead.connect(controller);
    const alive = await newNode(controller, secret, "left-alive");
    const client = await newNode(controller, secret, "leaves");
    const results = (reason: string, ...hops: string[]): Parameters<typeof client.report>[0] => ({
      results: Object.fromEntries(hops.map((nextHop, i) => [`egress/doubt-${i}`, { ok: true, reason, nextHop, since: 1 }])),
    });
    client.report(results("Preferred", "left-dead", "left-alive"));
    client.report(results("GatewayDown", "another", "another"));
    const connected = async (name: string): Promise<unknown> =>
      (await call<{ status: { connected: boolean } }>(controller, "GET", `/v1/resources/meshnodes/${name}`)).status.connected;
    await eventually(async () => expect(await connected("left-dead")).toBe(false), 20_000);
    expect(await connected("left-alive")).toBe(true);
    await Promise.all([alive, client].map((one) => one.disconnect()));
  });

  test("views come and go with the audience, and only the key that changed crosses the wire", async () => {
    const gateway = await newNode(controller, secret, "gw", { endpoints: ["203.0.113.9:51820"] });
    const client = await newNode(controller, secret, "client");
    const bystander = await newNode(controller, secret, "bystander");
    for (const [name, role] of [
      ["gw", "gw"],
      ["client", "client"],
    ] as const)
      await call(controller, "PATCH", `/v1/resources/meshnodes/${name}/labels`, { set: { role } });
    await call(controller, "POST", "/v1/apply", { documents: [egress(["198.51.100.0/24"])] });
    await eventually(() => {
      expect(client.view("egress/web")?.get("d/198.51.100.0/24")).toBe(1);
      expect(gateway.view("egress/web")?.has("path")).toBe(true);
      expect(gateway.view("node/gw")?.has("serve/egress/web")).toBe(true);
    });
    expect(bystander.view("egress/web")).toBeUndefined();
    client.messages.length = 0;
    await call(controller, "POST", "/v1/apply", { documents: [egress(["198.51.100.0/24", "192.0.2.7/32"])] });
    await eventually(() => expect(client.view("egress/web")?.has("d/192.0.2.7/32")).toBe(true));
    expect(client.messages.filter((message) => message.t === "delta")).toEqual([
      expect.objectContaining({ v: "egress/web", p: { "d/192.0.2.7/32": 1 } }),
    ]);
    await call(controller, "DELETE", "/v1/resources/egressgateways/web");
    await eventually(() => expect(client.view("egress/web")).toBeUndefined());
    await eventually(() => expect(hashesOf(client.holdings)["mesh"]).toBe(hashesOf(gateway.holdings)["mesh"]));
    await Promise.all([gateway, client, bystander].map((agent) => agent.disconnect()));
  });

  test("a node that moved to another address is followed, and the same report twice changes nothing", async () => {
    const mover = await newNode(controller, secret, "mover", { endpoints: ["203.0.113.20:51820"] });
    const peer = await newNode(controller, secret, "mover-peer");
    mover.report({ endpoints: ["203.0.113.21:51820"] as never });
    await eventually(() => expect(peer.view("mesh")?.get("peer/mover")).toMatchObject({ e: ["203.0.113.21:51820"] }));
    const { revision } = await call<{ revision: number }>(controller, "GET", "/v1/resources/sites");
    mover.report({ endpoints: ["203.0.113.21:51820"] as never, handshakes: { peers: 3, fresh: 2 } });
    await eventually(async () =>
      expect(await call(controller, "GET", "/v1/resources/meshnodes/mover")).toMatchObject({
        status: { handshakes: { peers: 3, fresh: 2 }, connected: true },
      }),
    );
    expect(await call(controller, "GET", "/v1/resources/sites")).toMatchObject({ revision });
    await Promise.all([mover.disconnect(), peer.disconnect()]);
  });

  test("what an agent no longer says after it came back is forgotten, and what it does not mention by then stays until it speaks", async () => {
    const agent = await newNode(controller, secret, "forgetful");
    const shown = async (): Promise<string[]> =>
      (await call<{ status: { conditions: { type: string }[] } }>(controller, "GET", "/v1/resources/meshnodes/forgetful")).status.conditions.map(
        ({ type }) => type,
      );
    agent.report({ conditions: [{ type: "Mended", status: "False", reason: "Odd" }], handshakes: { peers: 1, fresh: 1 } });
    await eventually(async () => expect(await shown()).toContain("Mended"));
    await agent.disconnect();
    await agent.connect(controller);
    expect(await shown()).toContain("Mended");
    agent.report({ kernel: "6.12.0" });
    await eventually(async () => expect(await shown()).not.toContain("Mended"));
    agent.report({ handshakes: { peers: 2, fresh: 2 } });
    await eventually(async () =>
      expect(await call(controller, "GET", "/v1/resources/meshnodes/forgetful")).toMatchObject({
        status: { kernel: "6.12.0", handshakes: { peers: 2 } },
      }),
    );
    await agent.disconnect();
  });

  test("what an agent claims without a grant stays pending and reaches nobody (I11)", async () => {
    const liar = await newNode(controller, secret, "liar");
    const peer = await newNode(controller, secret, "liar-peer");
    liar.report({ advertise: ["0.0.0.0/0", "10.9.0.0/16"] as never });
    await eventually(async () => {
      const node = await call<{ status: { pendingCidrs?: string[] } }>(controller, "GET", "/v1/resources/meshnodes/liar");
      expect(node.status.pendingCidrs).toEqual(expect.arrayContaining(["0.0.0.0/0", "10.9.0.0/16"]));
    });
    expect(peer.view("mesh")?.get("peer/liar")).not.toHaveProperty("a");
    await Promise.all([liar.disconnect(), peer.disconnect()]);
  });

  test("an agent speaks only for itself: a hello with another's name is refused (I11)", async () => {
    const machine = await makeMachine("honest");
    const joined = await joinMachine(controller, machine, secret);
    const agent = makeAgent({ ...machine, name: "resume" }, joined);
    await agent.connect(controller);
    expect(agent.messages).toEqual([expect.objectContaining({ t: "refused", code: "Forbidden" })]);
    await eventually(() => expect(agent.connected).toBe(false));
  });

  test("a deleted node is told at once, and again whenever it calls, and may join anew", async () => {
    const agent = await newNode(controller, secret, "gone");
    const away = await newNode(controller, secret, "gone-away");
    await away.disconnect();
    for (const name of ["gone", "gone-away"]) await call(controller, "DELETE", `/v1/resources/meshnodes/${name}`);
    await eventually(() => expect(agent.messages.at(-1)).toEqual({ t: "removed", node: "gone" }));
    await away.connect(controller);
    expect(away.messages.at(-1)).toEqual({ t: "removed", node: "gone-away" });
    await expect(joinMachine(controller, away.machine, undefined)).rejects.toMatchObject({ code: "NodeRemoved" });
    const again = makeAgent(away.machine, await joinMachine(controller, away.machine, secret));
    await again.connect(controller);
    expect(again.messages.at(-1)).toMatchObject({ t: "hello" });
    await again.disconnect();
  });

  test("`leave` takes the node out", async () => {
    const agent = await newNode(controller, secret, "leaver");
    agent.send({ t: "leave" });
    await eventually(() => expect(agent.messages.at(-1)).toEqual({ t: "removed", node: "leaver" }));
    await expect(call(controller, "GET", "/v1/resources/meshnodes/leaver")).rejects.toMatchObject({ code: "NotFound" });
  });

  test("a cloned disk is refused by its machine id; a clone of the whole machine by its boot id; the real one stays", async () => {
    const real = await newNode(controller, secret, "cloned");
    const joined = await joinMachine(controller, real.machine, undefined);
    const otherMachine = makeAgent({ ...real.machine, machineId: "f".repeat(64) }, joined);
    await otherMachine.connect(controller);
    expect(otherMachine.messages.at(-1)).toMatchObject({ t: "refused", code: "CloneDetected" });
    expect(real.connected).toBe(true);
    const clone = makeAgent({ ...real.machine, bootId: randomUUID() }, joined);
    await clone.connect(controller);
    await eventually(() => expect(real.connected).toBe(false));
    await real.connect(controller);
    await eventually(() => expect(clone.messages.at(-1)).toMatchObject({ t: "refused", code: "CloneDetected" }));
    await clone.connect(controller);
    expect(clone.messages.at(-1)).toMatchObject({ t: "refused", code: "CloneDetected" });
    expect(real.connected).toBe(true);
    const { items } = await call<{ items: { reason: string }[] }>(controller, "GET", "/v1/events?about=node%2Fcloned");
    expect(items.map((event) => event.reason)).toContain("CloneDetected");
    await real.disconnect();
  });

  test("a revoked node is cut off and may not come back, also not by renewing", async () => {
    const agent = await newNode(controller, secret, "revoked");
    await call(controller, "POST", "/v1/nodes/revoked/revoke");
    await eventually(() => expect(agent.messages.at(-1)).toMatchObject({ t: "refused", code: "CertificateRevoked" }));
    await agent.connect(controller);
    expect(agent.messages.at(-1)).toMatchObject({ t: "refused", code: "CertificateRevoked" });
    await expect(joinMachine(controller, agent.machine, undefined)).rejects.toMatchObject({ code: "CertificateRevoked" });
  });

  test("a revoked node that is deleted is told that it was removed", async () => {
    const agent = await newNode(controller, secret, "revoked-and-deleted");
    await call(controller, "POST", "/v1/nodes/revoked-and-deleted/revoke");
    await eventually(() => expect(agent.connected).toBe(false));
    await call(controller, "DELETE", "/v1/resources/meshnodes/revoked-and-deleted");
    await agent.connect(controller);
    expect(agent.messages.at(-1)).toEqual({ t: "removed", node: "revoked-and-deleted" });
    // It would be refused as soon as it had joined.
    await expect(joinMachine(controller, agent.machine, secret)).rejects.toMatchObject({
      code: "CertificateRevoked",
      remedy: expect.stringContaining("isthmus cleanup") as string,
    });
  });

  test("explain is asked from the node, also when its answer is long, and a node that is away is named", async () => {
    const agent = await newNode(controller, secret, "asked");
    agent.onAsk = (what, body) => ({ what, ...(body as object) });
    expect(await call(controller, "GET", "/v1/nodes/asked/explain?destination=192.0.2.1")).toEqual({ what: "explain", destination: "192.0.2.1" });
    // A change of thousands of destinations is answered with as many rows.
    agent.onAsk = () => ({
      rows: Array.from({ length: 20_000 }, (_, i) => ({ area: "route", action: "add", what: `198.51.${i}.0/24`, to: "ism0".repeat(20) })),
    });
    expect(await call<{ rows: unknown[] }>(controller, "GET", "/v1/nodes/asked/explain?destination=192.0.2.1")).toMatchObject({
      rows: { length: 20_000 },
    });
    expect(agent.connected).toBe(true);
    await agent.disconnect();
    await eventually(() =>
      expect(call(controller, "GET", "/v1/nodes/asked/explain?destination=192.0.2.1")).rejects.toMatchObject({ code: "Unreachable" }),
    );
    await expect(call(controller, "GET", "/v1/nodes/nobody/explain?destination=192.0.2.1")).rejects.toMatchObject({ code: "NotFound" });
  });

  test("wireguard-go is started anew by the node itself, and only where others' traffic has left it", async () => {
    const agent = await newNode(controller, secret, "upgraded");
    const asked: string[] = [];
    agent.onAsk = (what) => {
      asked.push(what);
      return { wireguard: "userspace", interfaces: ["ism0"] };
    };
    const restart = (): Promise<unknown> => call(controller, "POST", "/v1/nodes/upgraded/restart-wireguard", {});
    await expect(restart()).rejects.toMatchObject({ code: "Conflict", remedy: expect.stringContaining("drain") as string });
    const route = { destinations: ["10.77.0.0/24"], gateways: [{ node: "upgraded" }], nodeSelector: { role: "client" } };
    const metadata = { name: "by-upgraded" };
    await call(controller, "POST", "/v1/apply", {
      documents: [{ apiVersion: "isthmus.dev/v1alpha1", kind: "MeshRoute", metadata, spec: route }],
    });
    await newNode(controller, secret, "upgraded-client");
    await call(controller, "PATCH", "/v1/resources/meshnodes/upgraded-client/labels", { set: { role: "client" } });
    await call(controller, "POST", "/v1/nodes/upgraded/drain", {});
    await expect(restart()).rejects.toMatchObject({ code: "Conflict", message: expect.stringContaining("upgraded-client") as string });
    await call(controller, "DELETE", "/v1/resources/meshroutes/by-upgraded");
    expect(await restart()).toEqual({ wireguard: "userspace", interfaces: ["ism0"] });
    expect(asked).toEqual(["restart-wireguard"]);
    await agent.disconnect();
    await eventually(() => expect(restart()).rejects.toMatchObject({ code: "Unreachable" }));
  });

  test("without a certificate, or with a node's, the API stays shut", async () => {
    expect(await https(controller, "GET", "/v1/resources/meshnodes")).toMatchObject({ status: 401, body: { code: "Unauthenticated" } });
    const machine = await makeMachine("curious");
    const joined = await joinMachine(controller, machine, secret);
    const credentials = { key: machine.key, cert: joined.certificate };
    expect(await https(controller, "GET", "/v1/resources/meshnodes", undefined, credentials)).toMatchObject({ status: 403 });
    expect(await https(controller, "GET", "/healthz")).toMatchObject({ status: 200 });
    expect(await https(controller, "GET", "/v1/openapi.json")).toMatchObject({ status: 200 });
    // Refused before the body is read: what stands in it does not matter.
    expect(await https(controller, "POST", "/v1/apply", "{")).toMatchObject({ status: 401 });
    expect(await https(controller, "POST", "/v1/apply", "{", credentials)).toMatchObject({ status: 403 });
    expect(await https(controller, "POST", "/v1/nothing", "{")).toMatchObject({ status: 401 });
    for (const path of ["/v1/join", "/v1/renew"]) {
      const answer = await https(controller, "POST", path, { name: "x".repeat(100_000) });
      expect(answer).toMatchObject({ status: 400, body: { code: "BadRequest", message: expect.stringContaining("too large") } });
    }
  });
});
