/** What the lab's commands print for people. */
import { lostHosts } from "./expected.ts";
import { describeFault } from "./faults.ts";
import type { GapReport } from "./gap.ts";
import type { Lab, LabStatus } from "./lab.ts";

export function renderStatus(status: LabStatus): string {
  const rows = status.hosts.map((host) => [
    host.name,
    host.role,
    host.site ?? "-",
    host.power,
    host.service ?? "-",
    host.addresses.join(","),
    host.publicAddress ?? "-",
  ]);
  const head = ["HOST", "ROLE", "SITE", "POWER", "SERVICE", "ADDRESSES", "SEEN-AS"];
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)));
  const table = [head, ...rows].map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join("  ")
      .trimEnd(),
  );
  const lost = status.joined ? lostHosts(status) : [];
  const broken = status.faults.length > 0 ? `broken: ${status.faults.map(describeFault).join(", ")}` : lost.length > 0 ? "" : "nothing is broken";
  const names = lost.map(({ name, power }) => `${name} (${power === "off" ? "off" : "service stopped"})`).join(", ");
  const half = lost.length === 0 ? "" : `not running, though nobody failed them: ${names}; \`isthmus lab down\` and \`up\` make the lab anew`;
  const state = [broken, half].filter((part) => part !== "").join("; ");
  return `lab ${status.name}, since ${status.createdAt}; ${state}\n\n${table.join("\n")}\n`;
}

export function renderGap(report: GapReport): string {
  const rtt = report.rttMs === undefined ? "" : `, rtt ${report.rttMs.min}/${report.rttMs.median}/${report.rttMs.max} ms (min/median/max)`;
  const share = report.sent === 0 ? 0 : (100 * report.lost) / report.sent;
  return `${report.sent} sent, ${report.lost} lost (${share.toFixed(1)} %), longest gap ${report.longestGapMs} ms${rtt}\n`;
}

/** What to try next. Only what this lab has. `command`: how the reader called us. */
export function renderHint(lab: Lab, seconds: number, isDefault: boolean, command = "isthmus"): string {
  const flag = isDefault ? "" : ` --name ${lab.name}`;
  const internet = lab.topology.hosts.find((host) => host.role === "internet")?.nics[0]?.address;
  const gateway = lab.topology.hosts.find((host) => host.role === "node" && host.labels["egress"] === "true")?.name;
  const client = lab.topology.hosts.find((host) => host.role === "node" && host.site !== undefined && host.name !== gateway)?.name;
  const curl =
    client === undefined || internet === undefined
      ? []
      : [[`${command} lab exec${flag} ${client} -- curl -s http://${internet}`, "the address that the internet sees"]];
  const tries: string[][] = lab.state.joined
    ? [
        [`${command} get nodes -o wide`, "who is where"],
        ...curl,
        ...(gateway === undefined ? [] : [[`${command} lab fail${flag} node ${gateway}`, "power off, no goodbye; then ask again"]]),
        ...(client === undefined || internet === undefined ? [] : [[`${command} explain ${client} ${internet}`, "which way, and why"]]),
        [`${command} lab heal${flag}`, "all back"],
      ]
    : [[`${command} lab status${flag}`, "hosts and addresses"], ...curl];
  const width = Math.max(...tries.map(([line]) => line!.length));
  const lines = tries.map(([line, why]) => `  ${line!.padEnd(width)}   # ${why}`);
  return `\nlab ${lab.name} is up (${seconds.toFixed(1)} s). Try:\n${lines.join("\n")}\n  ${command} lab down${flag}\n`;
}
