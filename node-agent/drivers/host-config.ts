/**
 * What the host's own network managers must be told so that they leave us alone (DATAPLANE §6). Everything written is
 * recorded and undone by cleanup.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { basename, dirname } from "node:path";
import { IsthmusError } from "../../mesh/errors.ts";
import { makeFolders } from "../../mesh/folders.ts";
import { dropHalves, writeAtomic } from "../whole-file.ts";
import { type Ran, run } from "./exec.ts";
import { foreignForwardDrops } from "./nft.ts";
import type { RecordStore } from "./records.ts";
import { systemdOwnsThisHost } from "./wireguard-go.ts";

interface ConfigFile {
  readonly path: string;
  readonly text: string;
  /** Makes the manager read it. */
  readonly reload: readonly (readonly string[])[];
}

const NETWORKD: readonly ConfigFile[] = [
  {
    path: "/etc/systemd/networkd.conf.d/50-isthmus.conf",
    // networkd removes foreign routes, rules and nexthops by default; older versions warn of the key that they do not know.
    text: "# Made by isthmus.\n[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\nManageForeignNextHops=no\n",
    reload: [["systemctl", "try-restart", "systemd-networkd.service"]],
  },
  {
    path: "/etc/systemd/network/05-isthmus.network",
    text: "# Made by isthmus.\n[Match]\nName=ism*\n\n[Link]\nUnmanaged=yes\n",
    reload: [["networkctl", "reload"]],
  },
];
/** What `nmcli` says of `lo` where it has no profile of its own; versions before 1.42 do not list it. */
const WITHOUT_PROFILE: ReadonlySet<string | undefined> = new Set([undefined, "lo:connected (externally)", "lo:unmanaged"]);

/**
 * Since 1.42 it manages `lo` too, where our addresses are: `nmcli networking off` takes every address from it that it did not give,
 * and all IPv6 routes that are unreachable by it. Where it is to give some itself it keeps `lo`, and the agent puts ours back.
 */
const NETWORK_MANAGER = {
  path: "/etc/NetworkManager/conf.d/50-isthmus.conf",
  text: "# Made by isthmus.\n[keyfile]\nunmanaged-devices+=interface-name:ism*;interface-name:lo\n",
  textWithLoopback: "# Made by isthmus; lo has a profile of its own.\n[keyfile]\nunmanaged-devices+=interface-name:ism*\n",
  reload: [["nmcli", "general", "reload", "conf"]],
};

const UNITS = {
  networkd: "systemd-networkd.service",
  networkManager: "NetworkManager.service",
  docker: "docker.service",
  firewalld: "firewalld.service",
} as const;

/**
 * Only on the host itself: a network namespace of a lab or a container has no network manager of its own. Cheap when
 * nothing changed, so that it can be called again and again.
 * @param told what firewalld was told, and which run of it: each question to it starts a Python
 */
export async function configureHost(records: RecordStore, udpPorts: readonly number[], told: Map<string, string>): Promise<string[]> {
  if (!systemdOwnsThisHost()) return [];
  const runs = await activeRuns(Object.values(UNITS));
  const said: string[] = [];
  if (runs.has(UNITS.networkd)) for (const file of NETWORKD) said.push(...(await writeConfig(records, file)));
  if (runs.has(UNITS.networkManager)) said.push(...(await tellNetworkManager(records)));
  if (runs.has(UNITS.docker)) said.push(...(await openDocker(records)));
  const firewalld = runs.get(UNITS.firewalld);
  const now = firewalld === undefined ? "" : `${firewalld} ${udpPorts.join()}`;
  if (firewalld !== undefined && told.get(UNITS.firewalld) !== now) said.push(...(await openFirewalld(records, udpPorts)));
  told.set(UNITS.firewalld, now);
  return said;
}

/** `ip filter FORWARD`-like names of chains that drop forwarded packets and have no rule for our interfaces. */
export async function forwardingBlockers(): Promise<string[]> {
  const drops = await foreignForwardDrops();
  return [...new Set(drops.filter(({ accepts }) => !accepts).map(({ family, table, chain }) => `table ${family} ${table}, chain ${chain}`))].sort();
}

/** Undoes what `configureHost` recorded. */
export async function undoHostConfig(records: RecordStore): Promise<string[]> {
  const said: string[] = [];
  for (const command of records.read().undo.toReversed()) {
    await tryRun(command);
    said.push(`ran ${command.join(" ")}`);
  }
  for (const path of records.read().files) {
    rmSync(path, { force: true });
    dropHalves(dirname(path), basename(path));
    said.push(`removed ${path}`);
    // NetworkManager reads it at its next start: a loopback that it takes back before loses the addresses of others (tried with 1.42).
    for (const command of NETWORKD.find((file) => file.path === path)?.reload ?? []) await tryRun(command);
  }
  records.update((all) => ({ ...all, files: [], undo: [] }));
  return said;
}

