/**
 * What the host's own network managers must be told so that they leave us alone (DATAPLANE §6). Everything written is
 * recorded and undone by cleanup.
 */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { IsthmusError } from "../../mesh/errors.ts";
import { run } from "./exec.ts";
import { foreignForwardDrops } from "./nft.ts";
import { type RecordStore, writeAtomically } from "./records.ts";
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
const NETWORK_MANAGER: ConfigFile = {
  path: "/etc/NetworkManager/conf.d/50-isthmus.conf",
  text: "# Made by isthmus.\n[keyfile]\nunmanaged-devices+=interface-name:ism*\n",
  reload: [["nmcli", "general", "reload", "conf"]],
};

/** Only on the host itself: a network namespace of a lab or a container has no network manager of its own. */
export async function configureHost(records: RecordStore, udpPorts: readonly number[]): Promise<string[]> {
  if (!systemdOwnsThisHost()) return [];
  const said: string[] = [];
  if (await isActive("systemd-networkd.service")) for (const file of NETWORKD) said.push(...(await writeConfig(records, file)));
  if (await isActive("NetworkManager.service")) said.push(...(await writeConfig(records, NETWORK_MANAGER)));
  if (await isActive("docker.service")) said.push(...(await openDocker(records)));
  if (await isActive("firewalld.service")) said.push(...(await openFirewalld(records, udpPorts)));
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
  const known = [...NETWORKD, NETWORK_MANAGER];
  for (const path of records.read().files) {
    rmSync(path, { force: true });
    said.push(`removed ${path}`);
    for (const command of known.find((file) => file.path === path)?.reload ?? []) await tryRun(command);
  }
  records.update((all) => ({ ...all, files: [], undo: [] }));
  return said;
}

async function writeConfig(records: RecordStore, file: ConfigFile): Promise<string[]> {
  if (existsSync(file.path) && readFileSync(file.path, "utf8") === file.text) return [];
  records.update((all) => (all.files.includes(file.path) ? all : { ...all, files: [...all.files, file.path] }));
  writeAtomically(file.path, file.text, 0o644);
  for (const command of file.reload) await tryRun(command);
  return [`wrote ${file.path}`];
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
      records.update((all) => ({ ...all, undo: [...all.undo, undo] }));
      said.push(`${tool}: forwarding over ism* accepted in DOCKER-USER`);
    }
  }
  return said;
}

async function openFirewalld(records: RecordStore, udpPorts: readonly number[]): Promise<string[]> {
  const said: string[] = [];
  const wanted = [["--zone=trusted", "interface", "ism+"], ...udpPorts.map((port) => ["", "port", `${port}/udp`])];
  for (const [zone = "", what = "", value = ""] of wanted) {
    const zoned = zone === "" ? [] : [zone];
    if (await tryRun(["firewall-cmd", ...zoned, `--query-${what}=${value}`])) continue;
    for (const lasting of [[], ["--permanent"]]) {
      if (!(await tryRun(["firewall-cmd", ...lasting, ...zoned, `--add-${what}=${value}`]))) continue;
      records.update((all) => ({ ...all, undo: [...all.undo, ["firewall-cmd", ...lasting, ...zoned, `--remove-${what}=${value}`]] }));
    }
    said.push(`firewalld: ${what} ${value} accepted`);
  }
  return said;
}

async function isActive(unit: string): Promise<boolean> {
  return tryRun(["systemctl", "is-active", "--quiet", unit]);
}

/** A manager whose tool is missing has nothing to be told. */
async function tryRun([tool = "", ...args]: readonly string[]): Promise<boolean> {
  try {
    return (await run(tool, args)).ok;
  } catch (error) {
    if (error instanceof IsthmusError && error.code === "ToolMissing") return false;
    throw error;
  }
}
