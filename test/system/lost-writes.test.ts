/** The controller's store is older than its agents, its clock is wrong, or certificates ran out meanwhile. Needs root. */
import { X509Certificate } from "node:crypto";
import { cp, readFile, rm } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { removeLab } from "../../lab/build.ts";
import type { Lab } from "../../lab/lab.ts";
import { installService, startService, stopService } from "../../lab/machine.ts";
import { hostPaths, netnsName, REPOSITORY, WORLD } from "../../lab/names.ts";
import { eventually, netnsScript, run } from "../../lab/shell.ts";
import { loadTopology } from "../../lab/topology-file.ts";
import { labUp } from "../../lab/up.ts";
import { ownClock } from "./clock.ts";
import { dataOf, forgetGuest, GUEST, guestLog, isthmus, nodes, ready, startGuest, stopGuest, token } from "./guest.ts";

const NAME = `h-${process.pid}-w`;
const OWN = ["datacenter1", "datacenter2", "do1", "do2"];
const DAY = 24 * 3_600_000;
let lab: Lab;
let service: string;

beforeAll(async () => {
  lab = await labUp({ name: NAME, topology: await loadTopology(`${REPOSITORY}/lab/topology/default.yaml`), join: true });
  service = await readFile(`${hostPaths(NAME, "ctl").lib}/lab/service`, "utf8");
}, 120_000);
afterAll(() => removeLab(NAME));
afterEach(async ({ task }) => {
  if (task.result?.state !== "fail") return;
  console.error(await guestLog(lab));
  console.error((await readFile(hostPaths(NAME, "ctl").serviceLog, "utf8")).slice(-6000));
  // The next test starts from a controller with the right clock and a machine that nobody knows.
  await stop();
  await installService(NAME, "ctl", service);
  await start();
  await eventually("the controller is back", 30_000, async () => ((await controller()) === undefined ? undefined : true), { everyMs: 200 });
  await isthmus(lab, ["recovery", "confirm"], { mayFail: true });
  for (const { metadata } of await nodes(lab)) if (!OWN.includes(metadata.name)) await forgetGuest(lab, metadata.name).catch(console.error);
});

const DATA = (): string => `${hostPaths(NAME, "ctl").lib}/isthmus-controller`;
interface ControllerStatus {
  readonly recovering: boolean;
  readonly version?: string;
  readonly missing?: readonly string[];
}
const controller = async (): Promise<ControllerStatus | undefined> => {
  const answer = await lab.exec("ctl", ["curl", "-s", "--unix-socket", "/run/isthmus/controller.sock", "http://c/v1/status"], { mayFail: true });
  return answer.code === 0 ? (JSON.parse(answer.stdout) as ControllerStatus) : undefined;
};
const recovering = (wanted: boolean): Promise<ControllerStatus> =>
  eventually(
    `recovering: ${wanted}`,
    60_000,
    async () => {
      const now = await controller();
      return now?.recovering === wanted ? now : undefined;
    },
    { everyMs: 100 },
  );
const stop = (): Promise<void> => stopService(NAME, "ctl");
const start = (): Promise<void> => startService(NAME, "ctl");
const indexes = async (): Promise<Record<string, number>> =>
  Object.fromEntries((await nodes(lab)).map(({ metadata, spec }) => [metadata.name, spec.index]));
/** What WireGuard holds on every node: keys and AllowedIPs of all interfaces. */
const peers = async (): Promise<string[]> =>
  Promise.all(OWN.map(async (node) => (await lab.exec(node, ["wg", "show", "ism0", "allowed-ips"])).stdout.trim().split("\n").sort().join("\n")));
/** As new, for the other nodes too: what is compared later must not still be on its way. */
async function forget(name: string): Promise<void> {
  await forgetGuest(lab, name);
  await eventually(
    `everybody has forgotten ${name}`,
    30_000,
    async () => ((await peers()).every((list) => list.split("\n").length === OWN.length - 1) ? true : undefined),
    { everyMs: 200 },
  );
}