async function writeConfig(records: RecordStore, file: ConfigFile): Promise<string[]> {
  if (existsSync(file.path) && readFileSync(file.path, "utf8") === file.text) return [];
  records.update((all) => (all.files.includes(file.path) ? all : { ...all, files: [...all.files, file.path] }));
  makeReadable(dirname(file.path));
  writeAtomic(file.path, file.text, { mode: 0o644 });
  for (const command of file.reload) await tryRun(command);
  return [`wrote ${file.path}`];
}

async function tellNetworkManager(records: RecordStore): Promise<string[]> {
  const { path, text, textWithLoopback, reload } = NETWORK_MANAGER;
  if (existsSync(path) && [text, textWithLoopback].includes(readFileSync(path, "utf8"))) return [];
  const devices = await answered(["nmcli", "-t", "-f", "DEVICE,STATE", "device"]);
  // Where it does not answer nobody knows whether lo has a profile, and what is written stays: it is asked again later.
  if (devices !== undefined && !devices.ok) return [];
  const loopback = (devices?.stdout ?? "").split("\n").find((line) => line.startsWith("lo:"));
  return writeConfig(records, { path, text: WITHOUT_PROFILE.has(loopback) ? text : textWithLoopback, reload });
}

/** Whatever our umask is: systemd-networkd reads as a user of its own. */
function makeReadable(folder: string): void {
  const mkdirWhole = (path: string, { mode }: { readonly mode: number }): void => {
    mkdirSync(path, { mode });
    chmodSync(path, mode);
  };
  makeFolders(folder, 0o755, { mkdirSync: mkdirWhole, statSync }, "make it by hand, for all to read");
}

/** Docker sets the policy of FORWARD to drop; DOCKER-USER is the chain that it leaves to others. */
async function openDocker(records: RecordStore): Promise<string[]> {
  const said: string[] = [];
  for (const tool of ["iptables", "ip6tables"]) {
    for (const side of ["-i", "-o"]) {
      const rule = [side, "ism+", "-m", "comment", "--comment", "isthmus", "-j", "ACCEPT"];
      if (await tryRun([tool, "-C", "DOCKER-USER", ...rule])) continue;
      const undo = [tool, "-D", "DOCKER-USER", ...rule];
      if (!(await tryRun([tool, "-I", "DOCKER-USER", ...rule]))) continue;
      recordUndo(records, undo);
      said.push(`${tool}: forwarding over ism* accepted in DOCKER-USER`);
    }
  }
  return said;
}

/** @throws KernelRefused when firewalld takes one of them not */
async function openFirewalld(records: RecordStore, udpPorts: readonly number[]): Promise<string[]> {
  const said: string[] = [];
  const refused: string[] = [];
  const wanted = [["--zone=trusted", "interface", "ism+"], ...udpPorts.map((port) => ["", "port", `${port}/udp`])];
  for (const [zone = "", what = "", value = ""] of wanted) {
    const zoned = zone === "" ? [] : [zone];
    if (await tryRun(["firewall-cmd", ...zoned, `--query-${what}=${value}`])) continue;
    const took: boolean[] = [];
    for (const lasting of [[], ["--permanent"]]) {
      const worked = await tryRun(["firewall-cmd", ...lasting, ...zoned, `--add-${what}=${value}`]);
      took.push(worked);
      if (worked) recordUndo(records, ["firewall-cmd", ...lasting, ...zoned, `--remove-${what}=${value}`]);
    }
    (took[0] === true ? said : refused).push(`${what} ${value}`);
  }
  if (refused.length > 0) throw new IsthmusError("KernelRefused", `firewalld did not accept ${refused.join(", ")}`);
  return said.map((one) => `firewalld: ${one} accepted`);
}

/** Once, however often a reboot took away what it undoes. */
function recordUndo(records: RecordStore, command: readonly string[]): void {
  const text = command.join(" ");
  records.update((all) => (all.undo.some((one) => one.join(" ") === text) ? all : { ...all, undo: [...all.undo, command] }));
}

/** Which of the units are active, and what tells this run of each from an earlier one. */
async function activeRuns(units: readonly string[]): Promise<Map<string, string>> {
  const shown = await run("systemctl", ["show", "--property=ActiveState,InvocationID", ...units]);
  const blocks = shown.stdout.trim().split(/\n\n+/);
  return new Map(
    units.flatMap((unit, i): [string, string][] => {
      const lines = blocks[i]?.split("\n") ?? [];
      return lines.includes("ActiveState=active") ? [[unit, lines.find((line) => line.startsWith("InvocationID=")) ?? ""]] : [];
    }),
  );
}

/** A manager whose tool is missing has nothing to be told. */
async function tryRun(command: readonly string[]): Promise<boolean> {
  return (await answered(command))?.ok === true;
}

async function answered([tool = "", ...args]: readonly string[]): Promise<Ran | undefined> {
  try {
    return await run(tool, args);
  } catch (error) {
    if (error instanceof IsthmusError && error.code === "ToolMissing") return undefined;
    throw error;
  }
}
