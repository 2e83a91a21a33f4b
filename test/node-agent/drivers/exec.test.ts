import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { asIsthmusError, type IsthmusError } from "../../../mesh/errors.ts";
import type { IpAddress } from "../../../mesh/model/scalars.ts";
import { must, refused, run, standBy } from "../../../node-agent/drivers/exec.ts";
import { observeHosts, writeHosts } from "../../../node-agent/drivers/hosts.ts";
import { openRecords } from "../../../node-agent/drivers/records.ts";
import { routeLine, routeOf } from "../../../node-agent/drivers/routes.ts";
import { parseDump } from "../../../node-agent/drivers/wireguard.ts";
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

describe("a tool that stands by", () => {
  it("is run anew for every question, in turn, with all that it prints", async () => {
    const file = join(dir, "n");
    const tool = standBy("sh", ["-c", `echo x >>${file}; wc -l <${file}; head -c 300000 /dev/zero | tr '\\0' y`]);
    const answers = await Promise.all([tool.ask(), tool.ask(), tool.ask()]);
    expect(answers.map((one) => one.trim().split("\n")[0])).toEqual(["1", "2", "3"]);
    expect(answers.every((one) => one.length > 300_000)).toBe(true);
  });

  it("refuses as other tools do, is named when it is not installed, and is asked again after it", async () => {
    const file = join(dir, "bad");
    writeFileSync(file, "");
    const tool = standBy("sh", ["-c", `test -e ${file} || exit 0; echo Operation not permitted >&2; exit 1`]);
    expect((await failure(tool.ask())).code).toBe("NotRoot");
    rmSync(file);
    expect(await tool.ask()).toBe("");
    const path = process.env["PATH"];
    process.env["PATH"] = `${dir}:/bin`;
    try {
      expect((await failure(standBy("isthmus-no-such-tool", []).ask())).code).toBe("ToolMissing");
    } finally {
      process.env["PATH"] = path;
    }
  });

  it("that hangs is given up at the deadline with all that it started, and asked again by another shell", async () => {
    const file = join(dir, "hang");
    writeFileSync(file, "");
    const tool = standBy("sh", ["-c", `echo $$ >>${file}.pid; test -e ${file} && sleep 600; echo fine`], 200);
    expect((await failure(tool.ask())).code).toBe("Timeout");
    rmSync(file);
    const pid = readFileSync(`${file}.pid`, "utf8").trim();
    await expect.poll(() => runs(pid)).toBe(false);
    expect(await standBy("echo", ["fine"]).ask()).toBe("fine\n");
    expect(await tool.ask()).toBe("fine\n");
  });

  it("whose shell was killed is asked by another one", async () => {
    const tool = standBy("sh", ["-c", "echo $PPID"]);
    const shell = Number(await tool.ask());
    process.kill(shell, "SIGKILL");
    await expect.poll(async () => tool.ask().catch(() => undefined)).not.toBe(undefined);
    expect(Number(await tool.ask())).not.toBe(shell);
  });

  it("keeps no process alive that asks nothing, and ends with it", async () => {
    const script = `import { standBy } from ${JSON.stringify(join(import.meta.dirname, "../../../node-agent/drivers/exec.ts"))};
      console.log(await standBy("sh", ["-c", "echo $PPID"]).ask());`;
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
