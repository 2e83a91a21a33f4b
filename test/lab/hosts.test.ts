/** Bare hosts, no agents: what the lab itself promises. Needs root. */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { removeLab } from "../../lab/build.ts";
import type { Lab } from "../../lab/lab.ts";
import { installService, startService, stopService } from "../../lab/machine.ts";
import { labPaths } from "../../lab/names.ts";
import { processesUnder } from "../../lab/process.ts";
import { eventually } from "../../lab/shell.ts";
import { initOf, labCondition, readState } from "../../lab/state.ts";
import { loadTopology } from "../../lab/topology-file.ts";
import { labDown, labUp } from "../../lab/up.ts";
import { networkNamespaces } from "../../tools/leftovers.ts";
import { removeOrphans } from "../../tools/orphans.ts";

const DEFAULT = new URL("../../lab/topology/default.yaml", import.meta.url).pathname;
const NAME = `t-${process.pid}`;
const INTERNET = "34.160.111.145";
const topology = await loadTopology(DEFAULT);
const namespaces = (): string[] => (existsSync("/run/netns") ? readdirSync("/run/netns") : []).filter((name) => name.startsWith(`isthmus-${NAME}`));
const labProcesses = (): string[] =>
  readdirSync("/proc").filter((pid) => {
    try {
      return /^[0-9]+$/.test(pid) && Number(pid) !== process.pid && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`/${NAME}/`);
    } catch {
      return false;
    }
  });

let lab: Lab;
const seenFrom = async (host: string): Promise<string> =>
  (await lab.exec(host, ["curl", "-s", "--max-time", "1", `http://${INTERNET}`], { mayFail: true })).stdout.trim();
const reaches = async (from: string, address: string): Promise<boolean> =>
  (await lab.exec(from, ["ping", "-c", "1", "-W", "0.5", address], { mayFail: true })).code === 0;

beforeAll(async () => {
  lab = await labUp({ name: NAME, topology, join: false });
});
afterAll(() => removeLab(NAME));

describe("the network", () => {
  test("shows each host to the internet by its own public address or its router's", async () => {
    expect(await Promise.all(["do1", "datacenter1", "lanhost", "gw-b"].map(seenFrom))).toEqual([
      "203.0.113.10",
      "192.0.2.10",
      "192.0.2.10",
      "203.0.113.54",
    ]);
  });

  test("lets nobody dial into the datacenter", async () => {
    expect(await reaches("do1", "192.168.88.11")).toBe(false);
    expect((await lab.exec("do1", ["curl", "-s", "--max-time", "0.5", "http://192.0.2.10"], { mayFail: true })).code).toBe(28);
  });

  test("gives a flow behind NAT another port for every far end", async () => {
    const script = `const s=require("dgram").createSocket("udp4");s.bind(40000,()=>{for(const a of ["203.0.113.10","198.51.100.66"])s.send("x",40001,a)});setTimeout(()=>s.close(),300)`;
    const listener = `const s=require("dgram").createSocket("udp4");s.on("message",(_,f)=>{console.log(f.port);s.close()});s.bind(40001);setTimeout(()=>process.exit(1),5000).unref()`;
    const ports = ["do1", "do2"].map((host) => lab.exec(host, [process.execPath, "-e", listener]));
    for (const host of ["do1", "do2"]) {
      await eventually(`${host} listens`, 5000, async () =>
        (await lab.exec(host, ["cat", "/proc/net/udp"])).stdout.includes(":9C41 ") ? true : undefined,
      );
    }
    await lab.exec("datacenter1", [process.execPath, "-e", script]);
    const [one, two] = (await Promise.all(ports)).map((result) => result.stdout.trim());
    expect(one).not.toBe(two);
  });

  test("answers any address of an internet host's prefixes", async () => {
    const answer = await lab.exec("do2", ["curl", "-s", "--max-time", "1", "http://34.160.112.77"]);
    expect(answer.stdout).toBe("198.51.100.66\n");
    const stream = await lab.gapStream({ from: "do2", to: "34.160.112.77", protocol: "udp", intervalMs: 10, forMs: 200 });
    expect(stream.rttMs).toBeDefined();
  });

  test("has no way out to the machine", async () => {
    expect((await lab.exec("do1", ["ip", "-j", "link"])).stdout).not.toContain('"eth2"');
    expect(await reaches("do1", "1.1.1.1")).toBe(false);
  });
});

