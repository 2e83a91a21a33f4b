/** Nexthop objects with our protocol. */
import type { Nexthop } from "../../mesh/kernel/types.ts";
import { PROTOCOL } from "../../mesh/kernel/types.ts";
import { ABSENT, ipJson, type IpFamily, type IpLine } from "./ip.ts";

interface NexthopRow {
  readonly id: number;
  readonly dev?: string;
  readonly group?: readonly { readonly id: number }[];
}

export async function observeNexthops(): Promise<Map<number, Nexthop>> {
  const rows = await ipJson<NexthopRow>(["nexthop", "show", "proto", String(PROTOCOL)]);
  const nexthops = rows.map(({ id, dev, group }): Nexthop => {
    const members = group?.map((member) => member.id).sort((a, b) => a - b);
    return { id, ...(dev === undefined ? {} : { dev }), ...(members === undefined ? {} : { group: members }) };
  });
  return new Map(nexthops.sort((a, b) => a.id - b.id).map((nexthop) => [nexthop.id, nexthop]));
}

/** A v6 device nexthop serves both families, a v4 one only v4; a group is refused with any family. */
export function nexthopFamily(nexthop: Nexthop): IpFamily {
  return nexthop.dev !== undefined && nexthop.family === undefined ? "6" : "any";
}

export function nexthopLine(action: "replace" | "remove", nexthop: Nexthop): IpLine {
  if (action === "remove") return { line: `nexthop del id ${nexthop.id}`, fine: ABSENT };
  const what = nexthop.dev === undefined ? `group ${(nexthop.group ?? []).join("/")}` : `dev ${nexthop.dev}`;
  return { line: `nexthop replace id ${nexthop.id} ${what} protocol ${PROTOCOL}` };
}