describe("a backup of yesterday restored under running agents", () => {
  test("no peer is lost, no address given twice, the newcomer is taken back, and people are told", async () => {
    const backup = "/var/lib/yesterday";
    await lab.exec("ctl", ["isthmus", "backup", backup]);
    const old = await token(lab, "dc1");
    await startGuest(lab, [await token(lab, "dc1"), "--name", "guest"]);
    await ready(lab, [...OWN, "guest"]);
    const before = { indexes: await indexes(), peers: await peers() };
    await eventually("datacenter1 reaches do1", 30_000, async () => {
      const { code } = await lab.exec("datacenter1", ["ping", "-c1", "-W1", "do1.isthmus"], { mayFail: true });
      return code === 0 ? true : undefined;
    });
    const stream = await lab.startGapStream({ from: "datacenter1", to: "do1", intervalMs: 50 });
    await stop();
    await lab.exec("ctl", ["isthmus", "restore", backup]);
    await start();
    expect((await recovering(true)).missing).toBeDefined();
    const told = await isthmus(lab, ["get", "nodes"]);
    expect(told.stderr).toMatch(/in Recovery[^]*isthmus recovery confirm/);
    await ready(lab, [...OWN, "guest"]);
    expect(await indexes()).toEqual(before.indexes);
    const refused = await isthmus(lab, ["create", "token", "--site", "dc1", "--expires", "1h"], { mayFail: true });
    expect([refused.code, refused.stderr]).toEqual([6, expect.stringMatching(/recovers from lost writes[^]*recovery confirm/)]);
    expect((await isthmus(lab, ["recovery", "confirm"])).stdout).toMatch(/confirmed/);
    await recovering(false);
    expect(await peers()).toEqual(before.peers);
    const report = await stream.stop();
    expect(report.lost / report.sent).toBeLessThan(0.02);
    const void_ = await lab.exec(GUEST, ["isthmus", "join", old, "--name", "late", "--data", "/var/lib/other", "--run", "/run/other"], {
      mayFail: true,
    });
    expect([void_.code, void_.stderr]).toEqual([5, expect.stringMatching(/create token/)]);
    await forget("guest");
    await startGuest(lab, [await token(lab, "dc1"), "--name", "guest2"]);
    await ready(lab, [...OWN, "guest2"]);
    expect(Object.values(before.indexes)).not.toContain((await indexes())["guest2"]);
    await forget("guest2");
  });
});