describe("a host", () => {
  test("has its own name, identity, files and processes", async () => {
    const identity = async (host: string): Promise<string[]> =>
      (await lab.exec(host, ["sh", "-c", "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id; ls /sys/class/net"])).stdout
        .trim()
        .split("\n");
    const [one, two] = [await identity("do1"), await identity("do2")];
    expect(one[0]).toBe("do1");
    expect(one[1]).not.toBe(two[1]);
    expect(one[2]).not.toBe(two[2]);
    expect(one.slice(3)).toEqual(["eth0", "eth1", "lo"]);
    await lab.exec("do1", ["sh", "-c", "echo x >/etc/only-here; echo x >/var/lib/only-here; echo x >/run/only-here"]);
    expect(existsSync("/etc/only-here") || existsSync("/var/lib/only-here") || existsSync("/run/only-here")).toBe(false);
    expect((await lab.exec("do2", ["ls", "/etc/only-here"], { mayFail: true })).code).not.toBe(0);
  });

  test("passes on a command's output, input and exit status", async () => {
    expect(await lab.exec("do1", ["sh", "-c", "cat; exit 7"], { input: "hello", mayFail: true })).toMatchObject({ stdout: "hello", code: 7 });
    await expect(lab.exec("do1", ["false"])).rejects.toThrow("exit status 1");
    await expect(lab.exec("nobody", ["true"])).rejects.toMatchObject({ code: "NotFound" });
  });

  test("kills a command that overstays, with all of it", async () => {
    expect((await lab.exec("do1", ["sleep", "98765"], { timeoutMs: 100, mayFail: true })).code).toBe(137);
    const init = (await initOf(NAME, "do1"))!;
    expect(processesUnder(init).filter((one) => one.argv.includes("98765"))).toEqual([]);
  });

  test("that lost its power is silent, forgets its kernel state, keeps its disk, and boots anew", async () => {
    await lab.exec("do1", [
      "sh",
      "-c",
      "echo kept >/var/lib/disk; echo gone >/run/volatile; ip route add 10.9.0.0/16 via 10.116.0.5; setsid sleep 1000 >/dev/null 2>&1 &",
    ]);
    const boot = (await lab.exec("do1", ["cat", "/proc/sys/kernel/random/boot_id"])).stdout;
    await lab.fail("node", "do1");
    expect(await reaches("do2", "203.0.113.10")).toBe(false);
    await expect(lab.exec("do1", ["true"])).rejects.toMatchObject({ code: "Unreachable" });
    expect((await lab.status()).hosts.find((host) => host.name === "do1")?.power).toBe("off");
    await lab.heal("node", "do1");
    expect(await seenFrom("do1")).toBe("203.0.113.10");
    expect((await lab.exec("do1", ["cat", "/var/lib/disk"])).stdout).toBe("kept\n");
    expect((await lab.exec("do1", ["ls", "/run/volatile"], { mayFail: true })).code).not.toBe(0);
    expect((await lab.exec("do1", ["ip", "route"])).stdout).not.toContain("10.9.0.0");
    expect((await lab.exec("do1", ["cat", "/proc/sys/kernel/random/boot_id"])).stdout).not.toBe(boot);
    expect((await lab.exec("do1", ["ps", "ax"])).stdout).not.toContain("sleep 1000");
  });

  test("that is a router is a router again after a power failure", async () => {
    await lab.fail("node", "dc-router");
    expect(await seenFrom("datacenter1")).toBe("");
    await lab.heal();
    expect(await seenFrom("datacenter1")).toBe("192.0.2.10");
  });
});

