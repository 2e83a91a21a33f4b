/** What should be there, from what runs and what was broken on purpose. Pure. */
import type { Fault } from "./blueprint.ts";
import type { HostStatus, LabStatus } from "./lab.ts";

/** Nodes that a controller which runs again should hear from: those that no other fault keeps away. */
export function expectedBack({ hosts, faults }: Pick<LabStatus, "hosts" | "faults">): string[] {
  const broken = new Set(faults.flatMap(hostsOf));
  const cutSites = new Set(hosts.filter(({ name, role }) => role === "router" && broken.has(name)).flatMap(({ site }) => site ?? []));
  const running = hosts.filter(({ name, role, power, site }) => role === "node" && power === "on" && !broken.has(name) && !cutSites.has(site ?? ""));
  return running.map(({ name }) => name);
}

/** Hosts that do not run although nobody broke them: somebody killed half of the lab. */
export function lostHosts({ hosts, faults }: Pick<LabStatus, "hosts" | "faults">): HostStatus[] {
  const broken = new Set(faults.flatMap(hostsOf));
  return hosts.filter(({ name, power, service }) => !broken.has(name) && (power === "off" || service === "stopped"));
}

function hostsOf(fault: Fault): string[] {
  return fault.kind === "link" ? [fault.a, fault.b] : [fault.host];
}
