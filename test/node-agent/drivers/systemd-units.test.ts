/** A host with a systemd that is made up: its process 1 is the test's own, and `systemctl` never ends. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isRoot } from "../netns.ts";

const DRIVER = join(import.meta.dirname, "../../../node-agent/drivers/wireguard.ts");

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "isthmus-units-"));
  mkdirSync(join(folder, "bin"));
  writeFileSync(join(folder, "bin/systemctl"), `#!/bin/sh\necho "$*" >>${folder}/asked\nexec sleep 600\n`, { mode: 0o755 });
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Removes an interface where process 1, its network and its mounts are those of the caller, and says what it did besides. */
function removed(name: string, setup: string): { forgot: string[]; there: boolean } {
  const script = `
    const { removeLink } = await import(${JSON.stringify(DRIVER)});
    const { existsSync } = await import("node:fs");
    const forgot = [];
    await removeLink(${JSON.stringify(name)}, ${JSON.stringify(folder)}, { forget: (name) => forgot.push(name) });
    console.log(JSON.stringify({ forgot, there: existsSync("/sys/class/net/${name}") }));
    process.exit();`;
  const world = "mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/wireguard";
  const inside = `${world} && ${setup} && PATH=${folder}/bin:$PATH exec "$0" --input-type=module -e "$1"`;
  const args = ["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", inside, process.execPath, script];
  return JSON.parse(execFileSync("unshare", args, { encoding: "utf8" })) as { forgot: string[]; there: boolean };
}
const asked = (): string => (existsSync(join(folder, "asked")) ? readFileSync(join(folder, "asked"), "utf8") : "");

test.runIf(isRoot)("an interface of the kernel goes without a question to systemd", () => {
  expect(removed("ismg1", "ip link add ismg1 type veth peer name other")).toEqual({ forgot: ["ismg1"], there: false });
  expect(asked()).toBe("");
});

test.runIf(isRoot)("an interface of a process goes with its unit, and whole where systemd does not answer", () => {
  const pidFile = join(folder, "wireguard-go.ismg1.pid");
  writeFileSync(pidFile, "999999 1\n");
  expect(removed("ismg1", "ip tuntap add ismg1 mode tun")).toEqual({ forgot: ["ismg1"], there: false });
  expect(asked()).toBe("kill --signal=SIGKILL isthmus-wg@ismg1.service\n");
  expect(existsSync(pidFile)).toBe(false);
  rmSync(join(folder, "asked"));
  expect(removed("ismg1", "ip tuntap add ismg1 mode tun").there).toBe(false);
  expect(asked()).toContain("isthmus-wg@ismg1.service");
});
