/**
 * What tells this machine from a copy of its disk: machine-id, the firmware's UUID and the hardware addresses of physical
 * interfaces. Keys and cache are bound to it. `ISTHMUS_MACHINE_ID` and `ISTHMUS_BOOT_ID` stand in for them where several
 * nodes share one machine (the lab).
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** SHA-256, hex. */
export function machineId(env: NodeJS.ProcessEnv = process.env, root = "/"): string {
  const given = env["ISTHMUS_MACHINE_ID"];
  const parts =
    given === undefined
      ? [line(join(root, "etc/machine-id")), line(join(root, "sys/class/dmi/id/product_uuid")), ...hardwareAddresses(root)]
      : [given];
  return createHash("sha256").update(parts.join("\n")).digest("hex");
}

export function bootId(env: NodeJS.ProcessEnv = process.env): string {
  return env["ISTHMUS_BOOT_ID"] ?? line("/proc/sys/kernel/random/boot_id");
}

/** Addresses of interfaces that a device stands behind; virtual ones come and go. */
function hardwareAddresses(root: string): string[] {
  const base = join(root, "sys/class/net");
  try {
    return readdirSync(base)
      .filter((name) => existsSync(join(base, name, "device")))
      .map((name) => line(join(base, name, "address")))
      .filter((address) => address !== "")
      .toSorted();
  } catch {
    return [];
  }
}

function line(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}
