/**
 * What tells this machine from a copy of its disk: machine-id and the firmware's UUID; where there is none, the hardware
 * addresses of physical interfaces. Keys and cache are bound to it. `ISTHMUS_MACHINE_ID` and `ISTHMUS_BOOT_ID` stand in for them where several
 * nodes share one machine (the lab).
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const MACHINE_ID = "etc/machine-id";
const PRODUCT_UUID = "sys/class/dmi/id/product_uuid";
/** Absent, or what firmware says that was never given one. */
const NO_UUID = /^[0-]*$|^[f-]*$/i;

/** SHA-256, hex. */
export function machineId(env: NodeJS.ProcessEnv = process.env, root = "/"): string {
  const given = env["ISTHMUS_MACHINE_ID"];
  if (given !== undefined) return hash([given]);
  const uuid = line(join(root, PRODUCT_UUID));
  // The machine's id lies on its disk: alone it cannot tell a copy of that. Interfaces are plugged in and out.
  return hash([line(join(root, MACHINE_ID)), ...(NO_UUID.test(uuid) ? hardwareAddresses(root) : [uuid])]);
}

/** The id of this machine in the form that is on record: earlier versions hashed interfaces in any case. */
export function machineIdLike(stored: string, env: NodeJS.ProcessEnv = process.env, root = "/"): string {
  if (env["ISTHMUS_MACHINE_ID"] !== undefined) return machineId(env, root);
  const earlier = hash([line(join(root, MACHINE_ID)), line(join(root, PRODUCT_UUID)), ...hardwareAddresses(root)]);
  return stored === earlier ? earlier : machineId(env, root);
}

function hash(parts: readonly string[]): string {
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