describe("the service of a host", () => {
  const service = `
    sh -c 'sleep 1001 & exec sleep 1002'  </dev/null >/dev/null 2>&1 &
    (setsid sleep 1003 &)
    (setsid sh -c '[ ! -e /sys/fs/cgroup/cgroup.procs ] || echo $$ >/sys/fs/cgroup/cgroup.procs; exec sleep 1004' &)
    exec sleep 1000`;
  const sleeps = async (): Promise<string[]> =>
    (await lab.exec("lanhost", ["ps", "-eo", "args="])).stdout
      .split("\n")
      .filter((line) => line.startsWith("sleep 10"))
      .sort();

  test("runs when installed, dies whole with its control group, and comes back when healed", async () => {
    await installService(NAME, "lanhost", service);
    await startService(NAME, "lanhost");
    const all = ["sleep 1000", "sleep 1001", "sleep 1002", "sleep 1003", "sleep 1004"];
    await eventually("the service runs", 5000, async () => ((await sleeps()).join() === all.join() ? true : undefined));
    await stopService(NAME, "lanhost");
    // What left the group by itself is not the service's any more.
    expect(await sleeps()).toEqual(["sleep 1004"]);
    await startService(NAME, "lanhost");
    await eventually("the service runs again", 5000, async () => ((await sleeps()).length === 6 ? true : undefined));
  });

  test("is started again by its service manager after a crash", async () => {
    const before = (await lab.exec("lanhost", ["cat", "/run/lab/service.pid"], { mayFail: true })).stdout;
    await lab.crash("lanhost");
    await eventually("the service runs again", 5000, async () => {
      const now = (await lab.exec("lanhost", ["cat", "/run/lab/service.pid"], { mayFail: true })).stdout;
      return now !== before && (await sleeps()).includes("sleep 1000") ? true : undefined;
    });
  });

  test("can be made to stall and go on", async () => {
    const states = async (): Promise<Set<string>> =>
      new Set(
        (await lab.exec("lanhost", ["sh", "-c", "ps -eo stat=,args= | grep '^[A-Za-z+<]* *sleep 1000$'"])).stdout
          .split("\n")
          .flatMap((line) => line[0] ?? []),
      );
    await lab.signal("lanhost", "SIGSTOP");
    expect(await states()).toEqual(new Set(["T"]));
    await lab.signal("lanhost", "SIGCONT");
    expect(await states()).toEqual(new Set(["S"]));
  });

  test("starts with the host after a power failure", async () => {
    await lab.fail("node", "lanhost");
    await lab.heal();
    await eventually("the service runs", 5000, async () => ((await sleeps()).length === 5 ? true : undefined));
    await stopService(NAME, "lanhost");
  });
});

