/**
 * Units, where systemd runs. `KillMode=process`: wireguard-go and keepalived are started outside the agent's group, and
 * whatever is not must still outlive a restart of the agent (I2).
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { IsthmusError } from "../mesh/errors.ts";
import { run } from "./drivers/exec.ts";
import type { Places } from "./files.ts";

const UNIT = "isthmus-agent.service";
const FOLDER = "/etc/systemd/system";

/** As sd_booted(3) decides it. */
export function systemdRuns(): boolean {
  return existsSync("/run/systemd/system");
}

export function unitText(at: Places, command: string): string {
  return `[Unit]
Description=Isthmus node agent
Documentation=file:${join(import.meta.dirname, "../docs/operations.md")}
# Not after network-online.target: nothing is waited for that may not come. Until the agent runs nothing keeps what is meant
# for the overlay off the underlay.
After=network.target
StartLimitIntervalSec=0

[Service]
ExecStart=${word(command)} agent run --data ${word(at.data)} --run ${word(at.run)}
Restart=always
RestartSec=1
# The data plane stays when the agent stops: only the agent's own process is killed.
KillMode=process
OOMScoreAdjust=-500
RuntimeDirectory=${at.run === "/run/isthmus" ? "isthmus" : ""}
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
NoNewPrivileges=yes

[Install]
WantedBy=multi-user.target
`;
}

/** One word of a command line, taken as it is: systemd.service(5) expands `%` and `$`, and splits at spaces. */
function word(text: string): string {
  const plain = text.replaceAll("%", "%%").replaceAll("$", "$$$$");
  return /^[\w./:@%$+=,-]+$/.test(plain) ? plain : `"${plain.replaceAll(/["\\]/g, "\\$&")}"`;
}

/** Writes the unit, enables and starts it. */
export async function installUnit(at: Places, signal: AbortSignal): Promise<void> {
  const launcher = join(import.meta.dirname, "../isthmus");
  writeFileSync(join(FOLDER, UNIT), unitText(at, launcher), { mode: 0o644 });
  await systemctl(["daemon-reload"], signal);
  await systemctl(["enable", "--now", UNIT], signal);
}

/** Stops and removes the unit; absent is fine. `stop: false` when the caller is the unit itself. */
export async function removeUnit(options: { readonly stop: boolean }, signal: AbortSignal): Promise<boolean> {
  const path = join(FOLDER, UNIT);
  if (!existsSync(path)) return false;
  if (systemdRuns()) await systemctl(options.stop ? ["disable", "--now", UNIT] : ["disable", UNIT], signal).catch(() => {});
  rmSync(path, { force: true });
  if (systemdRuns()) await systemctl(["daemon-reload"], signal).catch(() => {});
  return true;
}

/** What ends the agent of that process: systemd starts again what is killed in a unit of ours. */
export function stopCommand(pid: string): string {
  const unit = unitIn(controlGroupsOf(pid));
  return unit === undefined ? `kill ${pid}` : `systemctl stop ${unit}`;
}

function controlGroupsOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cgroup`, "utf8");
  } catch {
    // It has ended meanwhile.
    return "";
  }
}

/** The unit of ours in the text of /proc/PID/cgroup (cgroups(7)). */
export function unitIn(controlGroups: string): string | undefined {
  return /\/([^/\n]*isthmus[^/\n]*\.service)$/m.exec(controlGroups)?.[1];
}

async function systemctl(args: readonly string[], signal: AbortSignal): Promise<void> {
  const { ok, stderr } = await run("systemctl", args, { signal, timeoutMs: 30_000 });
  if (ok) return;
  throw new IsthmusError("Internal", `systemctl ${args.join(" ")} failed: ${stderr.trim()}`, {
    remedy: "see `systemctl status isthmus-agent` and `journalctl -u isthmus-agent`",
  });
}
