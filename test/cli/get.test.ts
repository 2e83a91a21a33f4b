import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { fakeController, type FakeController, type Stored } from "./fake-controller.ts";
import { isthmus, NOW, type Ran, type RunOptions } from "./run.ts";

let controller: FakeController;
beforeEach(async () => {
  controller = await fakeController(() => NOW);
});
afterEach(async () => {
  await controller[Symbol.asyncDispose]();
});

const api = "isthmus.dev/v1alpha1";
const go = (words: string, options: RunOptions = {}): Promise<Ran> =>
  isthmus(words.split(" "), { ...options, env: { ISTHMUS_SOCKET: controller.socket, ...options.env } });
/** A watch that is stopped once it printed that (at its first word where that is empty); the controller has it when this returns. */
async function watchUntil(words: string, printed: string): Promise<{ ran: Promise<Ran> }> {
  const stop = new AbortController();
  const ran = go(words, {
    signal: stop.signal,
    onOut: (out) => {
      if (out.includes(printed)) stop.abort();
    },
  });
  await expect.poll(() => controller.watchers()).toBe(1);
  return { ran };
}
const add = (object: Stored): void => controller.put(object, "ADDED");

const node = (name: string, more: Partial<Stored> = {}): Stored => ({
  apiVersion: api,
  kind: "MeshNode",
  metadata: { name, labels: { role: "edge" }, creationTimestamp: "2029-12-31T21:30:00Z", resourceVersion: "3" },
  spec: { site: "do", index: 1, publicKey: "k", tlsKey: "t" },
  status: {
    overlay: ["10.101.0.1", "fd00::1"],
    endpoints: ["203.0.113.5:51820"],
    connected: true,
    handshakes: { peers: 3, fresh: 2 },
    conditions: [{ type: "Ready", status: "True", reason: "Connected" }],
  },
  ...more,
});
const site = (name: string, kind: string): Stored => ({
  apiVersion: api,
  kind: "Site",
  metadata: { name, creationTimestamp: "2029-12-31T23:59:50Z" },
  spec: { kind, subnets: ["192.168.88.0/24"], priority: 100 },
});
const staticRoute: Stored = {
  apiVersion: "networking.digitalocean.com/v1",
  kind: "StaticRoute",
  metadata: { name: "primary", creationTimestamp: "2029-12-31T23:58:50Z" },
  spec: { destinations: ["34.160.111.145/32"], gateway: "10.116.0.5" },
  status: { nodes: { total: 2, ready: 1, failing: 1 }, failing: [{ node: "do2", reason: "NotReachable" }] },
};

