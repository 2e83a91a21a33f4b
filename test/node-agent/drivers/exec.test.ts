import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { asIsthmusError, type IsthmusError } from "../../../mesh/errors.ts";
import type { IpAddress } from "../../../mesh/model/scalars.ts";
import { must, refused, run, standBy, worked } from "../../../node-agent/drivers/exec.ts";
import { observeHosts, writeHosts } from "../../../node-agent/drivers/hosts.ts";
import { openRecords } from "../../../node-agent/drivers/records.ts";
import { observeRules } from "../../../node-agent/drivers/rules.ts";
import { createRoutesLook, routeLine, routeOf } from "../../../node-agent/drivers/routes.ts";
import { createDumpReader, parseDump } from "../../../node-agent/drivers/wireguard.ts";
import { cidr, ip, keyOf } from "../../mesh/kernel/fixtures.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "isthmus-drivers-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const failure = async (work: Promise<unknown>): Promise<IsthmusError> =>
  asIsthmusError(
    await work.then(
      () => new Error("it succeeded"),
      (error: unknown) => error,
    ),
  );

describe("run", () => {
  it("names the Debian package of a tool that is not installed", async () => {
    const path = process.env["PATH"];
    process.env["PATH"] = dir;
    try {
      const error = await failure(run("wg", ["show"]));
      expect(error.code).toBe("ToolMissing");
      expect(error.remedy).toContain("wireguard-tools");
    } finally {
      process.env["PATH"] = path;
    }
  });

  it("gives input, and takes a bad exit status as an answer", async () => {
    expect(await run("cat", [], { input: "hello" })).toEqual({ ok: true, stdout: "hello", stderr: "" });
    expect((await run("false", [])).ok).toBe(false);
    expect((await failure(must("sh", ["-c", "echo Operation not permitted >&2; exit 1"]))).code).toBe("NotRoot");
  });

  it("gives up at the deadline and when it is told to", async () => {
    expect((await failure(run("sleep", ["60"], { timeoutMs: 30 }))).code).toBe("Timeout");
    expect((await failure(run("sleep", ["60"], { signal: AbortSignal.timeout(20) }))).message).toContain("given up");
  });

  it("does not wait for what a stopped tool has left behind", async () => {
    const from = performance.now();
    expect((await failure(run("sh", ["-c", "sleep 20 & sleep 20"], { timeoutMs: 30 }))).code).toBe("Timeout");
    expect(performance.now() - from).toBeLessThan(15_000);
  });

  it("takes large input and output, and a tool that reads none of it", async () => {
    const much = "x".repeat(1 << 20);
    expect((await run("cat", [], { input: much })).stdout).toHaveLength(much.length);
    expect(await run("true", [], { input: much })).toMatchObject({ ok: true });
  });

  it("tells the errors apart that a person can do something about", () => {
    expect(refused("wg set", "Unable to modify interface: Address already in use").code).toBe("PortTaken");
    expect(refused("ip", "RTNETLINK answers: No space left on device").code).toBe("DiskFull");
    expect(refused("ip", "RTNETLINK answers: Invalid argument").code).toBe("KernelRefused");
  });
});

describe("hosts file", () => {
  const block = new Map([
    ["do1.isthmus", [ip("10.101.0.2"), ip("fd5e:1::2")]],
    ["do1", [ip("10.101.0.2"), ip("fd5e:1::2")]],
  ]);

  it("keeps what stands around the block byte for byte, and the file's mode", () => {
    const file = join(dir, "hosts");
    const before = "127.0.0.1\tlocalhost\n# a comment without an end";
    writeFileSync(file, before, { mode: 0o640 });
    writeHosts(file, block);
    expect(observeHosts(file)).toEqual(block);
    expect(readFileSync(file, "utf8").startsWith(`${before}\n`)).toBe(true);
    expect(statSync(file).mode & 0o777).toBe(0o640);
    writeHosts(file, new Map([["do2", [ip("10.101.0.3")]]]));
    expect([...observeHosts(file).keys()]).toEqual(["do2"]);
    writeHosts(file, new Map());
    expect(readFileSync(file, "utf8")).toBe(`${before}\n`);
  });

  it("makes the file where there is none, and leaves lines after the block", () => {
    const file = join(dir, "hosts");
    writeHosts(file, block);
    writeFileSync(file, `${readFileSync(file, "utf8")}10.0.0.1 later\n`);
    writeHosts(file, new Map<string, IpAddress[]>());
    expect(readFileSync(file, "utf8").trim()).toBe("10.0.0.1 later");
  });
});

