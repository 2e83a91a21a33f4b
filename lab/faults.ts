/** Breaking things on purpose, and putting them right. Faults are levels: what is recorded is what is broken. */
import { clientFor } from "../cli/client.ts";
import { IsthmusError } from "../mesh/errors.ts";
import { blocks, type Fault } from "./blueprint.ts";
import { boot, plugIn, powerOff, serviceProcesses, startService, stopService } from "./machine.ts";
import { hostPaths, netnsName, WORLD } from "./names.ts";
import { kill, processesUnder } from "./process.ts";
import { each, ipBatch, run } from "./shell.ts";
import { addFault, initOf, type LabState, listFaults, removeFault } from "./state.ts";
import { type Host, hostNamed, type Topology } from "./topology.ts";

export const FAULT_KINDS = ["node", "uplink", "link", "carrier", "agent", "controller", "wireguard"] as const;
/** Instead of an interface's name: the link that egress goes by now. */
const ACTIVE = "active";
export type FaultKind = (typeof FAULT_KINDS)[number];

/** From `fail KIND NAME…` to faults. @throws IsthmusError when the names do not fit the kind. */
export function parseFaults(topology: Topology, kind: FaultKind, names: readonly string[]): Fault[] {
  const hosts = (what: string): Host[] => {
    if (names.length === 0)
      throw new IsthmusError("BadRequest", `fail ${kind} needs ${what}`, { remedy: `For example: isthmus lab fail ${kind} do1.` });
    return names.map((name) => hostNamed(topology, name));
  };
  switch (kind) {
    case "node":
    case "carrier":
      return hosts("the name of a host").map((host) => ({ kind, host: host.name }));
    case "uplink": {
      // A site that is behind NAT has one uplink: its router's.
      const routers = names.map((name) => topology.sites.find((site) => site.name === name)?.router ?? name);
      if (routers.length === 0) hosts("a host, or a site behind NAT");
      return routers.map((name) => ({ kind, host: hostNamed(topology, name).name }));
    }
    case "link": {
      const [a, b, ...more] = hosts("two hosts");
      if (a === undefined || b === undefined || more.length > 0 || a === b) {
        throw new IsthmusError("BadRequest", "fail link needs two hosts", { remedy: "For example: isthmus lab fail link datacenter1 do1." });
      }
      return [{ kind, a: a.name, b: b.name }];
    }
    case "agent":
      return hosts("the name of a node").map((host) => ({ kind, host: mustBe(host, "node") }));
    case "controller": {
      const controller = topology.hosts.find((host) => host.role === "controller");
      for (const name of names)
        if (hostNamed(topology, name).name !== controller?.name)
          throw new IsthmusError("BadRequest", `the controller stands on ${controller?.name ?? "no host"}, not on ${name}`, {
            remedy: `Write \`isthmus lab fail controller\`, or \`isthmus lab fail agent ${name}\`.`,
          });
      return controller === undefined ? [] : [{ kind, host: controller.name }];
    }
    case "wireguard": {
      const [name, ifname, ...more] = names;
      if (name === undefined || more.length > 0) throw new IsthmusError("BadRequest", "fail wireguard needs a node, and an interface if not ism0");
      return [{ kind, host: mustBe(hostNamed(topology, name), "node"), interface: ifname ?? "ism0" }];
    }
    default:
      kind satisfies never;
      return [];
  }
}

function mustBe(host: Host, role: Host["role"]): string {
  if (host.role !== role) throw new IsthmusError("BadRequest", `${host.name} has no agent: its role is ${host.role}`);
  return host.name;
}

/** Breaks it. Breaking what is broken already changes nothing. */
export async function inject(state: LabState, fault: Fault): Promise<void> {
  const { name: lab, topology } = state;
  const broken = await listFaults(lab);
  // The agent puts it back by itself: nothing stays broken.
  if (fault.kind === "wireguard") return killWireGuard(state, fault.host, fault.interface);
  await addFault(lab, fault);
  switch (fault.kind) {
    case "node":
      await powerOff(lab, topology, hostNamed(topology, fault.host));
      return;
    case "uplink":
    case "link":
    case "carrier":
      await applyBlocks(state, [...broken, fault], broken);
      return;
    case "agent":
    case "controller":
      if ((await initOf(lab, fault.host)) !== undefined) await stopService(lab, fault.host);
      return;
    default:
      fault satisfies never;
  }
}

/** Puts right every recorded fault that `which` accepts; gives back what it healed. Hosts boot in parallel. */
export async function healFaults(state: LabState, which: (fault: Fault) => boolean = () => true): Promise<Fault[]> {
  const { name: lab, topology } = state;
  const before = await listFaults(lab);
  const healed = before.filter(which);
  const left = before.filter((fault) => !healed.includes(fault));
  await each(healed, 16, (fault) => removeFault(lab, fault));
  const dead = healed.flatMap((fault) => (fault.kind === "node" ? [hostNamed(topology, fault.host)] : []));
  if (dead.length > 0) {
    await plugIn(lab, topology, dead);
    await each(dead, 8, (host) => boot(lab, host));
  }
  await applyBlocks(state, left, before);
  for (const fault of healed) {
    if (fault.kind !== "agent" && fault.kind !== "controller") continue;
    if ((await initOf(lab, fault.host)) !== undefined) await startService(lab, fault.host);
  }
  // A host that was powered on while its agent is meant to stay dead.
  for (const fault of left) {
    if ((fault.kind === "agent" || fault.kind === "controller") && dead.some((host) => host.name === fault.host)) await stopService(lab, fault.host);
  }
  return healed;
}