describe("fail and heal", () => {
  test("link: only the two named hosts lose each other", async () => {
    await lab.fail("link", "datacenter1", "do1");
    expect(await reaches("datacenter1", "203.0.113.10")).toBe(false);
    expect(await reaches("datacenter2", "203.0.113.10")).toBe(true);
    expect(await reaches("datacenter1", "198.51.100.66")).toBe(true);
    await lab.heal("datacenter1");
    expect(await reaches("datacenter1", "203.0.113.10")).toBe(true);
  });

  test("link: hosts of one LAN or VPC too", async () => {
    await lab.fail("link", "do1", "gw-a");
    expect([await reaches("do1", "10.116.0.5"), await reaches("do2", "10.116.0.5")]).toEqual([false, true]);
    await lab.heal();
    expect(await reaches("do1", "10.116.0.5")).toBe(true);
  });

  test("uplink: a cloud node loses the internet but not the other sites; a site behind NAT loses all", async () => {
    await lab.fail("uplink", "do1");
    expect([await seenFrom("do1"), await reaches("do1", "198.51.100.66")]).toEqual(["", true]);
    await lab.fail("uplink", "dc1");
    expect([await reaches("datacenter1", "198.51.100.66"), await reaches("datacenter1", "192.168.88.50")]).toEqual([false, true]);
    expect((await lab.heal("uplink")).length).toBe(2);
    expect([await seenFrom("do1"), await seenFrom("datacenter1")]).toEqual(["203.0.113.10", "192.0.2.10"]);
  });

  test("carrier: the host sees its cable pulled", async () => {
    await lab.fail("carrier", "do2");
    expect((await lab.exec("do2", ["cat", "/sys/class/net/eth0/carrier"])).stdout).toBe("0\n");
    await lab.heal();
    await eventually("do2 is back", 3000, async () => ((await reaches("do1", "198.51.100.66")) ? true : undefined));
  });

  test("a fault outlives a power failure of the router that it is in force on", async () => {
    await lab.fail("link", "datacenter1", "do1");
    await lab.fail("node", "dc-router");
    await lab.heal("node");
    expect([await reaches("datacenter1", "203.0.113.10"), await reaches("datacenter2", "203.0.113.10")]).toEqual([false, true]);
    await lab.heal();
    expect(await reaches("datacenter1", "203.0.113.10")).toBe(true);
  });

  test("the same thing twice is one fault, and what does not fit is refused", async () => {
    await lab.fail("uplink", "do1");
    await lab.fail("uplink", "do1");
    expect((await lab.status()).faults).toEqual([{ kind: "uplink", host: "do1" }]);
    expect(await lab.heal()).toHaveLength(1);
    expect(await lab.heal()).toEqual([]);
    await expect(lab.fail("link", "do1")).rejects.toMatchObject({ code: "BadRequest" });
    await expect(lab.fail("agent", "gw-a")).rejects.toMatchObject({ code: "BadRequest" });
    await expect(lab.fail("node", "wan")).rejects.toMatchObject({ code: "NotFound" });
    expect((await lab.status()).faults).toEqual([]);
  });
});

describe("ping", () => {
  test("loses nothing where nothing is broken, with UDP and with ICMP", async () => {
    const [intervalMs, forMs] = [10, 500];
    const [udp, icmp] = await Promise.all([
      lab.gapStream({ from: "datacenter1", to: "inet", intervalMs, forMs }),
      lab.gapStream({ from: "datacenter1", to: "do1", intervalMs, forMs }),
    ]);
    for (const report of [udp, icmp]) {
      expect(report).toMatchObject({ lost: 0, longestGapMs: 0 });
      // A machine that is slow sends fewer, and no machine sends more.
      expect(report.sent).toBeGreaterThan(1);
      expect(report.sent).toBeLessThanOrEqual(forMs / intervalMs + 1);
    }
  });

  test.each(["udp", "icmp"] as const)("%s: measures an outage about as long as it was", async (protocol) => {
    const stream = await lab.startGapStream({ from: "do2", to: "inet", intervalMs: 5, protocol });
    const began = performance.now();
    await lab.fail("link", "do2", "inet");
    const broken = performance.now();
    await eventually("nothing comes back", 20_000, async () => ((await reaches("do2", INTERNET)) ? undefined : true));
    const healing = performance.now();
    await lab.heal();
    await eventually("packets flow again", 20_000, async () => ((await reaches("do2", INTERNET)) ? true : undefined));
    const flowing = performance.now();
    const report = await stream.stop();
    expect(report.gaps).toHaveLength(1);
    // At least the time in which it was surely cut, at most the time around; the sender may be held up at either end.
    expect(report.longestGapMs / (healing - broken)).toBeGreaterThan(0.5);
    expect(report.longestGapMs / (flowing - began)).toBeLessThan(2);
  });
});

