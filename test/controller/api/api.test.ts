import { readFileSync, statSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RunningController } from "../../../controller/main.ts";
import { call, eventually, https, makeKeys, makeSite, makeToken, newNode, startController, temporaryFolder } from "../harness.ts";

const route = (name: string, destinations: string[], more: Record<string, unknown> = {}): Record<string, unknown> => ({
  apiVersion: "isthmus.dev/v1alpha1",
  kind: "MeshRoute",
  metadata: { name },
  spec: { destinations, gateways: [{ address: "10.116.0.5" }], ...more },
});

interface Applied {
  revision: number;
  results: { action: string; warnings?: string[]; object: { metadata: { resourceVersion: string; generation: number } } }[];
}

describe("the API", () => {
  const folder = temporaryFolder();
  let controller: RunningController;
  const apply = (...documents: unknown[]): Promise<Applied> => call<Applied>(controller, "POST", "/v1/apply", { documents });
  beforeAll(async () => {
    controller = await startController(folder.path, { advertise: ["198.51.100.99:8443"] });
    await makeSite(controller, "dc1");
  });
  afterAll(async () => {
    await controller.close();
    folder.remove();
  });

  test("ten documents of which one is bad change nothing, and the fault names path, value and document", async () => {
    const documents = Array.from({ length: 10 }, (_, i) => route(`many-${i}`, [i === 6 ? "10.0.0.1/8" : `192.0.2.${i}/32`]));
    await expect(apply(...documents)).rejects.toMatchObject({
      code: "Invalid",
      faults: [{ path: "spec.destinations[0]", value: "10.0.0.1/8", document: 6 }],
    });
    expect(await call(controller, "GET", "/v1/resources/meshroutes")).toMatchObject({ items: [] });
  });

  test("applying what is there writes nothing; a changed spec raises the generation; labels do not", async () => {
    const first = await apply(route("same", ["192.0.2.1/32"]));
    expect(first.results[0]).toMatchObject({ action: "created", object: { metadata: { generation: 1 } } });
    const second = await apply(route("same", ["192.0.2.1"]));
    expect(second).toMatchObject({ revision: first.revision, results: [{ action: "unchanged" }] });
    const third = await apply(route("same", ["192.0.2.2"]));
    expect(third.results[0]).toMatchObject({ action: "configured", object: { metadata: { generation: 2 } } });
    const labelled = await call(controller, "PATCH", "/v1/resources/meshroutes/same/labels", { set: { team: "net" } });
    expect(labelled).toMatchObject({ metadata: { labels: { team: "net" }, generation: 2 } });
    await expect(call(controller, "PATCH", "/v1/resources/meshroutes/same/labels", { set: { team: "other" } })).rejects.toMatchObject({
      code: "Conflict",
    });
    await call(controller, "DELETE", "/v1/resources/meshroutes/same");
  });

  test("a document that was read before somebody else's change conflicts", async () => {
    const { results } = await apply(route("versioned", ["192.0.2.1/32"]));
    const { resourceVersion } = results[0]?.object.metadata ?? { resourceVersion: "" };
    await apply(route("versioned", ["192.0.2.9/32"]));
    const stale = { ...route("versioned", ["192.0.2.3/32"]), metadata: { name: "versioned", resourceVersion } };
    await expect(apply(stale)).rejects.toMatchObject({ code: "Conflict" });
    expect(await call(controller, "GET", "/v1/resources/meshroutes/versioned")).toMatchObject({ spec: { destinations: ["192.0.2.9/32"] } });
    await call(controller, "DELETE", "/v1/resources/meshroutes/versioned");
  });

  test("a dry run answers as if and writes nothing", async () => {
    const before = await call<{ revision: number }>(controller, "GET", "/v1/resources/meshroutes");
    const answer = await call<Applied>(controller, "POST", "/v1/apply", { documents: [route("dry", ["192.0.2.1/32"])], dryRun: true });
    expect(answer.results[0]).toMatchObject({ action: "created" });
    await expect(call(controller, "DELETE", "/v1/resources/sites/dc1?dryRun=1")).resolves.toBeTruthy();
    expect(await call(controller, "GET", "/v1/resources/meshroutes")).toEqual(before);
    expect(await call(controller, "GET", "/v1/resources/sites/dc1")).toBeTruthy();
  });

  test("what lies inside the overlay or is the controller is refused; what covers it is warned about (I9)", async () => {
    for (const destination of ["10.101.4.0/24", "10.102.0.1/32", "127.0.0.1/32", "224.0.0.5/32", "169.254.169.254/32", "198.51.100.99/32"]) {
      await expect(apply(route("inside", [destination]))).rejects.toMatchObject({
        code: "Invalid",
        faults: [{ path: "spec.destinations[0]", value: destination }],
      });
    }
    const { results } = await apply(route("covers", ["0.0.0.0/0"]));
    expect(results[0]?.warnings?.join()).toMatch(/controller 198\.51\.100\.99:8443|overlay/);
    await call(controller, "DELETE", "/v1/resources/meshroutes/covers");
  });

  test("ranges of the mesh itself that are somebody's on the internet are warned about", async () => {
    const network = (overlay: string): Record<string, unknown> => ({
      apiVersion: "isthmus.dev/v1alpha1",
      kind: "MeshNetwork",
      metadata: { name: "isthmus" },
      spec: { overlay: { v4: overlay } },
    });
    const dryRun = (overlay: string): Promise<Applied> =>
      call<Applied>(controller, "POST", "/v1/apply", { documents: [network(overlay)], dryRun: true });
    expect((await dryRun("8.8.8.0/24")).results[0]?.warnings).toEqual([expect.stringMatching(/^spec\.overlay\.v4 8\.8\.8\.0\/24 is a public range/)]);
    expect((await dryRun("10.64.0.0/16")).results[0]).not.toHaveProperty("warnings");
  });

  test("names that are nearly right are told", async () => {
    await expect(call(controller, "GET", "/v1/resources/meshroute")).rejects.toMatchObject({
      code: "UnknownKind",
      remedy: "Did you mean meshroutes?",
    });
    await expect(call(controller, "GET", "/v1/resources/sites/dc2")).rejects.toMatchObject({ code: "NotFound", remedy: "Did you mean dc1?" });
    await expect(call(controller, "GET", "/v1/nothing")).rejects.toMatchObject({ code: "NotFound" });
  });

  test("a token needs a site, a future and a use", async () => {
    await expect(makeToken(controller, { site: "nowhere" })).rejects.toMatchObject({ code: "NotFound" });
    await expect(makeToken(controller, { site: "dc1", uses: 0 })).rejects.toMatchObject({ code: "Invalid" });
    await expect(makeToken(controller, { site: "dc1", expires: "2020-01-01T00:00:00Z" })).rejects.toMatchObject({ code: "Invalid" });
  });

  test("roles open what they should and no more, and a revoked admin is out at once", async () => {
    const admins = await Promise.all(
      (["viewer", "operator", "admin"] as const).map(async (role) => {
        const { key, csr } = await makeKeys(role);
        const { certificate } = await call<{ certificate: string }>(controller, "POST", "/v1/admins", { name: `a-${role}`, role, csr });
        return { key, cert: certificate };
      }),
    );
    const statuses = async (method: string, path: string, body?: unknown): Promise<number[]> =>
      Promise.all(admins.map(async (admin) => (await https(controller, method, path, body, admin)).status));
    expect(await statuses("GET", "/v1/resources/sites")).toEqual([200, 200, 200]);
    expect(await statuses("GET", "/metrics")).toEqual([200, 200, 200]);
    expect(await statuses("POST", "/v1/apply", { documents: [route("roles", ["192.0.2.1/32"])], dryRun: true })).toEqual([403, 200, 200]);
    expect(await statuses("GET", "/v1/backup")).toEqual([403, 403, 200]);
    await call(controller, "POST", "/v1/admins/a-operator/revoke");
    expect(await statuses("GET", "/v1/resources/sites")).toEqual([200, 401, 200]);
  });

  test("diff asks connected nodes with the changed views, and falls back to the plan for others; nothing is written", async () => {
    const { secret } = await makeToken(controller, { site: "dc1" });
    const here = await newNode(controller, secret, "diff-here");
    const away = await newNode(controller, secret, "diff-away");
    await away.disconnect();
    await eventually(async () =>
      expect(await call(controller, "GET", "/v1/resources/meshnodes/diff-away")).toMatchObject({ status: { connected: false } }),
    );
    const asked: unknown[] = [];
    here.onAsk = (what, body) => {
      asked.push({ what, body });
      return { changes: [{ area: "route", action: "add", what: "192.0.2.77/32" }] };
    };
    const { nodes } = await call<{ nodes: { node: string; source: string; changes: unknown[] }[] }>(controller, "POST", "/v1/diff", {
      documents: [route("diffed", ["192.0.2.77/32"])],
    });
    expect(nodes.map(({ node, source }) => [node, source])).toEqual([
      ["diff-away", "plan"],
      ["diff-here", "agent"],
    ]);
    expect(nodes[0]?.changes.length).toBeGreaterThan(0);
    expect(asked).toEqual([
      {
        what: "diff",
        body: expect.objectContaining({ views: { "lanroute/diffed": { put: expect.objectContaining({ "d/192.0.2.77/32": 1 }), delete: [] } } }),
      },
    ]);
    expect(await call(controller, "GET", "/v1/resources/meshroutes")).toMatchObject({ items: [] });
    await here.disconnect();
  });

  test("an apply warns of gateways that are not there and of routers that no node reaches, and is done all the same", async () => {
    const missing = route("warned", ["192.0.2.60/32"], { gateways: [{ node: "nobody" }] });
    for (const dryRun of [true, false]) {
      const { results } = await call<Applied>(controller, "POST", "/v1/apply", { documents: [missing], dryRun });
      expect(results[0]).toMatchObject({ action: "created", warnings: [expect.stringContaining("there is no node nobody")] });
    }
    const { secret } = await makeToken(controller, { site: "dc1", labels: { tier: "warned" } });
    const [one, two] = [await newNode(controller, secret, "warn-one"), await newNode(controller, secret, "warn-two")];
    const refused = { "lanroute/warned": "not routed: 192.0.2.60/32: NotReachable (10.116.0.5)" };
    for (const agent of [one, two]) agent.onAsk = () => ({ changes: [], refused });
    const unreachable = route("warned", ["192.0.2.60/32"], { nodeSelector: { tier: "warned" } });
    const { nodes } = await call<{ nodes: unknown[] }>(controller, "POST", "/v1/diff", { documents: [unreachable] });
    expect(nodes).toContainEqual({ node: "warn-one", source: "agent", note: expect.stringContaining("NotReachable"), changes: [] });
    const { results } = await apply(unreachable);
    expect(results[0]?.warnings).toEqual([`on warn-one and 1 more: ${refused["lanroute/warned"]}`]);
    expect(one.view("lanroute/warned")).toBeDefined();
    for (const agent of [one, two]) agent.onAsk = () => ({ changes: [] });
    expect((await apply(unreachable)).results[0]).not.toHaveProperty("warnings");
    await call(controller, "DELETE", "/v1/resources/meshroutes/warned");
    await Promise.all([one.disconnect(), two.disconnect()]);
  });

  test("an intent's status counts nodes, names the failing ones, and knows the gateways in use", async () => {
    const { secret } = await makeToken(controller, { site: "dc1", labels: { tier: "status" } });
    const [one, two] = [await newNode(controller, secret, "st-one"), await newNode(controller, secret, "st-two")];
    await apply(route("watched", ["192.0.2.50/32"], { nodeSelector: { tier: "status" } }));
    one.report({ results: { "lanroute/watched": { ok: true, reason: "Installed", nextHop: "10.116.0.5" } } });
    two.report({ results: { "lanroute/watched": { ok: false, reason: "NotReachable", message: "10.116.0.5 is on no link of this node" } } });
    await eventually(async () => {
      expect(await call(controller, "GET", "/v1/resources/meshroutes/watched")).toMatchObject({
        status: {
          nodes: { total: 2, ready: 1, failing: 1 },
          failing: [{ node: "st-two", reason: "NotReachable" }],
          conditions: expect.arrayContaining([expect.objectContaining({ type: "Ready", status: "False" })]),
        },
      });
    });
    two.report({ results: { "lanroute/watched": { ok: true, reason: "Installed", nextHop: "10.116.0.5" } } });
    await eventually(async () =>
      expect(await call(controller, "GET", "/v1/resources/meshroutes/watched")).toMatchObject({
        status: { conditions: expect.arrayContaining([expect.objectContaining({ type: "Ready", status: "True" })]) },
      }),
    );
    await Promise.all([one.disconnect(), two.disconnect()]);
  });

  test("drain and uncordon change the node once, with an event and an audit line each", async () => {
    const { secret } = await makeToken(controller, { site: "dc1" });
    const agent = await newNode(controller, secret, "drained");
    await call(controller, "POST", "/v1/nodes/drained/drain", { timeout: "30s" });
    await eventually(() => expect(agent.view("node/drained")?.get("self")).toMatchObject({ drain: { timeoutMs: 30_000 } }));
    const again = await call(controller, "POST", "/v1/nodes/drained/drain", { timeout: "30s" });
    expect(again).toMatchObject({
      metadata: { generation: 2 },
      status: { conditions: expect.arrayContaining([expect.objectContaining({ type: "Draining" })]) },
    });
    await call(controller, "POST", "/v1/nodes/drained/uncordon");
    await eventually(() => expect(agent.view("node/drained")?.get("self")).not.toHaveProperty("drain"));
    const audit = readFileSync(join(folder.path, "data", "audit.jsonl"), "utf8");
    const lines = audit
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { who: string; action: string; name?: string; before?: unknown; after?: unknown });
    expect(lines.filter((line) => line.name === "drained").map((line) => [line.who, line.action])).toEqual([
      ["node/drained", "join"],
      ["root", "drain"],
      ["root", "uncordon"],
    ]);
    expect(statSync(join(folder.path, "data", "audit.jsonl")).mode & 0o777).toBe(0o600);
    await agent.disconnect();
  });

  test("a drain is told from the next one, not from itself with another timeout or another label", async () => {
    const { secret } = await makeToken(controller, { site: "dc1" });
    const agent = await newNode(controller, secret, "cordoned");
    const cordonedAt = async (action?: string, body: object = {}): Promise<unknown> => {
      if (action !== undefined) await call(controller, "POST", `/v1/nodes/cordoned/${action}`, body);
      return (await call<{ spec: { cordonedAt?: string } }>(controller, "GET", "/v1/resources/meshnodes/cordoned")).spec.cordonedAt;
    };
    const first = await cordonedAt("drain");
    expect(first).toEqual(expect.any(String));
    expect(await cordonedAt("drain", { timeout: "30s" })).toBe(first);
    await call(controller, "PATCH", "/v1/resources/meshnodes/cordoned/labels", { set: { rack: "7" } });
    expect(await cordonedAt()).toBe(first);
    expect(await cordonedAt("uncordon")).toBeUndefined();
    const second = await cordonedAt("drain");
    expect(second).toEqual(expect.any(String));
    expect(second).not.toBe(first);
    await agent.disconnect();
  });

  test("the same event again is counted, and a watch hears of new ones", async () => {
    const { secret } = await makeToken(controller, { site: "dc1" });
    const agent = await newNode(controller, secret, "noisy");
    const lines = follow("/v1/events?about=egress%2Fx&watch=1");
    const event = { at: Date.now(), type: "Warning" as const, reason: "GatewayDown", message: "gw stopped answering", about: "egress/x" };
    agent.report({ events: [event, event, event] });
    await eventually(async () => {
      const { items } = await call<{ items: unknown[] }>(controller, "GET", "/v1/events?about=egress%2Fx");
      expect(items).toEqual([expect.objectContaining({ node: "noisy", reason: "GatewayDown", count: 3 })]);
    });
    await eventually(() => expect(lines.values.at(-1)).toMatchObject({ reason: "GatewayDown", count: 3 }));
    lines.stop();
    await agent.disconnect();
  });

  test("a watch tells of what is there, what changes and what goes", async () => {
    await apply(route("w-first", ["192.0.2.60/32"]));
    const lines = follow("/v1/resources/meshroutes?watch=1");
    await eventually(() =>
      expect(lines.values).toContainEqual(
        expect.objectContaining({ type: "ADDED", object: expect.objectContaining({ metadata: expect.objectContaining({ name: "w-first" }) }) }),
      ),
    );
    await apply(route("w-first", ["192.0.2.61/32"]));
    await call(controller, "DELETE", "/v1/resources/meshroutes/w-first");
    await eventually(() => {
      const types = lines.values
        .filter((line) => (line as { object: { metadata: { name: string } } }).object.metadata.name === "w-first")
        .map((line) => (line as { type: string }).type);
      expect(types).toEqual(expect.arrayContaining(["ADDED", "MODIFIED", "DELETED"]));
      expect(types.at(-1)).toBe("DELETED");
    });
    lines.stop();
  });

  test("a site with nodes is not deleted, and the network's ranges do not change under them", async () => {
    await expect(call(controller, "DELETE", "/v1/resources/sites/dc1")).rejects.toMatchObject({ code: "Conflict" });
    const network = {
      apiVersion: "isthmus.dev/v1alpha1",
      kind: "MeshNetwork",
      metadata: { name: "isthmus" },
      spec: { overlay: { v4: "10.55.0.0/16" } },
    };
    await expect(apply(network)).rejects.toMatchObject({ code: "Invalid", faults: [{ path: "spec.overlay" }] });
    await expect(apply({ ...network, metadata: { name: "other" } })).rejects.toMatchObject({
      code: "Invalid",
      message: expect.stringContaining("nothing was changed") as string,
      faults: [{ path: "metadata.name", document: 0, value: "other" }],
    });
    expect(await apply({ ...network, spec: { mtu: 1400 } })).toMatchObject({ results: [{ action: "configured" }] });
  });

  test("health, readiness, metrics and the API's own description are there", async () => {
    expect(await call(controller, "GET", "/healthz")).toEqual({ ok: true });
    expect(await call(controller, "GET", "/readyz")).toMatchObject({ ready: true });
    expect(String(await call<Buffer>(controller, "GET", "/metrics"))).toMatch(/isthmus_nodes \d+/);
    expect(await call(controller, "GET", "/v1/openapi.json")).toMatchObject({ openapi: "3.1.0" });
    expect(await call(controller, "GET", "/v1/status")).toMatchObject({ recovering: false, advertise: ["198.51.100.99:8443"] });
  });

  function follow(path: string): { values: unknown[]; stop: () => void } {
    const values: unknown[] = [];
    let rest = "";
    const asked = request({ socketPath: controller.socket, path }, (answer) => {
      answer.setEncoding("utf8");
      answer.on("data", (part: string) => {
        const lines = (rest + part).split("\n");
        rest = lines.pop() ?? "";
        values.push(...lines.filter((line) => line !== "").map((line) => JSON.parse(line) as unknown));
      });
      answer.on("error", () => {});
    });
    asked.on("error", () => {});
    asked.end();
    return { values, stop: () => asked.destroy() };
  }
});