describe("a copy of the data folder on another machine, started while the original goes on", () => {
  /** A machine with a public address and no agent. */
  const ELSEWHERE = "inet";
  const world = (script: string): Promise<unknown> => netnsScript(netnsName(NAME, WORLD), script);
  const copy = (argv: readonly string[], mayFail = false) =>
    run([process.execPath, `${REPOSITORY}/cli/main.ts`, ...argv], {
      timeoutMs: 60_000,
      env: { ISTHMUS_SOCKET: `${hostPaths(NAME, ELSEWHERE).run}/copy.sock` },
      mayFail,
    });
  /** Who is connected there and has its plan in the kernel. */
  const readyAt = async (who: typeof copy): Promise<string[]> =>
    (JSON.parse((await who(["get", "nodes", "-o", "json"])).stdout) as { items: Awaited<ReturnType<typeof nodes>> }).items
      .filter(({ status }) => status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True"))
      .map(({ metadata }) => metadata.name);
  /** Everybody starts anew, at whichever controller the address leads to. */
  const reconnect = async (who: typeof copy, what: string): Promise<void> => {
    for (const node of OWN) await lab.crash(node);
    await eventually(
      what,
      60_000,
      async () => {
        const there = await readyAt(who);
        return OWN.every((node) => there.includes(node)) ? true : undefined;
      },
      { everyMs: 200 },
    );
  };

  test("gives nothing out and says why; agents that the address leads to one or the other keep every peer", async () => {
    await cp(DATA(), `${hostPaths(NAME, ELSEWHERE).lib}/copy`, { recursive: true });
    const start = "isthmus controller run --data /var/lib/copy --listen 0.0.0.0:8443 --advertise 198.51.100.10:8443 --socket /run/copy.sock";
    await lab.exec(ELSEWHERE, ["sh", "-c", `setsid ${start} >/var/log/copy.log 2>&1 & echo $! >/run/copy.pid`]);
    try {
      await eventually("the copy runs", 30_000, async () => ((await copy(["get", "nodes"], true)).code === 0 ? true : undefined), { everyMs: 200 });
      expect((await copy(["events"])).stdout).toMatch(/Recovery .*copy of another controller/);
      const refused = await copy(["create", "token", "--site", "dc1"], true);
      expect([refused.code, refused.stderr]).toEqual([6, expect.stringMatching(/recovery confirm/)]);
      expect((await controller())?.recovering).toBe(false);
      await startGuest(lab, [await token(lab, "dc1"), "--name", "between"]);
      await ready(lab, [...OWN, "between"]);
      const before = await peers();
      expect(await readyAt(copy)).toEqual([]);

      await world(
        // What the world switches inside a LAN is not on its way there yet.
        "nft 'table ip moved { chain c { type nat hook prerouting priority -100; ip saddr != 192.168.0.0/16 ip daddr 198.51.100.10 tcp dport 8443 dnat to 34.160.111.145; }; }'",
      );
      await reconnect(copy, "all are at the copy");
      expect(await peers()).toEqual(before);
      await world("nft delete table ip moved");
      await reconnect((argv) => isthmus(lab, argv), "all are back at the original");
      await ready(lab, [...OWN, "between"]);
      expect(await peers()).toEqual(before);
      expect((await controller())?.recovering).toBe(false);
    } finally {
      await world("nft delete table ip moved 2>/dev/null || true");
      await lab.exec(ELSEWHERE, ["sh", "-c", "kill $(cat /run/copy.pid)"], { mayFail: true });
    }
    await forget("between");
  });
});

describe("an old copy of the SQLite file under a controller that knows nothing of it", () => {
  test("goes into Recovery at the first agent that has seen more, and nobody is lost", async () => {
    await stop();
    await cp(DATA(), `${DATA()}.copy`, { recursive: true });
    await start();
    await recovering(false);
    await startGuest(lab, [await token(lab, "dc1"), "--name", "guest3"]);
    await ready(lab, [...OWN, "guest3"]);
    const before = { indexes: await indexes(), peers: await peers() };
    await stop();
    await rm(DATA(), { recursive: true });
    await cp(`${DATA()}.copy`, DATA(), { recursive: true });
    await start();
    await recovering(true);
    await ready(lab, [...OWN, "guest3"]);
    await isthmus(lab, ["recovery", "confirm"]);
    expect(await indexes()).toEqual(before.indexes);
    expect(await peers()).toEqual(before.peers);
    await forget("guest3");
  });
});

describe("a backup on a new machine", () => {
  test("resumes all agents, without a word to them", async () => {
    // The new machine takes the old one's address, as one does; nothing of the old one's disk is there.
    await lab.exec("ctl", ["isthmus", "backup", "/var/lib/moved"]);
    const before = await peers();
    await stop();
    await rm(DATA(), { recursive: true });
    await lab.exec("ctl", ["isthmus", "restore", "/var/lib/moved"]);
    await start();
    await ready(lab, OWN);
    await isthmus(lab, ["recovery", "confirm"], { mayFail: true });
    expect(await peers()).toEqual(before);
    await eventually(
      "do1 is connected again",
      30_000,
      async () => (/ connected to/.test((await lab.exec("do1", ["isthmus", "status"])).stdout) ? true : undefined),
      {
        everyMs: 200,
      },
    );
  });
});

describe("clocks", () => {
  const certificateEnds = async (): Promise<number> => new X509Certificate(await readFile(`${dataOf(lab, GUEST)}/node.crt`)).validToDate.getTime();

  test("a certificate that ran out while the controller was away: the data plane stays, and the node renews with its key", async () => {
    await stop();
    await installService(NAME, "ctl", `${await ownClock(lab, "ctl", -40 * DAY)}${service}`);
    await start();
    await recovering(false);
    // The others see a controller whose clock is off: they say so, and stay.
    await ready(lab, OWN);
    await eventually(
      "do1 says that a clock is off",
      20_000,
      async () => (/ClockWrong/.test((await lab.exec("do1", ["isthmus", "status"])).stdout) ? true : undefined),
      { everyMs: 200 },
    );
    await startGuest(lab, [await token(lab, "dc1"), "--name", "guest"]);
    await ready(lab, [...OWN, "guest"]);
    await stop();
    expect(await certificateEnds()).toBeLessThan(Date.now());
    await lab.crash(GUEST);
    const ping = () => lab.exec(GUEST, ["ping", "-c1", "-W1", "do1.isthmus"], { mayFail: true });
    await eventually("the overlay works with a certificate that ran out", 30_000, async () => ((await ping()).code === 0 ? true : undefined), {
      everyMs: 200,
    });
    const said = await eventually(
      "the agent says that it ran out",
      20_000,
      async () => {
        const { stdout } = await lab.exec(GUEST, ["isthmus", "status"], { mayFail: true });
        return /CertificateExpired/.test(stdout) ? stdout : undefined;
      },
      { everyMs: 200 },
    );
    expect(said).toMatch(/data plane goes on/);
    await installService(NAME, "ctl", service);
    await start();
    await ready(lab, [...OWN, "guest"]);
    await eventually("the certificate is renewed", 30_000, async () => ((await certificateEnds()) > Date.now() ? true : undefined), { everyMs: 200 });
    await eventually(
      "nothing is said of clocks any more",
      30_000,
      async () => (/ClockWrong|CertificateExpired/.test((await lab.exec(GUEST, ["isthmus", "status"])).stdout) ? undefined : true),
      { everyMs: 200 },
    );
    await forget("guest");
  });

  test.each([
    ["behind", -DAY],
    ["ahead of", DAY],
  ])("a node whose clock is a day %s the controller's joins, works, and says so", async (way, offset) => {
    await startGuest(lab, [await token(lab, "dc1"), "--name", "guest"], await ownClock(lab, GUEST, offset));
    await ready(lab, [...OWN, "guest"]);
    const text = await eventually(
      "the node says so",
      20_000,
      async () => {
        const { stdout } = await isthmus(lab, ["describe", "node", "guest"]);
        return /ClockWrong/.test(stdout) ? stdout : undefined;
      },
      { everyMs: 200 },
    );
    expect(text.replaceAll(/\s+/g, " ")).toMatch(new RegExp(`clock is \\d+ s ${way} the controller's`));
    // Its certificate is valid by either clock, and nothing is taken for expired.
    expect(text).not.toMatch(/CertificateExpired/);
    expect((await lab.exec(GUEST, ["ping", "-c1", "-W2", "do1.isthmus"])).code).toBe(0);
    // A clock that is wrong in one place is nobody else's fault.
    expect((await lab.exec("do1", ["isthmus", "status"])).stdout).not.toMatch(/ClockWrong/);
    await stopGuest(lab);
    await forget("guest");
  });
});
