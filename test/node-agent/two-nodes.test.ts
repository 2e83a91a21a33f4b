/** One token, two machines, one mesh: real controller, real agents, real WireGuard, in namespaces. */
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { askUnix, eventually, isRoot, openNet, tail, type TestMachine, type TestNet } from "./machines.ts";

const SITE = { apiVersion: "isthmus.dev/v1alpha1", kind: "Site", metadata: { name: "dc1" }, spec: { kind: "cloud" } };

describe.skipIf(!isRoot)("two machines with one token", () => {
  let net: TestNet;
  let ctl: TestMachine;
  let a: TestMachine;
  let b: TestMachine;
  let token = "";
  let agentA: ChildProcess;

  const api = (method: string, path: string, body?: unknown): Promise<unknown> => askUnix(join(ctl.run, "controller.sock"), method, path, body);
  const controller = (): ChildProcess =>
    ctl.start("controller", { listen: "0.0.0.0:8443", advertise: ["203.0.113.1:8443"], socket: join(ctl.run, "controller.sock") });
  const overlay = async (machine: TestMachine): Promise<string> => {
    const address = (await machine.status()).overlay.find((one) => one.includes("."));
    if (address === undefined) throw new Error("no overlay address yet");
    return address;
  };
  const pings = (from: TestMachine, to: string): boolean => from.ok(`ping -c1 -W1 ${to}`);

  beforeAll(async () => {
    net = openNet("two");
    ctl = await net.machine("ctl", "203.0.113.1/24");
    a = await net.machine("a", "203.0.113.2/24");
    b = await net.machine("b", "203.0.113.3/24");
    controller();
    await eventually(15_000, "the controller answers", () => api("GET", "/v1/status"));
    await api("POST", "/v1/apply", { documents: [SITE] });
    const made = (await api("POST", "/v1/tokens", { spec: { site: "dc1", uses: 10, expires: new Date(Date.now() + 3_600_000).toISOString() } })) as {
      token: string;
    };
    token = made.token;
  });
  afterAll(() => {
    if (process.env["ISTHMUS_TEST_LOGS"] !== undefined) for (const one of [ctl, a, b]) console.log(`── ${one.name}\n${tail(one.log)}`);
    net.close();
  });

  test("each joins by one command, sees the other's handshake, and pings it by overlay address and name", async () => {
    agentA = a.start("join", { token, name: "alpha" });
    b.start("join", { token, name: "beta" });
    const [toA, toB] = await Promise.all([eventually(20_000, "alpha is up", () => overlay(a)), eventually(20_000, "beta is up", () => overlay(b))]);
    await eventually(10_000, "alpha pings beta", () => pings(a, toB));
    await eventually(10_000, "beta pings alpha", () => pings(b, toA));
    expect(a.sh("wg show ism0 latest-handshakes")).not.toMatch(/\t0$/m);
    await eventually(5_000, "alpha finds beta by name", () => pings(a, "beta.isthmus"));
    await eventually(8_000, "the status shows the handshake", async () =>
      (await a.status()).peers.some(({ node, handshakeAgeMs }) => node === "beta" && handshakeAgeMs !== undefined),
    );
  });

  test("explain says the way and agrees with the kernel", async () => {
    const explained = (await a.agent("GET", `/explain?destination=${await overlay(b)}`)) as { verdict: string; kernel: { agrees: boolean } };
    expect(explained).toMatchObject({ verdict: "Mesh", owner: "peer/beta", kernel: { agrees: true } });
  });

  test("I10: an address, a rule and routes that someone deletes come back by themselves, and that is said", async () => {
    const mine = await overlay(a);
    const rules = a.sh("ip rule");
    a.sh(`ip addr del ${mine}/32 dev lo; ip rule del priority 15790; ip route flush table 157`);
    await eventually(
      10_000,
      "all is back",
      () => a.ok(`ip addr show dev lo | grep -q ${mine}/32`) && a.sh("ip rule") === rules && a.sh("ip route show table 157") !== "",
    );
    expect((await a.status()).drift.count).toBeGreaterThan(0);
  });

  test("I2: killing and restarting the agent changes no interface, no session and loses no ping", async () => {
    const toB = await overlay(b);
    const before = a.sh(
      "wg show ism0 dump | cut -f1-4; ip -o addr show dev lo; ip route show table all proto 157; ip rule; ip -o link show ism0 | cut -d: -f1",
    );
    agentA.kill("SIGKILL");
    a.sh(
      `ping -c20 -i0.05 -W1 ${toB} >/tmp/ist-f-ping-$$ 2>&1; grep -q ' 0% packet loss' /tmp/ist-f-ping-$$; ok=$?; rm -f /tmp/ist-f-ping-$$; exit $ok`,
    );
    agentA = a.start("run", {});
    await eventually(10_000, "the agent runs again", async () => (await a.status()).lastPass !== undefined);
    expect(
      a.sh("wg show ism0 dump | cut -f1-4; ip -o addr show dev lo; ip route show table all proto 157; ip rule; ip -o link show ism0 | cut -d: -f1"),
    ).toBe(before);
    expect((await a.status()).lastPass).toMatchObject({ operations: 0, failures: 0 });
  });

  test("a second agent on the host is refused and says so", async () => {
    const second = a.start("run", {});
    await new Promise((done) => second.once("exit", done));
    expect(second.exitCode).toBe(1);
    expect(tail(a.log)).toContain("AlreadyRunning");
  });

  test("I1: with the controller dead a rebooted machine comes back from its own disk", async () => {
    const toB = await overlay(b);
    ctl.sh("true");
    await ctl.reboot();
    await a.reboot();
    agentA = a.start("run", {});
    await eventually(8_000, "alpha pings beta after its reboot", () => pings(a, toB));
    expect((await a.status()).controller.connected).toBe(false);
  });

  test("the controller returns and the agents find it", async () => {
    controller();
    await eventually(20_000, "alpha is connected", async () => (await a.status()).controller.connected);
    await eventually(20_000, "beta is connected", async () => (await b.status()).controller.connected);
  });

  test("a machine that leaves is forgotten, keeps nothing of ours, and the other drops its peer", async () => {
    const leave = b.start("leave", {});
    await new Promise((done) => leave.once("exit", done));
    expect(leave.exitCode).toBe(0);
    const left =
      "ip -o link | grep -o ' ism[^ ]*'; ip rule | grep ^157; ip route show table all proto 157; nft list tables; ip -o addr show dev lo | grep 157157; true";
    expect(b.sh(left)).toBe("");
    await eventually(10_000, "alpha has no peers", () => a.sh("wg show ism0 peers") === "");
    expect(b.ok(`test -e ${b.data} || test -e ${b.run}`)).toBe(false);
  });
});
