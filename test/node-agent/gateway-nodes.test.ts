/** An egress gateway that dies, with the controller dead too; drain, explain and diff on the way. Real processes in namespaces. */
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Explanation } from "../../mesh/model/answers.ts";
import { askUnix, eventually, isRoot, openNet, tail, type TestMachine, type TestNet } from "./machines.ts";

const INTERNET = "34.160.111.145";
const v1 = "isthmus.dev/v1alpha1";
const site = (name: string): unknown => ({ apiVersion: v1, kind: "Site", metadata: { name }, spec: { kind: "cloud" } });
const egress = (destinations: string[]): unknown => ({
  apiVersion: v1,
  kind: "EgressGateway",
  metadata: { name: "web" },
  spec: {
    destinations,
    sources: { nodeSelector: { "isthmus.dev/site": "home" } },
    gateways: [
      { site: "one", priority: 200 },
      { site: "two", priority: 100 },
    ],
    failback: { type: "Immediate" },
    health: { holdDown: "1s" },
  },
});

describe.skipIf(!isRoot)("an egress gateway in each of two sites", () => {
  let net: TestNet;
  let ctl: TestMachine;
  let inet: TestMachine;
  const nodes = new Map<string, TestMachine>();
  let controller: ChildProcess;

  const node = (name: string): TestMachine => {
    const found = nodes.get(name);
    if (found === undefined) throw new Error(`no machine ${name}`);
    return found;
  };
  const api = (method: string, path: string, body?: unknown): Promise<unknown> => askUnix(join(ctl.run, "controller.sock"), method, path, body);
  /** The address that the internet sees. */
  const seenAs = (): string => node("client").sh(`curl -s -m 2 http://${INTERNET}/ || true`).replace("::ffff:", "");
  const explain = async (): Promise<Explanation> => (await node("client").agent("GET", `/explain?destination=${INTERNET}`)) as Explanation;

  beforeAll(async () => {
    net = openNet("gw");
    ctl = await net.machine("ctl", "203.0.113.1/24");
    inet = await net.machine("inet", "203.0.113.100/24", `ip -n NS addr add ${INTERNET}/32 dev lo`);
    inet.start("whoami", {});
    // Everyone could reach the internet directly: what arrives from elsewhere was steered.
    const uplink = "ip -n NS route add default via 203.0.113.100";
    for (const [name, address] of [
      ["client", "203.0.113.2/24"],
      ["gw1", "203.0.113.3/24"],
      ["gw2", "203.0.113.4/24"],
    ] as const) {
      nodes.set(name, await net.machine(name, address, uplink));
    }
    controller = ctl.start("controller", { listen: "0.0.0.0:8443", advertise: ["203.0.113.1:8443"], socket: join(ctl.run, "controller.sock") });
    await eventually(30_000, "the controller answers", () => api("GET", "/v1/status"));
    await api("POST", "/v1/apply", { documents: ["home", "one", "two"].map(site) });
    for (const [name, at] of [
      ["client", "home"],
      ["gw1", "one"],
      ["gw2", "two"],
    ] as const) {
      const made = (await api("POST", "/v1/tokens", { spec: { site: at, uses: 1, expires: new Date(Date.now() + 3_600_000).toISOString() } })) as {
        token: string;
      };
      node(name).start("join", { token: made.token, name });
    }
    await eventually(30_000, "all have joined", async () =>
      (await Promise.all([...nodes.values()].map((one) => one.status()))).every((status) => status.controller.connected && status.peers.length === 2),
    );
  });
  afterAll(() => {
    if (process.env["ISTHMUS_TEST_LOGS"] !== undefined) for (const one of [ctl, ...nodes.values()]) console.log(`── ${one.name}\n${tail(one.log)}`);
    net.close();
  });

  test("diff says on each node what an intent would change, and changes nothing", async () => {
    const { nodes: rows } = (await api("POST", "/v1/diff", { documents: [egress([`${INTERNET}/32`])], delete: [] })) as {
      nodes: { node: string; source: string; changes: { area: string; action: string; what: string }[] }[];
    };
    const client = rows.find((one) => one.node === "client");
    expect(client).toMatchObject({ source: "agent" });
    expect(client?.changes).toContainEqual(expect.objectContaining({ area: "route", action: "add", what: expect.stringContaining(INTERNET) }));
    expect(rows.map((one) => one.node)).toEqual(["client", "gw1", "gw2"]);
    expect(node("client").sh("ip route show table 157")).not.toContain(INTERNET);
  });

  test("traffic leaves by the preferred gateway, and explain agrees with the kernel", async () => {
    await api("POST", "/v1/apply", { documents: [egress([`${INTERNET}/32`])] });
    await eventually(20_000, "the first gateway carries", () => seenAs() === "203.0.113.3");
    await eventually(5_000, "explain tells it", async () => {
      const said = await explain();
      return said.verdict === "Gateway" && said.owner === "egress/web" && said.candidates[0]?.active === true && said.kernel?.agrees === true;
    });
  });

  test("a drain moves the traffic away and uncordon brings it back", async () => {
    await api("POST", "/v1/nodes/gw1/drain", { timeout: "5s" });
    await eventually(15_000, "the second gateway carries", () => seenAs() === "203.0.113.4");
    expect((await explain()).reason).toBe("Draining");
    await api("POST", "/v1/nodes/gw1/uncordon", {});
    await eventually(20_000, "the first gateway carries again", () => seenAs() === "203.0.113.3");
  });

  test("I1, I4: with the controller dead the first gateway dies, and the second carries", async () => {
    controller.kill("SIGKILL");
    node("gw1").die();
    await eventually(10_000, "the second gateway carries", () => seenAs() === "203.0.113.4");
    const said = await explain();
    expect(said).toMatchObject({ reason: "GatewayDown", kernel: { agrees: true } });
    expect(said.candidates.find((one) => one.node === "gw1")).toMatchObject({ active: false, why: "Down" });
  });

  test("I2: restarting the client's agent keeps the choice", async () => {
    const before = node("client").sh("ip nexthop; ip route show table 157");
    node("client").sh("kill -9 $(cat RUN/agent.pid)".replace("RUN", node("client").run));
    node("client").start("run", {});
    await eventually(15_000, "the agent runs again", async () => (await node("client").status()).lastPass !== undefined);
    expect(seenAs()).toBe("203.0.113.4");
    expect(node("client").sh("ip nexthop; ip route show table 157")).toBe(before);
  });

  test("I4: with every gateway dead nothing leaves by the underlay", async () => {
    node("gw2").die();
    await eventually(10_000, "the client knows", async () => (await explain()).candidates.every(({ why }) => why !== "Preferred"));
    for (let i = 0; i < 5; i++) expect(seenAs()).toBe("");
  });
});
