/**
 * Nexthop objects: devices with our protocol, groups with the kernel's. systemd-networkd takes away the groups of others whenever it
 * configures a link, also where it is told not to (systemd issue 29034), but none that says to be the kernel's; and the kernel
 * makes no nexthop objects of its own. So a group is ours by its protocol and the range of its number.
 */
import { FLOW_GROUP, PATH_GROUP, PATH_GROUPS } from "../../mesh/kernel/layout.ts";
import type { Nexthop } from "../../mesh/kernel/types.ts";
import { PROTOCOL } from "../../mesh/kernel/types.ts";
import { ABSENT, ipJson, type IpFamily, type IpLine } from "./ip.ts";

const GROUP_PROTOCOL = 2;

interface NexthopRow {
  readonly id: number;
  readonly protocol?: string;
  readonly dev?: string;
  readonly group?: readonly { readonly id: number }[];
}

export async function observeNexthops(): Promise<Map<number, Nexthop>> {
  // A filter by protocol would be two questions, and leaves the protocol out of the answer.
  const rows = (await ipJson<NexthopRow>(["nexthop", "show"])).filter(isOurs);
  const nexthops = rows.map(({ id, dev, group }): Nexthop => {
    const members = group?.map((member) => member.id).sort((a, b) => a - b);
    return { id, ...(dev === undefined ? {} : { dev }), ...(members === undefined ? {} : { group: members }) };
  });
  return new Map(nexthops.sort((a, b) => a.id - b.id).map((nexthop) => [nexthop.id, nexthop]));
}

function isOurs({ id, protocol, group }: NexthopRow): boolean {
  if (protocol === String(PROTOCOL)) return true;
  return group !== undefined && protocol === String(GROUP_PROTOCOL) && id >= FLOW_GROUP && id < PATH_GROUP + PATH_GROUPS;
}

/** A v6 device nexthop serves both families, a v4 one only v4; a group is refused with any family. */
export function nexthopFamily(nexthop: Nexthop): IpFamily {
  return nexthop.dev !== undefined && nexthop.family === undefined ? "6" : "any";
}

export function nexthopLine(action: "replace" | "remove", nexthop: Nexthop): IpLine {
  if (action === "remove") return { line: `nexthop del id ${nexthop.id}`, fine: ABSENT };
  const what =
    nexthop.dev === undefined ? `group ${(nexthop.group ?? []).join("/")} protocol ${GROUP_PROTOCOL}` : `dev ${nexthop.dev} protocol ${PROTOCOL}`;
  return { line: `nexthop replace id ${nexthop.id} ${what}` };
}