describe("up and down", () => {
  const other = `${NAME}-b`;

  test("a second lab of the name is refused, one of another name stands beside it", async () => {
    await expect(labUp({ name: NAME, topology, join: false })).rejects.toMatchObject({ code: "AlreadyRunning" });
    await labUp({ name: other, topology, join: false });
    expect(await labDown(other)).toBe(true);
    expect(await labCondition(NAME)).toBe("up");
    expect(await seenFrom("do1")).toBe("203.0.113.10");
  });

  test("what a killed `lab up` left is removed by the next one", async () => {
    const main = new URL("../../lab/main.ts", import.meta.url).href;
    const child = spawn(
      process.execPath,
      ["-e", `import(${JSON.stringify(main)}).then((m) => m.labCommand(["up", "--no-join", "--name", ${JSON.stringify(other)}]))`],
      { stdio: "ignore" },
    );
    const ended = new Promise((done) => child.once("exit", done));
    await eventually("the first hosts boot", 20_000, () => (existsSync(`${labPaths(other).run}/hosts/inet/init.pid`) ? true : undefined), {
      everyMs: 1,
    });
    child.kill("SIGKILL");
    await ended;
    expect((await readState(other))?.phase).toBe("building");
    expect(await labCondition(other)).toBe("dead");
    await labUp({ name: other, topology, join: false });
    expect(await labCondition(other)).toBe("up");
    await labDown(other);
  });

  test("what a killed test left is removed by the next `lab up`, whatever its name", async () => {
    const modules = ["../../lab/up.ts", "../../lab/topology-file.ts"].map((path) => JSON.stringify(new URL(path, import.meta.url).href));
    const child = spawn(
      process.execPath,
      [
        "--input-type=module",
        "-e",
        `const [{ labUp }, { loadTopology }] = await Promise.all([${modules.map((one) => `import(${one})`).join()}]);
        await labUp({ name: ${JSON.stringify(other)}, topology: await loadTopology(${JSON.stringify(DEFAULT)}), join: false });
        setInterval(() => {}, 1000);`,
      ],
      { stdio: "ignore" },
    );
    const ended = new Promise((done) => child.once("exit", done));
    await eventually("the other lab is up", 30_000, async () => ((await labCondition(other)) === "up" ? true : undefined));
    const namespace = `ist-x-${child.pid}-a`;
    execFileSync("ip", ["netns", "add", namespace]);
    child.kill("SIGKILL");
    await ended;
    await labUp({ name: `${NAME}-c`, topology, join: false });
    await labDown(`${NAME}-c`);
    expect(await labCondition(other)).toBe("absent");
    expect(namespaces().filter((name) => name.startsWith(`isthmus-${other}`))).toEqual([]);
    expect(await removeOrphans()).toContain(namespace);
    expect(networkNamespaces()).not.toContain(namespace);
    expect(await labCondition(NAME)).toBe("up");
  });

  test("a lab whose state file is lost is still found and removed", async () => {
    await labUp({ name: other, topology, join: false });
    const { rm } = await import("node:fs/promises");
    await rm(labPaths(other).state);
    expect(await labDown(other)).toBe(true);
    expect(namespaces().filter((name) => name.startsWith(`isthmus-${other}`))).toEqual([]);
  });

  test("down leaves no process, namespace or file", async () => {
    expect(namespaces().length).toBe(topology.hosts.length + 1);
    await lab.fail("node", "do1");
    expect(await labDown(NAME)).toBe(true);
    expect(namespaces()).toEqual([]);
    expect(labProcesses()).toEqual([]);
    expect(existsSync(`/sys/fs/cgroup/isthmus-lab/${NAME}`) || existsSync(`/sys/fs/cgroup/unified/isthmus-lab/${NAME}`)).toBe(false);
    expect([existsSync(labPaths(NAME).run), existsSync(labPaths(NAME).data)]).toEqual([false, false]);
    expect(await labDown(NAME)).toBe(false);
  });
});
