/** Sysctls. The value before our first write is recorded, so that it can be put back. */
import { readFileSync, writeFileSync } from "node:fs";
import { IsthmusError } from "../../mesh/errors.ts";
import { ipJson } from "./ip.ts";
import type { RecordStore } from "./records.ts";

/** Dots separate, slashes inside a part stand for dots of an interface name (sysctl.d(5)). */
function fileOf(name: string): string {
  return `/proc/sys/${name
    .split(".")
    .map((part) => part.replaceAll("/", "."))
    .join("/")}`;
}

function read(name: string): string | undefined {
  try {
    return readFileSync(fileOf(name), "utf8").trim();
  } catch {
    return undefined;
  }
}

/** Those that we ever set and that still exist (an interface takes its own with it). */
export function observeSysctls(records: RecordStore): Map<string, string> {
  const found = Object.keys(records.read().sysctls).flatMap((name): [string, string][] => {
    const value = read(name);
    return value === undefined ? [] : [[name, value]];
  });
  return new Map(found);
}

export async function setSysctl(name: string, value: string, records: RecordStore): Promise<void> {
  const before = read(name);
  if (before === undefined) throw new IsthmusError("KernelRefused", `sysctl ${name}: the kernel has no such setting`);
  records.update((all) => (name in all.sysctls ? all : { ...all, sysctls: { ...all.sysctls, [name]: before } }));
  if (before === value) return;
  const guarded = name === "net.ipv6.conf.all.forwarding";
  const routes = guarded ? await routerRoutes() : 0;
  write(name, value);
  // I9: a host that lives by router advertisements must not lose its default route by forwarding.
  if (guarded && (await routerRoutes().catch(() => 0)) < routes) {
    write(name, before);
    throw new IsthmusError(
      "KernelRefused",
      `sysctl ${name}: the IPv6 default route from router advertisements went away, so forwarding was switched off again`,
      {
        remedy: "set accept_ra=2 on the uplink, or give the host a static IPv6 default route",
      },
    );
  }
}

export function restoreSysctl(name: string, records: RecordStore): void {
  const before = records.read().sysctls[name];
  if (before === undefined) return;
  if (read(name) !== undefined) write(name, before);
  records.update((all) => {
    const { [name]: _, ...sysctls } = all.sysctls;
    return { ...all, sysctls };
  });
}

function write(name: string, value: string): void {
  try {
    writeFileSync(fileOf(name), value);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new IsthmusError(
      code === "EACCES" || code === "EPERM" || code === "EROFS" ? "NotRoot" : "KernelRefused",
      `sysctl ${name}=${value}: ${code}`,
      {
        remedy: "run isthmus as root; in a container, allow it to write /proc/sys",
        cause,
      },
    );
  }
}

/** rtnetlink(7): protocol 9 is RTPROT_RA. */
async function routerRoutes(): Promise<number> {
  return (await ipJson(["-6", "route", "show", "default", "proto", "9"])).length;
}
