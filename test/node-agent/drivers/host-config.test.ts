/** What the host's managers are told, with tools of our own making in namespaces where process 1 is ours. Needs root. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";

const isRoot = process.getuid?.() === 0;

/** Each keeps its rules as lines of a file in $STATE, and a manager runs while its file `active.UNIT` exists. */
const TOOLS: Readonly<Record<string, string>> = {
  systemctl: `case "$1" in
    show) shift; first=1; for unit; do case "$unit" in -*) continue;; esac
      [ $first = 1 ] || echo; first=0
      if [ -e "$STATE/active.$unit" ]; then echo "InvocationID=$(cat "$STATE/active.$unit")"; echo ActiveState=active
      else echo InvocationID=; echo ActiveState=inactive; fi; done;;
    *) echo "systemctl $*" >>"$STATE/calls";; esac`,
  nmcli: 'case "$*" in *device) cat "$STATE/devices";; *) echo "nmcli $*" >>"$STATE/calls";; esac',
  networkctl: 'echo "networkctl $*" >>"$STATE/calls"',
  iptables: `tool=$(basename "$0"); how=$1; shift; touch "$STATE/$tool"
    case $how in
    -C) grep -qxF -- "$*" "$STATE/$tool";;
    -I) echo "$*" >>"$STATE/$tool";;
    -D) grep -qxF -- "$*" "$STATE/$tool" || exit 1; grep -vxF -- "$*" "$STATE/$tool" >"$STATE/$tool.new"; mv "$STATE/$tool.new" "$STATE/$tool";;
    esac`,
  "firewall-cmd": `echo "$*" >>"$STATE/firewall-calls"; file=$STATE/firewalld; touch "$file"
    line=$(echo "$*" | sed -E 's/--(add|remove|query)-//')
    case "$*" in
    *--query-*) grep -qxF -- "$line" "$file";;
    *--add-*) [ ! -e "$STATE/deaf" ] && echo "$line" >>"$file";;
    *--remove-*) grep -vxF -- "$line" "$file" >"$file.new"; mv "$file.new" "$file";;
    esac`,
};

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ist-f-host-"));
  mkdirSync(join(folder, "bin"));
  for (const [name, script] of Object.entries(TOOLS)) writeFileSync(join(folder, "bin", name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  writeFileSync(join(folder, "bin/ip6tables"), `#!/bin/sh\n${TOOLS["iptables"]}\n`, { mode: 0o755 });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs the script in namespaces of its own, with an empty /etc and /run; the value of `out` comes back. */
function onHost(script: string): unknown {
  const state = mkdtempSync(join(folder, "state-"));
  const head = `
    const { existsSync, readFileSync, rmSync, statSync, writeFileSync } = await import("node:fs");
    const { configureHost, undoHostConfig } = await import(${JSON.stringify(resolve("node-agent/drivers/host-config.ts"))});
    const { openRecords } = await import(${JSON.stringify(resolve("node-agent/drivers/records.ts"))});
    const state = process.env.STATE;
    const records = openRecords(state + "/data");
    const start = (unit, invocation = "1") => writeFileSync(state + "/active." + unit, invocation);
    const lines = (name) => existsSync(state + "/" + name) ? readFileSync(state + "/" + name, "utf8").trim().split("\\n").filter(Boolean) : [];
    const told = new Map();
    const configure = (ports = [51820]) => configureHost(records, ports, told);
    const out = [];
  `;
  const inside = 'mount -t tmpfs none /etc && mount -t tmpfs none /run && mkdir -p /run/systemd/system && exec "$@"';
  const args = ["-mnp", "--fork", "--mount-proc", "--kill-child", "sh", "-c", inside, "sh", process.execPath, "--input-type=module", "-e"];
  const said = execFileSync("unshare", [...args, `${head}${script}\nconsole.log(JSON.stringify(out));`], {
    encoding: "utf8",
    timeout: 60_000,
    killSignal: "SIGKILL",
    env: { PATH: `${join(folder, "bin")}:${process.env["PATH"] ?? ""}`, STATE: state },
  });
  return JSON.parse(said);
}

test.runIf(isRoot)("Docker that starts after the agent is told; rules that a reboot took away are told again and recorded once", () => {
  const out = onHost(`
    out.push((await configure()).length);
    start("docker.service");
    out.push((await configure()).length, lines("iptables").length, lines("ip6tables").length, records.read().undo.length);
    out.push((await configure()).length);
    rmSync(state + "/iptables"); rmSync(state + "/ip6tables");
    out.push((await configure()).length, lines("iptables").length, records.read().undo.length);
    await undoHostConfig(records);
    out.push(lines("iptables").length + lines("ip6tables").length, existsSync(state + "/data/kernel.json"));
  `);
  expect(out).toEqual([0, 4, 2, 2, 4, 0, 4, 2, 4, 0, false]);
});

test.runIf(isRoot)("firewalld is asked again only when it was started anew or the ports changed; what it was told goes with cleanup", () => {
  const out = onHost(`
    start("firewalld.service");
    out.push((await configure()).length, lines("firewalld").length);
    const asked = lines("firewall-calls").length;
    out.push((await configure()).length, lines("firewall-calls").length - asked);
    out.push(await configure([51820, 51830]));
    start("firewalld.service", "2"); rmSync(state + "/firewalld");
    out.push((await configure([51820, 51830])).length, records.read().undo.length);
    await undoHostConfig(records);
    out.push(lines("firewalld"));
  `);
  expect(out).toEqual([2, 4, 0, 0, ["firewalld: port 51830/udp accepted"], 3, 6, []]);
});

test.runIf(isRoot)("a firewalld that takes nothing is named, and asked again", () => {
  const out = onHost(`
    start("firewalld.service");
    writeFileSync(state + "/deaf", "");
    out.push(await configure().catch((error) => error.message));
    rmSync(state + "/deaf");
    out.push((await configure()).length);
  `);
  expect(out).toEqual(["firewalld did not accept interface ism+, port 51820/udp", 2]);
});

test.runIf(isRoot)("networkd gets its files once, and loses them at cleanup", () => {
  const out = onHost(`
    start("systemd-networkd.service");
    out.push(await configure(), await configure());
    out.push(existsSync("/etc/systemd/network/05-isthmus.network"));
    await undoHostConfig(records);
    out.push(existsSync("/etc/systemd/network/05-isthmus.network"), lines("calls"));
  `);
  expect(out).toEqual([
    ["wrote /etc/systemd/networkd.conf.d/50-isthmus.conf", "wrote /etc/systemd/network/05-isthmus.network"],
    [],
    true,
    false,
    ["systemctl try-restart systemd-networkd.service", "networkctl reload", "systemctl try-restart systemd-networkd.service", "networkctl reload"],
  ]);
});

test.runIf(isRoot)("NetworkManager is told of lo too, unless that has a profile; taking it back is left to its next start", () => {
  const out = onHost(`
    start("NetworkManager.service");
    // It does not answer: nobody knows yet.
    out.push((await configure()).length);
    for (const state_ of ["connecting (prepare)", "connected (externally)", "connected", "unmanaged"]) {
      writeFileSync(state + "/devices", "enp1s0:connected\\nlo:" + state_ + "\\n");
      out.push((await configure()).length, (await configure()).length);
      out.push(readFileSync("/etc/NetworkManager/conf.d/50-isthmus.conf", "utf8").includes(";interface-name:lo\\n"));
      if (state_ !== "unmanaged") await undoHostConfig(records);
      out.push(existsSync("/etc/NetworkManager/conf.d/50-isthmus.conf"));
    }
    // What an older version wrote is written anew.
    writeFileSync("/etc/NetworkManager/conf.d/50-isthmus.conf", "# Made by isthmus.\\n[keyfile]\\nunmanaged-devices+=interface-name:ism*\\n");
    out.push(await configure(), lines("calls").length);
  `);
  const rounds = [
    [0],
    [1, 0, false, false],
    [1, 0, true, false],
    [1, 0, false, false],
    [1, 0, true, true],
    [["wrote /etc/NetworkManager/conf.d/50-isthmus.conf"], 5],
  ];
  expect(out).toEqual(rounds.flat());
});

test.runIf(isRoot)("networkd, which reads as a user of its own, can read what it is told, whatever umask the agent has", () => {
  const out = onHost(`
    process.umask(0o077);
    start("systemd-networkd.service");
    await configure();
    for (const path of ["/etc/systemd", "/etc/systemd/networkd.conf.d", "/etc/systemd/networkd.conf.d/50-isthmus.conf", "/etc/systemd/network/05-isthmus.network"])
      out.push((statSync(path).mode & 0o777).toString(8));
  `);
  expect(out).toEqual(["755", "755", "644", "644"]);
});

test.runIf(isRoot)(
  "a folder that cannot be made is named with what to do, also where the one above it is there and mkdir says that it is not",
  () => {
    const out = onHost(`
    const { execFileSync } = await import("node:child_process");
    execFileSync("sh", ["-c", "mkdir /etc/systemd && mount -t proc none /etc/systemd"]);
    start("systemd-networkd.service");
    out.push(await configure().catch(({ code, message, remedy }) => [code, message.split(":")[0], remedy]));
  `);
    expect(out).toEqual([["FileMode", "the folder /etc/systemd/networkd.conf.d cannot be made", "make it by hand, for all to read"]]);
  },
);