describe("get", () => {
  it("shows nodes with the wide columns in the documented order", async () => {
    add(site("do", "cloud"));
    add(node("do1"));
    add(node("do2", { spec: { site: "do", cordoned: true }, status: { connected: false } }));
    const conditions = [
      { type: "Drained", status: "True", reason: "NotUsed" },
      { type: "NoPathTo", status: "True", reason: "BothBehindNat" },
    ];
    add(node("do3", { spec: { site: "do", cordoned: true }, status: { connected: true, conditions } }));
    expect((await go("get nodes -o wide")).out.split("\n").map((line) => line.split(/ {2,}/))).toEqual([
      ["NAME", "SITE", "LOCATION", "OVERLAY", "ENDPOINT", "HANDSHAKE", "STATUS", "AGE"],
      ["do1", "do", "cloud", "10.101.0.1", "203.0.113.5:51820", "2/3", "Ready", "150m"],
      ["do2", "do", "cloud", "<none>", "<none>", "<none>", "NotReady,Draining", "150m"],
      ["do3", "do", "cloud", "<none>", "<none>", "<none>", "Ready,Drained,NoPathTo", "150m"],
      [""],
    ]);
  });

  it("shows of a site what it is, how many of its nodes are ready, and what is wrong with it", async () => {
    const status = (total: number, ready: number, ...conditions: unknown[]): Partial<Stored> => ({ status: { nodes: { total, ready }, conditions } });
    add(site("new", "cloud"));
    add({ ...site("a", "onprem"), ...status(2, 2) });
    add({ ...site("b", "onprem"), ...status(2, 1, { type: "Conflict", status: "True", reason: "OverlapsSubnet" }) });
    add({ ...site("c", "cloud"), ...status(2, 0, { type: "SubnetsReachable", status: "False", reason: "NodesFailing" }) });
    add({ ...site("d", "cloud"), ...status(0, 0) });
    const { out } = await go("get sites");
    expect(out.split("\n").map((line) => line.split(/ {2,}/))).toEqual([
      ["NAME", "KIND", "REGION", "SUBNETS", "NODES", "STATUS", "AGE"],
      ["a", "onprem", "<none>", "192.168.88.0/24", "2/2", "Ready", "10s"],
      ["b", "onprem", "<none>", "192.168.88.0/24", "1/2", "Degraded,Conflict", "10s"],
      ["c", "cloud", "<none>", "192.168.88.0/24", "0/2", "NotReady,NodesFailing", "10s"],
      ["d", "cloud", "<none>", "192.168.88.0/24", "0/0", "Empty", "10s"],
      ["new", "cloud", "<none>", "192.168.88.0/24", "<none>", "Unknown", "10s"],
      [""],
    ]);
  });

  it("shows of an egress gateway that some node cannot use one of its gateways, while another carries", async () => {
    const lacking = { type: "GatewaysUsable", status: "False", reason: "GatewayDown" };
    const status = async (...conditions: unknown[]): Promise<string | undefined> => {
      const spec = { destinations: ["34.160.111.145/32"], gateways: [{ nodeSelector: { egress: "true" } }], snat: { type: "Masquerade" } };
      add({
        apiVersion: api,
        kind: "EgressGateway",
        metadata: { name: "web" },
        spec,
        status: { active: ["do2"], nodes: { total: 1, ready: 1 }, conditions },
      });
      const { out } = await go("get egressgateways -o wide");
      const [head = "", row = ""] = out.split("\n");
      return row.split(/ {2,}/)[head.split(/ {2,}/).indexOf("STATUS")];
    };
    expect(await status({ type: "Ready", status: "True", reason: "AllNodesReady" })).toBe("Ready");
    expect(await status({ type: "Ready", status: "True", reason: "AllNodesReady" }, lacking)).toBe("Ready,GatewayDown");
    expect(await status({ type: "Ready", status: "False", reason: "NodesFailing" }, lacking)).toBe("NodesFailing");
  });

  it("shows StaticRoutes as the DigitalOcean operator does", async () => {
    add(staticRoute);
    expect((await go("get staticroutes")).out).toBe("NAME      DESTINATIONS     GATEWAY      AGE\nprimary   34.160.111.145   10.116.0.5   70s\n");
    expect((await go("get sr -o wide")).out).toContain("READY   NODES\n");
    expect((await go("get sr -o wide")).out).toContain("1/2     do2:NotReachable\n");
  });

  it("shows DigitalOcean's routes beside ours", async () => {
    add(staticRoute);
    add({ apiVersion: api, kind: "MeshRoute", metadata: { name: "r" }, spec: { destinations: ["1.2.3.4/32"], gateways: [{ node: "do1" }] } });
    const { out } = await go("get routes");
    expect(out).toContain("meshroute/r");
    expect(out).toContain("staticroute/primary");
  });

  it("shows several kinds, each in its table, with the kind before the names", async () => {
    add(site("do", "cloud"));
    add(node("do1"));
    const { out } = await go("get nodes,sites");
    expect(out).toMatch(/meshnode\/do1[\s\S]*\n\nNAME[\s\S]*site\/do/);
  });

  it("shows the location and the labels that a node has from its site, whichever sites are shown", async () => {
    add({ ...site("do", "cloud"), spec: { kind: "cloud", region: "nyc1", labels: { tier: "gold" } } });
    add(site("dc", "onprem"));
    add(node("do1"));
    const { out } = await go("get node/do1 site/dc --show-labels");
    expect(out).toMatch(/meshnode\/do1 +do +cloud /);
    expect(out).toContain("isthmus.dev/site=do,location=cloud,role=edge,tier=gold,topology.kubernetes.io/region=nyc1");
  });

  it("takes KIND/NAME, and names after a kind", async () => {
    add(node("do1"));
    add(node("do2"));
    expect((await go("get node/do1 --no-headers")).out).toMatch(/^do1 /);
    expect((await go("get nodes do1 do2 -o name")).out).toBe("meshnode/do1\nmeshnode/do2\n");
  });

  it("prints one object as itself and several as a list that apply takes", async () => {
    add(site("a", "cloud"));
    expect(JSON.parse((await go("get site a -o json")).out)).toMatchObject({ kind: "Site", metadata: { name: "a" } });
    expect(JSON.parse((await go("get sites -o json")).out)).toMatchObject({ kind: "List", items: [{ metadata: { name: "a" } }] });
    const yaml = (await go("get sites -o yaml")).out;
    expect((await go("apply -f -", { stdin: yaml })).status).toBe(0);
  });

  it("sends a selector and refuses one that it does not understand", async () => {
    add(node("do1"));
    add(node("do2", { metadata: { name: "do2", labels: { role: "core" } } }));
    expect((await go("get nodes -l role=core -o name")).out).toBe("meshnode/do2\n");
    expect((await go("get nodes -l role!=core,role -o name")).out).toBe("meshnode/do1\n");
    const refused = await go("get nodes -l a=b=c");
    expect(refused.status).toBe(2);
    expect(refused.err).toContain('"a=b=c" is not understood');
  });

  it("ends with 3 when a name is missing, and still shows the others", async () => {
    add(node("do1"));
    const some = await go("get nodes do1 do9");
    expect(some.status).toBe(3);
    expect(some.out).toContain("do1");
    expect(some.err).toContain("do9");
    expect((await go("get node do9")).status).toBe(3);
  });

  it("says so on standard error when there is nothing", async () => {
    const { status, out, err } = await go("get nodes");
    expect([status, out, err]).toEqual([0, "", "No nodes found.\n"]);
  });

  it("says what `all` leaves out, prints once what is named twice, and knows that there are no events of nothing", async () => {
    expect((await go("get all")).err).toBe("Nothing found; `all` leaves out the network, tokens and events.\n");
    add(site("do", "cloud"));
    expect((await go("get site do do -o name")).out).toBe("site/do\n");
    expect((await go("events --for site/do")).status).toBe(0);
    expect((await go("events --for site/nope")).status).toBe(3);
  });

  it("watches without the changes that do not show", async () => {
    add(site("do", "cloud"));
    const { ran } = await watchUntil("get sites -w", "last");
    const changed = site("do", "cloud");
    controller.put(changed);
    controller.put({ ...changed, spec: { ...changed.spec, kind: "onprem" } });
    controller.put({ ...changed, spec: { ...changed.spec, kind: "onprem" } });
    controller.put(site("last", "cloud"));
    const names = (await ran).out.split("\n").map((line) => line.split(/ {2,}/)[0]);
    expect(names).toEqual(["NAME", "do", "do", "last", ""]);
  });

  it("watches: the list first, then each change as a row", async () => {
    add(site("do", "cloud"));
    add(node("do1"));
    const { ran } = await watchUntil("get nodes -w", "do7 (deleted)");
    controller.put(node("do7"));
    controller.put(node("do7"), "DELETED");
    const { out } = await ran;
    expect(
      out
        .split("\n")
        .slice(0, 4)
        .map((line) => line.split(/ {2,}/)[0]),
    ).toEqual(["NAME", "do1", "do7", "do7 (deleted)"]);
  });

  it("prints the header with the first row when there was nothing to list", async () => {
    const { ran } = await watchUntil("get sites -w", "");
    add(site("do", "cloud"));
    expect((await ran).out).toMatch(/^NAME .*\ndo /);
  });

  it("goes on watching when the controller hangs up", async () => {
    add(site("do", "cloud"));
    const { ran } = await watchUntil("get sites -w", "late");
    controller.hangUp();
    await expect.poll(() => controller.watchers(), { timeout: 10_000 }).toBe(1);
    add(site("late", "cloud"));
    expect((await ran).status).toBe(0);
  });

  it("colours the status on a terminal, unless NO_COLOR is set", async () => {
    add(node("do1"));
    expect((await go("get nodes", { tty: true })).out).toContain("\u001b[32mReady\u001b[0m");
    expect((await go("get nodes", { tty: true, env: { NO_COLOR: "1" } })).out).not.toContain("\u001b");
    expect((await go("get nodes")).out).not.toContain("\u001b");
  });

  it("lets no control character through to the terminal", async () => {
    add(node("do1", { spec: { site: "evil\u001b[2Jsite" } }));
    expect((await go("get nodes")).out).not.toContain("\u001b");
  });
});

