/** What a machine lacks or loses: tools, WireGuard, root, room on the disk, files. Each is named, with what to do. Needs root. */
import { randomBytes } from "node:crypto";
import { readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { removeLab } from "../../lab/build.ts";
import type { Lab } from "../../lab/lab.ts";
import { installService, startService, stopService } from "../../lab/machine.ts";
import { hostPaths, REPOSITORY } from "../../lab/names.ts";
import { eventually, type RunResult } from "../../lab/shell.ts";
import { loadTopology } from "../../lab/topology-file.ts";
import { labUp } from "../../lab/up.ts";
import { dataOf, forgetGuest, GUEST, guestLog, isthmus, nodes, ready, startGuest, stopGuest, token } from "./guest.ts";

const NAME = `h-${process.pid}-e`;
const OWN = ["datacenter1", "datacenter2", "do1", "do2"];
let lab: Lab;
let some: string;

beforeAll(async () => {
  lab = await labUp({ name: NAME, topology: await loadTopology(`${REPOSITORY}/lab/topology/default.yaml`), join: true });
  some = await token(lab, "dc1");
}, 120_000);
afterAll(() => removeLab(NAME));
afterEach(async ({ task }) => {
  if (task.result?.state !== "fail") return;
  console.error(await guestLog(lab));
  console.error((await readFile(hostPaths(NAME, "ctl").serviceLog, "utf8")).slice(-3000));
  // What a test left behind is not the next one's trouble.
  await stopGuest(lab);
  await lab.exec(GUEST, ["sh", "-c", "kill $(cat /var/lib/lab/squatter); umount /var/lib/isthmus; rm -rf /var/lib/kept"], { mayFail: true });
  await stopService(NAME, "ctl");
  await unmounted("ctl", "/var/lib/isthmus-controller");
  await startService(NAME, "ctl");
  for (const { metadata } of await eventually("the controller answers", 30_000, async () => nodes(lab).catch(() => undefined)))
    if (!OWN.includes(metadata.name)) await forgetGuest(lab, metadata.name);
  await ready(lab, OWN);
});

/** The kernel lets go of a killed process's files a moment after the process. */
const unmounted = (host: string, folder: string): Promise<true> =>
  eventually(`${folder} of ${host} is as it was`, 10_000, async () =>
    (await lab.exec(host, ["sh", "-c", `! mountpoint -q ${folder} || umount ${folder}`], { mayFail: true })).code === 0 ? true : undefined,
  );

/** Runs a command on the guest in a view of the file system of its own, where `hidden` cannot be run. */
const without = (hidden: readonly string[], command: string): Promise<RunResult> => {
  const hide = hidden.map(
    (tool) =>
      `for f in /usr/bin/${tool} /usr/sbin/${tool} /bin/${tool} /sbin/${tool}; do if [ -e $f ]; then mount --bind /var/lib/lab/empty $f; fi; done`,
  );
  return lab.exec(GUEST, ["unshare", "-m", "sh", "-c", `: >/var/lib/lab/empty; chmod 600 /var/lib/lab/empty; ${hide.join("; ")}; ${command}`], {
    mayFail: true,
  });
};

describe("a machine that lacks something is told what, before anything is changed", () => {
  test.each([
    ["wg", "wireguard-tools"],
    ["nft", "nftables"],
    ["ip", "iproute2"],
  ])("without %s the package %s is named", async (tool, name) => {
    const answer = await without([tool], `isthmus join '${some}' --name guest`);
    expect([answer.code, answer.stderr]).toEqual([7, expect.stringMatching(new RegExp(`${tool} \\(package ${name}\\)[^]*apt-get install ${name}`))]);
    expect((await nodes(lab)).length).toBe(OWN.length);
  });

  test("without any WireGuard both ways out are named", async () => {
    const answer = await without(["wireguard-go"], `timeout 20 isthmus join '${some}' --name guest --foreground`);
    expect(answer.code).toBe(7);
    expect(answer.stderr).toMatch(/kernel/);
    expect(answer.stderr).toMatch(/install wireguard-go/);
    expect((await nodes(lab)).length).toBe(OWN.length);
    await lab.exec(GUEST, ["rm", "-rf", "/var/lib/isthmus"]);
  });

  test("without root it says so", async () => {
    for (const command of [["join", some], ["leave"], ["cleanup"], ["agent", "run"]]) {
      const words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", process.execPath, `${REPOSITORY}/cli/main.ts`, ...command];
      const answer = await lab.exec(GUEST, words, { mayFail: true });
      expect([answer.code, answer.stderr]).toEqual([7, expect.stringMatching(/needs root[^]*sudo/)]);
    }
  });

  test("with a port of ours taken by somebody else the port is named, and the rest works", async () => {
    await lab.exec(GUEST, [
      "sh",
      "-c",
      `"${process.execPath}" -e 'require("dgram").createSocket({type:"udp4",reuseAddr:false}).bind(51820)' >/dev/null 2>&1 & echo $! >/var/lib/lab/squatter`,
    ]);
    await startGuest(lab, [some, "--name", "guest"]);
    const said = await eventually(
      "the agent names the port",
      30_000,
      async () => {
        const text = (await lab.exec(GUEST, ["isthmus", "status"], { mayFail: true })).stdout;
        return /UDP port 51820 of ism0 is taken/.test(text) ? text : undefined;
      },
      { everyMs: 300 },
    );
    expect(said).toMatch(/ss -ulpn/);
    await lab.exec(GUEST, ["sh", "-c", "kill $(cat /var/lib/lab/squatter)"]);
    await ready(lab, [...OWN, "guest"]);
    await eventually(
      "the overlay works",
      30_000,
      async () => ((await lab.exec(GUEST, ["ping", "-c1", "-W1", "do1.isthmus"], { mayFail: true })).code === 0 ? true : undefined),
      { everyMs: 300 },
    );
    await forgetGuest(lab, "guest");
  });
});

describe("an agent that loses its files keeps the last good state", () => {
  const ping = async (): Promise<boolean> => (await lab.exec(GUEST, ["ping", "-c1", "-W1", "do1.isthmus"], { mayFail: true })).code === 0;
  const works = (): Promise<true> => eventually("the overlay works", 30_000, async () => ((await ping()) ? true : undefined), { everyMs: 200 });
  const status = async (): Promise<string> => (await lab.exec(GUEST, ["isthmus", "status"], { mayFail: true })).stdout;

  test("a disk that is full is named, and the plan is stored as soon as there is room", async () => {
    await startGuest(lab, [some, "--name", "guest"]);
    await ready(lab, [...OWN, "guest"]);
    await works();
    await lab.exec(GUEST, [
      "sh",
      "-c",
      "cp -a /var/lib/isthmus /var/lib/kept && mount -t tmpfs -o size=128k,mode=700 tmpfs /var/lib/isthmus && cp -a /var/lib/kept/. /var/lib/isthmus/ && dd if=/dev/zero of=/var/lib/isthmus/filler bs=1k 2>/dev/null || true",
    ]);
    // The agent of before holds the folder by its path, as it would when a disk fills up.
    await isthmus(lab, ["create", "site", "later", "--kind", "cloud"]);
    const said = await eventually(
      "the agent says that there is no room",
      30_000,
      async () => {
        const text = await status();
        // Other files of the agent may be written meanwhile and find no room either.
        return /no room to write \/var\/lib\/isthmus\/plan.json/.test(text) ? text : undefined;
      },
      { everyMs: 200 },
    );
    expect(said).toMatch(/DiskFull/);
    expect(await ping()).toBe(true);
    await lab.exec(GUEST, ["rm", "/var/lib/isthmus/filler"]);
    await isthmus(lab, ["delete", "site", "later"]);
    await eventually("the plan is stored", 30_000, async () => (/DiskFull/.test(await status()) ? undefined : true), { everyMs: 200 });
    await stopGuest(lab);
    await unmounted(GUEST, "/var/lib/isthmus");
    await forgetGuest(lab, "guest");
  });

  test("a damaged plan is set aside and said; with the controller dead the kernel keeps what it has", async () => {
    await startGuest(lab, [some, "--name", "guest"]);
    await ready(lab, [...OWN, "guest"]);
    await works();
    await stopGuest(lab);
    await stopService(NAME, "ctl");
    const plan = `${dataOf(lab, GUEST)}/plan.json`;
    await truncate(plan, Math.floor((await stat(plan)).size / 2));
    await startGuest(lab, []);
    await eventually("the damage is said", 20_000, async () => (/plan on disk is damaged.*set aside/.test(await guestLog(lab)) ? true : undefined), {
      everyMs: 100,
    });
    expect(await status()).toMatch(/CacheDamaged/);
    expect(await ping()).toBe(true);
    expect((await readdir(dataOf(lab, GUEST))).some((name) => name.startsWith("plan.json.damaged"))).toBe(true);
    await startService(NAME, "ctl");
    await ready(lab, [...OWN, "guest"]);
    await works();
    await eventually(
      "the new plan is on disk",
      20_000,
      async () => ((await readFile(plan, "utf8").catch(() => "")).startsWith("isthmus-plan 1 ") ? true : undefined),
      { everyMs: 100 },
    );
    await eventually("nothing is said of damage any more", 20_000, async () => (/CacheDamaged +True/.test(await status()) ? undefined : true), {
      everyMs: 100,
    });
    await forgetGuest(lab, "guest");
  });

  test("a damaged identity stops the agent with the remedy, and the data plane stays", async () => {
    await startGuest(lab, [some, "--name", "guest"]);
    await ready(lab, [...OWN, "guest"]);
    await works();
    await stopGuest(lab);
    await writeFile(`${dataOf(lab, GUEST)}/identity.json`, "{");
    const answer = await lab.exec(GUEST, ["isthmus", "agent", "run"], { mayFail: true });
    expect([answer.code, answer.stderr]).toEqual([7, expect.stringMatching(/identity.json cannot be read[^]*isthmus cleanup/)]);
    expect(await ping()).toBe(true);
    await forgetGuest(lab, "guest");
  });
});

describe("a controller", () => {
  const DATA = (): string => `${hostPaths(NAME, "ctl").lib}/isthmus-controller`;
  const run = (more = ""): Promise<RunResult> =>
    lab.exec("ctl", ["sh", "-c", `timeout 20 isthmus controller run --log-level error ${more}`], { mayFail: true });

  test("on a port that is taken names it", async () => {
    const answer = await run("--data /var/lib/second --socket /run/second.sock");
    expect([answer.code, answer.stderr]).toEqual([7, expect.stringMatching(/8443[^]*--listen/)]);
  });

  test("on a full disk refuses a change whole, goes on, and takes it when there is room", async () => {
    await stopService(NAME, "ctl");
    await lab.exec("ctl", [
      "sh",
      "-c",
      "cp -a /var/lib/isthmus-controller /var/lib/kept && mount -t tmpfs -o size=3m,mode=700 tmpfs /var/lib/isthmus-controller && cp -a /var/lib/kept/. /var/lib/isthmus-controller/",
    ]);
    await startService(NAME, "ctl");
    await ready(lab, OWN);
    await lab.exec("ctl", ["isthmus", "backup", "/var/lib/before-full"]);
    const fill = () =>
      lab.exec("ctl", ["sh", "-c", "dd if=/dev/zero of=/var/lib/isthmus-controller/filler bs=1k oflag=append conv=notrunc 2>/dev/null || true"]);
    await fill();
    const documents = Array.from({ length: 300 }, (_, i) =>
      JSON.stringify({
        apiVersion: "isthmus.dev/v1alpha1",
        kind: "Site",
        metadata: { name: `s-${i}`, annotations: { note: randomBytes(1_000).toString("hex") } },
        spec: { kind: "cloud" },
      }),
    ).join("\n---\n");
    const refused = await isthmus(lab, ["apply", "-f", "-"], { mayFail: true, input: documents });
    expect([refused.code, refused.stderr]).toEqual([7, expect.stringMatching(/store\.db: no space left/)]);
    expect(refused.stderr).toMatch(/^try: .*disk space/m);
    expect((await isthmus(lab, ["get", "sites", "-o", "name"])).stdout).not.toMatch(/s-1/);
    await ready(lab, OWN);
    // A restore that has no room takes nothing away either.
    await stopService(NAME, "ctl");
    await fill();
    const restore = await lab.exec("ctl", ["isthmus", "restore", "/var/lib/before-full"], { mayFail: true });
    expect([restore.code, restore.stderr]).toEqual([7, expect.stringMatching(/no space left[^]*disk space/)]);
    await lab.exec("ctl", ["rm", "/var/lib/isthmus-controller/filler"]);
    expect((await lab.exec("ctl", ["ls", "-A", "/var/lib/isthmus-controller"])).stdout).not.toMatch(/restore/);
    await startService(NAME, "ctl");
    await ready(lab, OWN);
    await isthmus(lab, ["create", "site", "roomy", "--kind", "cloud"]);
    await isthmus(lab, ["delete", "site", "roomy"]);
    await stopService(NAME, "ctl");
    await unmounted("ctl", "/var/lib/isthmus-controller");
    await startService(NAME, "ctl");
    await isthmus(lab, ["recovery", "confirm"], { mayFail: true });
    await ready(lab, OWN);
  });

  test("with a damaged store does not start, says what to do, and the agents go on", async () => {
    await lab.exec("ctl", ["isthmus", "backup", "/var/lib/good"]);
    await stopService(NAME, "ctl");
    await rm(`${DATA()}/store.db-wal`, { force: true });
    await writeFile(`${DATA()}/store.db`, randomBytes(40_960), { mode: 0o600 });
    const answer = await run();
    expect([answer.code, answer.stderr]).toEqual([7, expect.stringMatching(/store\.db[^]*isthmus restore/)]);
    expect((await lab.exec("datacenter1", ["ping", "-c1", "-W2", "do1.isthmus"])).code).toBe(0);
    await lab.exec("ctl", ["isthmus", "restore", "/var/lib/good"]);
    await installService(NAME, "ctl", await readFile(`${hostPaths(NAME, "ctl").lib}/lab/service`, "utf8"));
    await startService(NAME, "ctl");
    await ready(lab, OWN);
  });
});
