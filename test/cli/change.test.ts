import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { IsthmusError } from "../../mesh/errors.ts";
import { fakeController, type FakeController, type Stored } from "./fake-controller.ts";
import { isthmus, NOW, type Ran, type RunOptions } from "./run.ts";

let controller: FakeController;
let folder: string;
beforeEach(async () => {
  controller = await fakeController(() => NOW);
  folder = await mkdtemp(join(tmpdir(), "ist-b-"));
});
afterEach(async () => {
  await controller[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const go = (argv: readonly string[], options: RunOptions = {}): Promise<Ran> =>
  isthmus(argv, { ...options, env: { ISTHMUS_SOCKET: controller.socket, ISTHMUS_CONFIG: join(folder, "config.yaml"), ...options.env } });
const file = async (name: string, text: string): Promise<string> => {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
};
const SITE = (name: string, extra = ""): string =>
  `apiVersion: isthmus.dev/v1alpha1\nkind: Site\nmetadata: {name: ${name}${extra}}\nspec: {kind: cloud}\n`;

describe("apply", () => {
  it("sends every document of every file in one request", async () => {
    const one = await file("one.yaml", `${SITE("a")}---\n---\n${SITE("b")}`);
    const two = await file(
      "two.json",
      JSON.stringify({
        apiVersion: "networking.digitalocean.com/v1",
        kind: "StaticRoute",
        metadata: { name: "primary" },
        spec: { destinations: ["34.160.111.145"], gateway: "10.116.0.5" },
      }),
    );
    const { out } = await go(["apply", "-f", one, "-f", two]);
    expect(out).toBe("site.isthmus.dev/a created\nsite.isthmus.dev/b created\nstaticroute.networking.digitalocean.com/primary created\n");
    expect(controller.writes).toEqual(["POST /v1/apply"]);
    expect((await go(["apply", "-f", one])).out).toContain("site.isthmus.dev/a unchanged");
  });

  it("reads a directory in order of name, and standard input", async () => {
    await file("2.yml", SITE("second"));
    await file("1.yaml", SITE("first"));
    await file("notes.txt", "not yaml: [");
    expect((await go(["apply", "-f", folder, "-o", "name"])).out).toBe("site/first\nsite/second\n");
    expect((await go(["apply", "-f", "-"], { stdin: SITE("third") })).out).toContain("third created");
  });

  it("applies none of ten documents when one is wrong, and says file, document, path, value and the nearest name", async () => {
    const path = await file(
      "ten.yaml",
      Array.from({ length: 10 }, (_, i) => SITE(`s${i}`).replace("kind: cloud", i === 6 ? "kind: cloud, subnetz: [10.0.0.0/8]" : "kind: cloud")).join(
        "---\n",
      ),
    );
    const { status, err } = await go(["apply", "-f", path]);
    expect(status).toBe(2);
    expect(err).toContain(`${path}, document 7: spec.subnetz: unknown field (it is ["10.0.0.0/8"]); did you mean "subnets"?`);
    expect(err).toContain("nothing was changed");
    expect(controller.writes).toEqual([]);
  });

  it("says where YAML is broken", async () => {
    const path = await file("broken.yaml", `${SITE("a")}---\nkind: [1, 2\nb: c\n`);
    const { status, err } = await go(["apply", "-f", path]);
    expect(status).toBe(2);
    expect(err).toContain(`${path}, document 2: not valid YAML`);
    expect(err).toMatch(/line \d+/);
    const both = await file("both.yaml", `${SITE("a", ", label: {}")}---\nkind: [1, 2\nb: c\n`);
    const second = await go(["diff", "-f", both]);
    expect(second.err).toContain("2 of 2 documents are not valid; nothing was changed");
    expect(second.err).toContain(`${both}, document 1: metadata.label: unknown field`);
  });

  it("gives the controller's own refusals the place in the user's files", async () => {
    const one = await file("a.yaml", SITE("a"));
    const two = await file("b.yaml", `${SITE("b")}---\n${SITE("c", ', annotations: {refuse: "1"}')}`);
    const { err } = await go(["apply", "-f", one, "-f", two]);
    expect(err).toContain(`${two}, document 2: spec.destinations[0]: covers the controller`);
    expect(controller.objects.size).toBe(0);
  });

  it("changes nothing with --dry-run", async () => {
    const path = await file("a.yaml", SITE("a"));
    expect((await go(["apply", "-f", path, "--dry-run"])).out).toBe("site.isthmus.dev/a created (server dry run)\n");
    expect((await go(["apply", "--dry-run=client", "-f", path], { env: { ISTHMUS_SOCKET: "/nowhere" } })).out).toBe(
      "site.isthmus.dev/a is valid (client dry run)\n",
    );
    expect(controller.objects.size).toBe(0);
  });

  it("names what is missing", async () => {
    expect((await go(["apply"])).err).toContain("no file is given");
    expect((await go(["apply", "-f", join(folder, "nope.yaml")])).status).toBe(3);
    expect((await go(["apply", "-f", await file("empty.yaml", "# nothing\n")])).err).toContain("there is no document");
  });
});

describe("delete", () => {
  it("deletes by name, by file in reverse, by selector, and refuses to guess", async () => {
    const path = await file("a.yaml", `${SITE("a", ", labels: {x: y}")}---\n${SITE("b")}`);
    await go(["apply", "-f", path]);
    expect((await go(["delete", "sites"])).status).toBe(2);
    expect((await go(["delete", "-f", path, "--dry-run"])).out).toBe(
      "site.isthmus.dev/b deleted (server dry run)\nsite.isthmus.dev/a deleted (server dry run)\n",
    );
    expect((await go(["delete", "sites", "-l", "x=y"])).out).toBe("site.isthmus.dev/a deleted\n");
    expect((await go(["delete", "site/b"])).out).toBe("site.isthmus.dev/b deleted\n");
    expect((await go(["delete", "site", "b"])).status).toBe(3);
    expect((await go(["delete", "site", "b", "--ignore-not-found"])).status).toBe(0);
  });

  it("deletes nothing where one of the names is of nothing", async () => {
    await go(["apply", "-f", await file("a.yaml", SITE("a"))]);
    const { status, err } = await go(["delete", "site", "nope", "a"]);
    expect([status, err]).toEqual([3, expect.stringContaining("nothing was deleted") as string]);
    expect(controller.objects.has("sites/a")).toBe(true);
    expect((await go(["delete", "site", "nope", "a", "a", "--ignore-not-found"])).out).toBe("site.isthmus.dev/a deleted\n");
  });

  it("labels nothing aloud", async () => {
    expect((await go(["label", "sites", "--all", "k=v"])).err).toBe("Nothing to label.\n");
  });
});

describe("label", () => {
  beforeEach(() =>
    controller.put({
      apiVersion: "isthmus.dev/v1alpha1",
      kind: "MeshNode",
      metadata: { name: "do1", labels: { old: "1", tier: "a" } },
      spec: { site: "do" },
    }),
  );

  it("sets and takes away", async () => {
    expect((await go(["label", "node", "do1", "egress=yes", "old-"])).out).toBe("meshnode.isthmus.dev/do1 labeled\n");
    expect(controller.objects.get("meshnodes/do1")?.metadata.labels).toEqual({ tier: "a", egress: "yes" });
  });

  it("changes a value only with --overwrite", async () => {
    const refused = await go(["label", "node/do1", "tier=b"]);
    expect(refused.status).toBe(4);
    expect(refused.err).toContain("--overwrite");
    expect((await go(["label", "node/do1", "tier=b", "--overwrite", "--list"])).out).toContain("tier=b\n");
  });

  it.each([
    [["label", "node", "do1"], "no label is given"],
    [["label", "node", "do1", "a=b c"], "label"],
    [["label", "node", "do1", "-x=1"], "unknown option"],
    [["label", "node", "do1", "a=1", "a-"], "both set and taken away"],
    [["label", "nodes", "a=1"], "which ones is not said"],
  ])("refuses %j", async (argv, message) => {
    const { status, err } = await go(argv);
    expect(status).toBe(2);
    expect(err).toContain(message);
    expect(controller.writes).toEqual([]);
  });
});

describe("create", () => {
  it("makes a site from flags, once", async () => {
    const argv = ["create", "site", "dc1", "--kind", "onprem", "--subnet", "192.168.88.0/24", "--label", "a=b"];
    expect((await go(argv)).out).toBe("site.isthmus.dev/dc1 created\n");
    expect(controller.objects.get("sites/dc1")?.spec).toMatchObject({
      kind: "onprem",
      subnets: ["192.168.88.0/24"],
      labels: { a: "b" },
      priority: 100,
    });
    expect((await go(argv)).status).toBe(4);
  });

  it("tells what is wrong with a flag's value", async () => {
    const { status, err } = await go(["create", "site", "dc1", "--kind", "onprem", "--subnet", "192.168.88.1/24"]);
    expect(status).toBe(2);
    expect(err).toContain('spec.subnets[0]: host bits are set; did you mean 192.168.88.0/24 or 192.168.88.1/32? (it is "192.168.88.1/24")');
  });

  it("makes egress gateways with priorities in the order of the flags", async () => {
    await go(["create", "egress", "web", "--to", "0.0.0.0/0", "--gateway", "egress=yes", "--gateway-site", "do"]);
    expect(controller.objects.get("egressgateways/web")?.spec["gateways"]).toEqual([
      { nodeSelector: { egress: "yes" }, priority: 100 },
      { site: "do", priority: 99 },
    ]);
  });

  it("prints a token alone on standard output", async () => {
    const { out, status } = await go([
      "create",
      "token",
      "--site",
      "dc1",
      "--uses",
      "1000",
      "--expires",
      "24h",
      "--label",
      "a=b",
      "--name-pattern",
      "datacenter*",
    ]);
    expect([status, out]).toEqual([0, "ist1.secret.00000000\n"]);
    expect(controller.bodies[0]).toEqual({
      spec: { site: "dc1", uses: 1000, expires: "2030-01-02T00:00:00Z", labels: { a: "b" }, namePattern: "datacenter*" },
    });
  });

  it("does not lose a token whose name alone is asked for", async () => {
    const { out, err } = await go(["create", "token", "--site", "dc1", "-o", "name"]);
    expect(out).toBe("jointoken/made-up\n");
    expect(err).toContain("ist1.secret.00000000");
  });

  it.each([
    [["--uses", "0"], "spec.uses: must be at least 1"],
    [["--uses", "many"], "whole number"],
    [["--expires", "2020-01-01T00:00:00Z"], "in the past"],
    [["--expires", "soon"], "not a length of time"],
    [["--expires", "0h"], "expire at once"],
    [["--label", "a=b", "--label", "a=c"], "a is given twice: b and c"],
  ])("refuses a token with %j", async (flags, message) => {
    const { status, err } = await go(["create", "token", "--site", "dc1", ...flags]);
    expect(status).toBe(2);
    expect(err).toContain(message);
    expect(controller.writes).toEqual([]);
  });
});

describe("diff", () => {
  it("prints changes node by node and ends with 1 when there are some", async () => {
    const path = await file("a.yaml", SITE("a"));
    expect(await go(["diff", "-f", path])).toMatchObject({ status: 0, out: "" });
    controller.diff = [{ node: "dc1-a", source: "agent", note: "lanroute/lan: not routed: 192.0.2.0/24: NotReachable (10.1.1.1)", changes: [] }];
    expect(await go(["diff", "-f", path])).toMatchObject({
      status: 0,
      out: expect.stringMatching(/node dc1-a\n {2}! lanroute\/lan: not routed[^]*0 changes on 0 nodes/),
    });
    controller.diff = [
      { node: "do1", source: "agent", changes: [{ area: "route", action: "add", what: "34.160.111.145/32", to: "dev ismg1" }] },
      {
        node: "do2",
        source: "plan",
        note: "the node is not connected",
        changes: [{ area: "peer", action: "change", what: "do1", from: "a", to: "b" }],
      },
    ];
    const { status, out } = await go(["diff", "-f", path, "--delete", "egress/web"]);
    expect(status).toBe(1);
    expect(out).toBe(
      "node do1\n  + route   34.160.111.145/32 dev ismg1\n\nnode do2 (from the plan: the node is not connected)\n  ~ peer    do1: a → b\n\n2 changes on 2 nodes\n",
    );
    expect(controller.bodies.at(-1)).toMatchObject({ delete: [{ kind: "EgressGateway", name: "web" }] });
  });
});

// What a node that was taken over might say: sets the terminal's title, moves up, and writes another line there.
const EVIL = "\u001b]0;owned\u0007\u001b[1A\u009b2K\r\nnode dc1-b\n";

it("no node's words reach the terminal as control characters", async () => {
  const path = await file("a.yaml", SITE("a"));
  controller.warnings = [`on dc1-a: ${EVIL}`];
  controller.diff = [
    { node: "dc1-a", source: "agent", note: EVIL, changes: [{ area: "route", action: "change", what: EVIL, from: EVIL, to: EVIL }] },
    { node: "dc1-b", source: "plan", note: EVIL, changes: [{ area: "route", action: "add", what: EVIL, to: EVIL }] },
  ];
  controller.put({
    apiVersion: "isthmus.dev/v1alpha1",
    kind: "MeshNode",
    metadata: { name: "dc1-a" },
    spec: { site: "dc1" },
    status: { version: EVIL, endpoints: [EVIL], conditions: [] },
  });
  controller.explanation = {
    node: "dc1-a",
    destination: "192.0.2.1",
    verdict: "Gateway",
    owner: EVIL,
    reason: EVIL,
    message: EVIL,
    hops: [{ at: EVIL, what: EVIL, dev: EVIL }],
    snat: EVIL,
    kernel: { text: EVIL, agrees: false, note: EVIL },
  };
  for (const argv of [
    ["apply", "-f", path],
    ["diff", "-f", path],
    ["describe", "node", "dc1-a"],
    ["explain", "dc1-a", "192.0.2.1"],
    ["explain", "dc1-a", "192.0.2.2"],
  ]) {
    if (argv.at(-1) === "192.0.2.2") controller.explanation = new IsthmusError("KernelRefused", EVIL, { remedy: EVIL });
    const { out, err } = await go(argv);
    expect(out + err).toContain("node dc1-b");
    // eslint-disable-next-line no-control-regex
    expect(out + err).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]|^node dc1-b$/m);
  }
});

describe("explain", () => {
  beforeEach(() =>
    controller.put({ apiVersion: "isthmus.dev/v1alpha1", kind: "MeshNode", metadata: { name: "datacenter1" }, spec: { site: "dc1" } }),
  );

  it("prints the way hop by hop, the candidates and what the kernel says", async () => {
    controller.explanation = {
      node: "datacenter1",
      destination: "34.160.111.145",
      verdict: "Gateway",
      owner: "egress/web",
      prefix: "34.160.111.145/32",
      reason: "GatewayDown",
      message: "the gateway before it stopped answering probes",
      since: NOW - 65_000,
      hops: [{ at: "datacenter1", what: "into the link to do2", dev: "ismg2", table: 157 }],
      candidates: [
        { node: "do2", active: true, why: "GatewayDown", since: NOW - 65_000 },
        { node: "do1", active: false, why: "Down", since: NOW - 66_000 },
      ],
      snat: "Masquerade",
      kernel: { text: "34.160.111.145 dev ismg2 table 157", agrees: true },
    };
    const { out } = await go(["explain", "datacenter1", "34.160.111.145"]);
    expect(out).toContain("datacenter1 → 34.160.111.145: goes over a gateway link\n");
    expect(out).toContain("GatewayDown (the gateway before it stopped answering probes), since 65s");
    expect(out).toContain("  1. datacenter1: into the link to do2 (dev ismg2, table 157)\n");
    expect(out).toMatch(/do1 +no +Down +66s/);
    expect(out).toContain("as planned");
  });

  it("wants a node that exists and an address", async () => {
    expect((await go(["explain", "datacenter9", "1.2.3.4"])).status).toBe(3);
    expect((await go(["explain", "datacenter1", "example.org"])).err).toContain("is not an address");
    expect((await go(["explain", "datacenter1"])).err).toContain("a node and a destination are needed");
  });

  it("explains schemas without any controller", async () => {
    const { status, out } = await go(["explain", "--schema", "egressgateway.spec.failback"], { env: { ISTHMUS_SOCKET: "/nowhere" } });
    expect(status).toBe(0);
    expect(out).toContain("Immediate, Delayed, Manual");
  });
});

describe("drain", () => {
  const draining = (status: "True" | "False", reason: string, message: string): Stored => ({
    apiVersion: "isthmus.dev/v1alpha1",
    kind: "MeshNode",
    metadata: { name: "do1" },
    spec: { site: "do" },
    status: { connected: true, conditions: [{ type: "Drained", status, reason, message }] },
  });
  /** A clock that is a second further at each look. */
  const ticking = (): (() => number) => {
    let now = NOW;
    return () => (now += 1_000);
  };

  it("waits until the controller says that the node is drained, however short the timeout", async () => {
    controller.put(draining("False", "InUse", "still used by datacenter1"));
    const gone = go(["drain", "do1", "--timeout", "0s"], { clock: () => NOW });
    await expect.poll(() => controller.reads.filter((path) => path.includes("meshnodes/do1")).length).toBeGreaterThan(2);
    controller.put(draining("True", "NotUsed", "nothing uses it any more"));
    const { status, err } = await gone;
    expect(status).toBe(0);
    expect(err).toContain("draining do1: still used by datacenter1");
    expect(err).toContain("do1 is drained; it can be rebooted");
    expect(controller.writes).toEqual(["POST /v1/nodes/do1/drain"]);
    expect((await go(["uncordon", "do1"])).out).toBe("node do1 uncordoned\n");
  });

  it("gives up some time after the timeout, and says who still uses the node", async () => {
    controller.put(draining("False", "InUse", "still used by datacenter1"));
    const { status, err } = await go(["drain", "do1", "--timeout", "2s"], { clock: ticking() });
    expect(status).toBe(6);
    expect(err).toMatch(/do1 is not drained: still used by datacenter1[^]*isthmus uncordon do1/);
    // Those who are not heard may still move; those who are, and stay, have nowhere to go.
    const looks = (): number => controller.reads.filter((path) => path.includes("meshnodes/do1")).length;
    const used = looks();
    controller.put(draining("False", "Waiting", "not heard from datacenter1 yet"));
    expect((await go(["drain", "do1", "--timeout", "2s"], { clock: ticking() })).status).toBe(6);
    expect(looks() - used).toBeGreaterThan(1.5 * used);
  });

  it("is what a restart of wireguard-go begins with, and taken back after it where it was not there before", async () => {
    controller.put(draining("True", "NotUsed", "nothing uses it any more"));
    const restart = () => go(["node", "restart-wireguard", "do1"], { clock: () => NOW });
    expect(await restart()).toMatchObject({
      status: 0,
      out: "node do1 draining\nnode do1: wireguard-go started anew for ism0, ismgw0\nnode do1 uncordoned\n",
    });
    const [drain, anew, back] = ["drain", "restart-wireguard", "uncordon"].map((what) => `POST /v1/nodes/do1/${what}`);
    expect(controller.writes).toEqual([drain, anew, back]);
    await go(["drain", "do1", "--no-wait"]);
    controller.writes.length = 0;
    expect((await restart()).out).toBe("node do1: wireguard-go started anew for ism0, ismgw0\n");
    expect(controller.writes).toEqual([anew]);
  });

  it("does not move anything where WireGuard is part of the kernel", async () => {
    controller.put({ ...draining("False", "InUse", "still used by datacenter1"), status: { connected: true, wireguard: "kernel" } });
    expect((await go(["node", "restart-wireguard", "do1"])).out).toContain("in its kernel");
    expect(controller.writes).toEqual([]);
  });

  it("says to whoever interrupts it that the node stays cordoned", async () => {
    controller.put(draining("False", "InUse", "still used by datacenter1"));
    const stop = new AbortController();
    const gone = go(["drain", "do1"], { clock: () => NOW, signal: stop.signal });
    await expect.poll(() => controller.reads.filter((path) => path.includes("meshnodes/do1")).length).toBeGreaterThan(2);
    stop.abort();
    const { status, err } = await gone;
    expect(status).toBe(1);
    expect(err).toMatch(/interrupted; do1 stays cordoned[^]*isthmus uncordon do1/);
  });

  it.each([[["drain"]], [["uncordon"]], [["node", "restart-wireguard"]]])("%j looks for all nodes before it begins with one", async (command) => {
    controller.put(draining("True", "NotUsed", "nothing uses it any more"));
    expect((await go([...command, "do1", "do9"])).status).toBe(3);
    expect(controller.writes).toEqual([]);
  });

  it("refuses a timeout that is none", async () => {
    expect((await go(["drain", "do1", "--timeout", "soon"])).status).toBe(2);
    expect(controller.writes).toEqual([]);
  });
});

describe("backup", () => {
  it("writes the bytes for the owner alone and replaces nothing unasked", async () => {
    const path = join(folder, "backup");
    expect((await go(["backup", path])).status).toBe(0);
    expect([...(await readFile(path))]).toEqual([0, 1, 2, 255]);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await go(["backup", path])).status).toBe(4);
    expect((await go(["backup", path, "--force"])).status).toBe(0);
  });
});