describe("describe", () => {
  it("shows fields, conditions, failing nodes and events", async () => {
    add(staticRoute);
    controller.events.push({
      at: NOW - 5_000,
      type: "Warning",
      reason: "NotReachable",
      message: "10.116.0.5 is on no LAN of do2",
      about: "staticroute/primary",
      node: "do2",
    });
    const { out } = await go("describe staticroute primary");
    expect(out).toContain("Name:         primary\n");
    expect(out).toContain("  gateway: 10.116.0.5\n");
    expect(out).toMatch(/Failing nodes:\n {2}NODE {3}REASON {9}/);
    expect(out).toMatch(/5s +Warning +NotReachable +staticroute\/primary +do2 +10\.116\.0\.5 is on no LAN of do2/);
  });
});

describe("events", () => {
  it("are shown newest last, and about one object with --for", async () => {
    add(node("do1"));
    controller.events.push(
      { at: NOW - 1_000, type: "Normal", reason: "B", message: "b", about: "node/do1" },
      { at: NOW - 9_000, type: "Normal", reason: "A", message: "a", about: "egress/web", node: "do1", count: 4 },
    );
    expect((await go("events --no-headers")).out.split("\n").map((line) => line.split(/ {2,}/).slice(0, 3))).toEqual([
      ["9s (x4)", "Normal", "A"],
      ["1s", "Normal", "B"],
      [""],
    ]);
    expect((await go("events --for node/do1 --no-headers")).out).toMatch(/^1s /);
    expect((await go("get events --no-headers")).out).toContain("egress/web");
  });
});