/** Brings switches and routers to what the faults say, in one transaction each. */
async function applyBlocks(state: LabState, now: readonly Fault[], before: readonly Fault[]): Promise<void> {
  const { name: lab, topology } = state;
  const wanted = blocks(topology, now);
  const had = blocks(topology, before);
  const up = [...had.down].filter((link) => !wanted.down.has(link)).map((link) => `link set ${link} up`);
  const down = [...wanted.down].map((link) => `link set ${link} down`);
  // Without -force a link that a dead host took along would hide the rest.
  if (up.length + down.length > 0) await ipBatch([...down, ...up], netnsName(lab, WORLD), { force: true });
  const off = new Set(now.flatMap((fault) => (fault.kind === "node" ? [fault.host] : [])));
  for (const [at, pairs] of wanted.pairs) {
    if (off.has(at)) continue;
    const changed = pairs.join() !== (had.pairs.get(at) ?? []).join();
    if (!changed && pairs.length === 0) continue;
    const tables = at === WORLD ? ["inet lab", "bridge lab"] : ["inet lab"];
    const lines = tables.flatMap((table) => [
      `flush set ${table} pairs`,
      ...(pairs.length === 0 ? [] : [`add element ${table} pairs { ${pairs.join(", ")} }`]),
    ]);
    await run(["nsenter", `--net=/run/netns/${netnsName(lab, at)}`, "nft", "-f", "-"], { input: `${lines.join("\n")}\n` });
  }
}

/** Kills the process behind a userspace interface; a kernel interface is deleted. */
async function killWireGuard(state: LabState, host: string, named: string): Promise<void> {
  const init = await initOf(state.name, host);
  if (init === undefined) throw new IsthmusError("Unreachable", `${host} is powered off`);
  const ifname = named === ACTIVE ? await activeLink(state.name, host) : named;
  const mine = processesUnder(init).filter((one) => one.argv[0]?.endsWith("wireguard-go") === true && one.argv.includes(ifname));
  for (const one of mine) kill(one);
  if (mine.length > 0) return;
  const deleted = await run(["ip", "-n", netnsName(state.name, host), "link", "del", ifname], { mayFail: true });
  if (deleted.code !== 0)
    throw new IsthmusError("NotFound", `${host} has no WireGuard interface ${ifname}`, {
      remedy: `See them: isthmus lab exec ${host} -- wg show interfaces.`,
    });
}

/** The interface of the gateway that the node's first egress path goes by now, as its agent says. */
async function activeLink(lab: string, host: string): Promise<string> {
  const socket = `${hostPaths(lab, host).run}/isthmus/agent.sock`;
  const status = (await clientFor({ name: host, socket }).call("GET", "/status")) as AgentPaths;
  const path = status.paths.find((one) => one.id.startsWith("egress/")) ?? status.paths[0];
  const link = status.links.find((one) => one.gateway === path?.active[0]);
  if (link === undefined) throw new IsthmusError("NotFound", `${host} sends nothing over a gateway link now`);
  return link.interface;
}

interface AgentPaths {
  readonly paths: readonly { readonly id: string; readonly active: readonly string[] }[];
  readonly links: readonly { readonly gateway: string; readonly interface: string }[];
}

/** `heal`'s words: nothing is everything; a kind, a host or a site's name picks the faults that carry it. */
export function matchesWords(topology: Topology, words: readonly string[]): (fault: Fault) => boolean {
  const kinds = words.filter((word) => (FAULT_KINDS as readonly string[]).includes(word));
  const names = words
    .filter((word) => !kinds.includes(word))
    .map((word) => topology.sites.find((site) => site.name === word && !topology.hosts.some((h) => h.name === word))?.router ?? word);
  for (const name of names) hostNamed(topology, name);
  return (fault) => {
    const of = fault.kind === "link" ? [fault.a, fault.b] : [fault.host];
    return (kinds.length === 0 || kinds.includes(fault.kind)) && names.every((name) => of.includes(name));
  };
}

export function describeFault(fault: Fault): string {
  if (fault.kind === "link") return `link ${fault.a} ${fault.b}`;
  return fault.kind === "wireguard" ? `wireguard ${fault.host} ${fault.interface}` : `${fault.kind} ${fault.host}`;
}

/** Whether the host's service runs now (agent, controller, internet services). */
export async function serviceRuns(lab: string, host: string): Promise<boolean> {
  return (await serviceProcesses(lab, host)).length > 0;
}