/** A zombie that nobody has collected yet has no command line. */
const runs = (pid: string): boolean => existsSync(`/proc/${pid}`) && readFileSync(`/proc/${pid}/cmdline`, "utf8") !== "";

describe("a look at the kernel", () => {
  /** As long as `work` takes, this is `ip`; its last word must be to end the shell that found it. */
  const withIp = async (script: string, work: () => Promise<void>): Promise<void> => {
    const path = process.env["PATH"];
    process.env["PATH"] = `${dir}:${path}`;
    writeFileSync(join(dir, "ip"), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    try {
      await work();
    } finally {
      process.env["PATH"] = path;
    }
  };

  it("does not believe rules to be gone when the question for them has no answer", async () => {
    // Rules of IPv4 there are none; whoever asks for those of IPv6 loses the shell.
    await withIp('case "$*" in *-6*) kill -KILL $PPID ;; esac', async () => {
      expect((await failure(observeRules())).message).toContain("the shell that runs it ended");
    });
  });

  it("reads routes anew when they are others, and only then", async () => {
    const say = (...rows: readonly object[]): void => writeFileSync(join(dir, "routes"), JSON.stringify(rows));
    const row = { type: "1", dst: "100.64.0.1", table: "157", nhid: 157_201 };
    await withIp(`case "$*" in *-4*) cat ${dir}/routes || kill -KILL $PPID ;; esac`, async () => {
      const look = createRoutesLook();
      say(row);
      const first = await look();
      expect([...first.values()].map(({ dst, nexthopId }) => [dst, nexthopId])).toEqual([["100.64.0.1/32", 157_201]]);
      expect(await look()).toBe(first);
      say({ ...row, nhid: 157_202 });
      expect([...(await look()).values()].map(({ nexthopId }) => nexthopId)).toEqual([157_202]);
      say();
      expect((await look()).size).toBe(0);
      rmSync(join(dir, "routes"));
      await failure(look());
    });
  });
});

describe("a shell that stands by", () => {
  /** A tool of this test. */
  const tool = (name: string, script: string): string => {
    writeFileSync(join(dir, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    return join(dir, name);
  };

  it("runs a tool anew for every question, in turn, with all that it prints", async () => {
    const count = tool("count", `echo x >>${dir}/n; wc -l <${dir}/n; head -c 300000 /dev/zero | tr '\\0' y`);
    const look = standBy();
    const answers = await Promise.all([look(count, []), look("echo", ["a", "-b", "1.2.3.4/5"]), look(count, [])]);
    expect(answers.map(({ stdout }) => stdout.trim().split("\n")[0])).toEqual(["1", "a -b 1.2.3.4/5", "2"]);
    expect(answers[0].stdout.length).toBeGreaterThan(300_000);
  });

  it("tells output, complaints and the exit status apart, and who is not installed", async () => {
    const look = standBy();
    expect(await look(tool("warns", "echo fine; echo careful >&2"), [])).toEqual({ ok: true, stdout: "fine\n", stderr: "careful\n" });
    const bad = await look(tool("bad", "echo half; echo Operation not permitted >&2; exit 1"), []);
    expect(bad).toEqual({ ok: false, stdout: "half\n", stderr: "Operation not permitted\n" });
    expect(() => worked("bad", [], bad)).toThrow(/not permitted/);
    expect((await failure(look("isthmus-no-such-tool", []))).code).toBe("ToolMissing");
    writeFileSync(join(dir, "plain"), "");
    expect((await failure(look(join(dir, "plain"), []))).code).toBe("NotRoot");
    expect((await look("true", [])).ok).toBe(true);
  });

  it("asks for plain words only", async () => {
    const look = standBy();
    for (const word of ["a b", "$HOME", "`id`", "*", "", "a\nb", "'", ";"]) expect((await failure(look("echo", [word]))).code).toBe("Internal");
    expect((await look("echo", ["a"])).stdout).toBe("a\n");
  });

  it("is given up at the deadline with the tool that hangs, and another one answers", async () => {
    const hang = tool("hang", `echo $$ >${dir}/pid; sleep 600`);
    const look = standBy(200);
    expect((await failure(look(hang, []))).code).toBe("Timeout");
    const pid = readFileSync(join(dir, "pid"), "utf8").trim();
    await expect.poll(() => runs(pid)).toBe(false);
    expect((await look("echo", ["fine"])).stdout).toBe("fine\n");
  });

  it("is given up when it is told to, with the tool that still runs, and another one answers", async () => {
    const hang = tool("hang", `echo $$ >${dir}/pid; sleep 600`);
    const look = standBy();
    const stop = new AbortController();
    const [given, after] = [look(hang, [], stop.signal), look("echo", ["fine"])];
    await expect.poll(() => existsSync(join(dir, "pid")) && readFileSync(join(dir, "pid"), "utf8").trim()).toMatch(/^\d+$/);
    stop.abort();
    expect((await failure(given)).message).toContain("was given up because the agent is stopping");
    expect((await after).stdout).toBe("fine\n");
    await expect.poll(() => runs(readFileSync(join(dir, "pid"), "utf8").trim())).toBe(false);
    expect((await failure(look("echo", [], stop.signal))).code).toBe("Internal");
  });

  it("lets nobody wait in turn for what a question without an answer held up", async () => {
    const hang = tool("hang", `echo x >>${dir}/started; sleep 600`);
    const look = standBy(200);
    const all = await Promise.allSettled([look(hang, []), look(hang, []), look("echo", ["a"])]);
    expect(all.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
    expect(readFileSync(join(dir, "started"), "utf8")).toBe("x\n");
    expect((await look("echo", ["b"])).stdout).toBe("b\n");
  });

  it("that stands still gives way to another one at the deadline", async () => {
    const stop = tool("stop", `echo $PPID >${dir}/shell; kill -STOP $PPID`);
    const look = standBy(200);
    expect((await failure(look(stop, []))).code).toBe("Timeout");
    expect((await look("echo", ["fine"])).stdout).toBe("fine\n");
    const shell = readFileSync(join(dir, "shell"), "utf8").trim();
    await expect.poll(() => runs(shell)).toBe(false);
  });

  it("is not given up for an answer that lay there while this process itself stood still", async () => {
    const look = standBy(100);
    await look("true", []);
    const answer = look("echo", ["a"]);
    await new Promise(setImmediate);
    for (const end = performance.now() + 400; performance.now() < end;);
    expect((await answer).stdout).toBe("a\n");
  });

  it("that was killed gives way to another one, and no question is lost", async () => {
    const parent = tool("parent", "echo $PPID");
    const look = standBy();
    const shell = Number((await look(parent, [])).stdout);
    process.kill(shell, "SIGKILL");
    const next = Number((await look(parent, [])).stdout);
    expect(next).toBeGreaterThan(1);
    expect(next).not.toBe(shell);
  });

  it("that ends in the middle of an answer is asked again from the start, and its tool does not live on", async () => {
    const half = tool("half", `echo half; test -e ${dir}/pid || { echo $$ >${dir}/pid; kill -KILL $PPID; exec sleep 600; }; echo whole`);
    expect(await standBy()(half, [])).toEqual({ ok: true, stdout: "half\nwhole\n", stderr: "" });
    const pid = readFileSync(join(dir, "pid"), "utf8").trim();
    await expect.poll(() => runs(pid)).toBe(false);
  });

  it("gives nothing of an answer that never becomes whole", async () => {
    const look = standBy();
    const half = tool("half", `echo x >>${dir}/times; echo half; kill -KILL $PPID`);
    expect((await failure(look(half, []))).message).toContain("the shell that runs it ended");
    expect(readFileSync(join(dir, "times"), "utf8")).toBe("x\nx\n");
    expect((await failure(standBy(200)(tool("stuck", "echo half; exec sleep 600"), []))).code).toBe("Timeout");
    // A tool that dies is told from one that has said all.
    expect(await look(tool("dies", "echo half; kill -KILL $$"), [])).toMatchObject({ ok: false });
    expect((await look("echo", ["whole"])).stdout).toBe("whole\n");
  });

  it("takes nothing for the end of an answer that a tool says itself", async () => {
    const tricky = tool("tricky", `echo 0; printf 'a 0\\n\\004 0\\n'; printf '\\004 0\\n' >&2; sleep 0.1; printf '0123456789abcdef'`);
    expect((await standBy()(tricky, [])).stdout).toBe("0\na 0\n\x04 0\n0123456789abcdef");
  });

  it("leaves the questions to itself", async () => {
    const look = standBy();
    const [read, next] = await Promise.all([look("cat", []), look("echo", ["a"])]);
    expect([read.stdout, next.stdout]).toEqual(["", "a\n"]);
  });

  it("does not outlive a process that was killed, at rest or in the middle of a question", async () => {
    const shells = join(dir, "shells");
    const file = JSON.stringify(join(import.meta.dirname, "../../../node-agent/drivers/exec.ts"));
    const rest = tool("rest", `echo $PPID >>${shells}`);
    const kill = tool("kill", `echo $PPID >>${shells}; read -r _ _ _ parent _ </proc/$PPID/stat; kill -KILL $parent`);
    for (const last of ["process.kill(process.pid, 'SIGKILL')", `await look("${kill}", [])`]) {
      const script = `import { standBy } from ${file}; const look = standBy(); await look("${rest}", []); ${last};`;
      await run(process.execPath, ["--input-type=module-typescript", "-e", script]);
    }
    const pids = readFileSync(shells, "utf8").trim().split("\n");
    expect(pids).toHaveLength(3);
    for (const pid of pids) await expect.poll(() => runs(pid)).toBe(false);
  });

  it("keeps no process alive that asks nothing, and ends with it", async () => {
    const script = `import { standBy } from ${JSON.stringify(join(import.meta.dirname, "../../../node-agent/drivers/exec.ts"))};
      console.log((await standBy()(${JSON.stringify(tool("parent", "echo $PPID"))}, [])).stdout);`;
    const shell = (await run(process.execPath, ["--input-type=module-typescript", "-e", script])).stdout.trim();
    expect(Number(shell)).toBeGreaterThan(1);
    await expect.poll(() => runs(shell)).toBe(false);
  });
});

describe("records", () => {
  it("survive a restart, and a damaged file does not stop the agent", () => {
    openRecords(dir).update((all) => ({ ...all, sysctls: { "net.ipv4.ip_forward": "0" } }));
    expect(openRecords(dir).read().sysctls).toEqual({ "net.ipv4.ip_forward": "0" });
    expect(statSync(join(dir, "kernel.json")).mode & 0o777).toBe(0o600);
    writeFileSync(join(dir, "kernel.json"), "{ not json");
    expect(openRecords(dir).read().files).toEqual([]);
  });
});

describe("what tools print", () => {
  it("reads wg's dump, without endpoints, marks or keepalives where there are none", () => {
    const dump = `ism0\tSECRET\t${keyOf(1)}\t51820\t0x41000000\nism0\t${keyOf(2)}\t(none)\t(none)\t(none)\t0\t0\t0\toff\nism0\t${keyOf(3)}\t(none)\t[2001:db8::1]:51820\tfd00::1/128,10.0.0.0/8\t1700000000\t5\t6\t25\nism1\t(none)\t(none)\t0\toff\n`;
    const { ism0, ism1 } = Object.fromEntries(parseDump(dump));
    expect(ism0).toMatchObject({ publicKey: keyOf(1), listenPort: 51820, fwmark: 0x41000000 });
    expect([...ism0!.peers.values()]).toEqual([
      { publicKey: keyOf(2), allowedIps: [], keepalive: 0, latestHandshake: 0, rxBytes: 0, txBytes: 0 },
      {
        publicKey: keyOf(3),
        allowedIps: ["10.0.0.0/8", "fd00::1/128"],
        keepalive: 25,
        latestHandshake: 1_700_000_000,
        rxBytes: 5,
        txBytes: 6,
        endpoint: "[2001:db8::1]:51820",
      },
    ]);
    const keyed = parseDump(dump.replace(`${keyOf(3)}\t(none)`, `${keyOf(3)}\tSECRET`)).get("ism0");
    expect(keyed?.peers.get(keyOf(3))?.presharedKey).toBe(true);
    expect(JSON.stringify([...keyed!.peers])).not.toContain("SECRET");
    expect(ism1?.publicKey).toBe("");
    expect(JSON.stringify(ism0)).not.toContain("SECRET");
  });

  it("reads wg's dump again where it is another one, and only there", () => {
    const line = (n: number, rx: number, preshared = "(none)", name = "ism0"): string =>
      `${name}\t${keyOf(n)}\t${preshared}\t(none)\t10.0.0.${n}/32\t0\t${rx}\t0\t25\n`;
    const device = (name: string, port: number): string => `${name}\tSECRET\t${keyOf(1)}\t${port}\toff\n`;
    const look = createDumpReader();
    const peer = (found: ReturnType<typeof parseDump>, n: number, name = "ism0") => found.get(name)?.peers.get(keyOf(n));
    const first = look(device("ism0", 1) + line(2, 5) + line(3, 5) + line(4, 5));
    const text = device("ism0", 2) + line(2, 5) + line(3, 6) + line(4, 5, "SECRET") + device("ism1", 3) + line(2, 5, "(none)", "ism1");
    const second = look(text);
    expect(second).toEqual(parseDump(text));
    expect(peer(second, 2)).toBe(peer(first, 2));
    expect(peer(second, 3)?.rxBytes).toBe(6);
    expect([second.get("ism0")?.listenPort, second.get("ism1")?.listenPort]).toEqual([2, 3]);
    // What is gone is gone, and what moved up in the list is still itself.
    const less = device("ism0", 2) + line(4, 5) + line(2, 5);
    expect(look(less)).toEqual(parseDump(less));
    expect(first.get("ism0")?.peers.size).toBe(3);
  });

  it("reads routes of both families and writes them back the same", () => {
    expect(routeOf({ dst: "default", nhid: 157_200, dev: "ismg1", table: "157", metric: 1024, prefsrc: "10.101.0.1" }, 4)).toEqual({
      family: 4,
      dst: "0.0.0.0/0",
      table: 157,
      type: "unicast",
      metric: 1024,
      nexthopId: 157_200,
      src: "10.101.0.1",
    });
    expect(routeOf({ dst: "fd00::1", type: "7", dev: "lo", table: "157", metric: 4_294_967_294 }, 6)).toEqual({
      family: 6,
      dst: "fd00::1/128",
      table: 157,
      type: "unreachable",
      metric: 4_294_967_294,
    });
    expect(
      routeLine("add", {
        family: 4,
        dst: cidr("34.0.0.0/8"),
        table: 254,
        type: "unicast",
        metric: 0,
        multipath: [{ via: ip("192.0.2.1") }, { via: ip("192.0.2.2"), dev: "eth0" }],
      }).line,
    ).toBe("route add 34.0.0.0/8 table 254 proto 157 nexthop via 192.0.2.1 nexthop via 192.0.2.2 dev eth0");
    const narrow = { family: 4, dst: cidr("10.101.0.2/32"), table: 157, type: "unicast", metric: 1024, dev: "ism0", mtu: 1300 } as const;
    expect(routeLine("replace", narrow).line).toBe("route replace 10.101.0.2/32 dev ism0 table 157 proto 157 metric 1024 mtu 1300");
    expect(routeOf({ dst: "10.101.0.2", dev: "ism0", table: "157", metric: 1024, metrics: [{ mtu: 1300 }] }, 4)).toEqual(narrow);
  });
});
