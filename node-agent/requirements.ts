/** What the machine must have before anything is made: root and tools, each named with the package that brings it. */
import { accessSync, constants, realpathSync } from "node:fs";
import { basename, join } from "node:path";
import { IsthmusError } from "../mesh/errors.ts";
import type { Plan } from "../mesh/model/plan.ts";

const TOOLS = [
  { command: "ip", package: "iproute2" },
  { command: "wg", package: "wireguard-tools" },
  { command: "nft", package: "nftables" },
] as const;

/** @throws NotRoot */
export function requireRoot(what: string): void {
  if (process.getuid?.() === 0) return;
  throw new IsthmusError("NotRoot", `${what} changes interfaces and routes and needs root`, { remedy: `run it with sudo` });
}

/** @throws ToolMissing naming every missing tool and the packages */
export function requireTools(path: string = process.env["PATH"] ?? ""): void {
  const missing = TOOLS.filter(({ command }) => !isInstalled(command, path));
  if (missing.length === 0) return;
  const packages = missing.map((tool) => tool.package).join(" ");
  throw new IsthmusError("ToolMissing", `missing on this machine: ${missing.map((tool) => `${tool.command} (package ${tool.package})`).join(", ")}`, {
    remedy: `apt-get install ${packages} (or the same with this system's package manager)`,
  });
}

/** @throws NoWireGuard when the kernel has none and wireguard-go is not installed */
export function requireWireguard(inKernel: boolean, path: string = process.env["PATH"] ?? ""): void {
  if (inKernel || isInstalled("wireguard-go", path)) return;
  throw new IsthmusError("NoWireGuard", "this machine has no WireGuard: its kernel has no such module, and wireguard-go is not installed", {
    remedy: "apt-get install wireguard-go (or the same with this system's package manager), or boot a kernel with the wireguard module",
  });
}

/** What a plan's own checks cannot be made with, as a condition says it: they fail, and nobody would know why. */
export function missingForChecks(plan: Plan | undefined, folders: readonly string[] = toolFolders()): string | undefined {
  const checks = [...(plan?.serves.values() ?? [])].flatMap(({ uplink }) => uplink);
  const routes = [...(plan?.lanRoutes.values() ?? [])].map(({ health }) => health);
  if (![...checks, ...routes].some(({ type }) => type === "icmp") || isIn("ping", folders)) return undefined;
  return "checks of type icmp fail because ping is not installed; apt-get install iputils-ping (or the same with this system's package manager)";
}

/** What works worse because a tool is missing, as a condition says it, with what fails. */
export function missingHelp(plan: Plan | undefined, folders: readonly string[] = toolFolders()): string | undefined {
  if (plan === undefined) return undefined;
  const parts = [missingForChecks(plan, folders)];
  if (!hasIputilsPing(folders))
    parts.push("how large packets get through to peers is not measured because ping of iputils is not installed; apt-get install iputils-ping");
  if (!isIn("conntrack", folders)) parts.push("a drain waits for its timeout because conntrack is not installed; apt-get install conntrack");
  const said = parts.filter((part) => part !== undefined);
  return said.length === 0 ? undefined : said.join("; ");
}

/** BusyBox has a ping that cannot forbid fragments. */
function hasIputilsPing(folders: readonly string[]): boolean {
  const found = folders.find((folder) => isIn("ping", [folder]));
  return found !== undefined && basename(realpathSync(join(found, "ping"))) !== "busybox";
}

export function isInstalled(command: string, path: string = process.env["PATH"] ?? ""): boolean {
  return isIn(command, toolFolders(path));
}

function toolFolders(path: string = process.env["PATH"] ?? ""): string[] {
  return [...path.split(":"), "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
}

function isIn(command: string, folders: readonly string[]): boolean {
  return folders.some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
