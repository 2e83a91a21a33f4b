/** Our addresses on `lo`. They carry a metric by which we know them: the address protocol is too new for iproute2 6.1. */
import type { LoAddress } from "../../mesh/kernel/types.ts";
import { ABSENT, ipJson, type IpLine, PRESENT } from "./ip.ts";

const OUR_METRIC = 157_157;

interface AddressRow {
  readonly addr_info: readonly { readonly local: string; readonly prefixlen: number; readonly metric?: number }[];
}

export async function observeAddresses(): Promise<Set<LoAddress>> {
  const rows = await ipJson<AddressRow>(["address", "show", "dev", "lo"]);
  const ours = rows.flatMap(({ addr_info }) => addr_info).filter(({ metric }) => metric === OUR_METRIC);
  return new Set(ours.map(({ local, prefixlen }) => `${local}/${prefixlen}` as LoAddress));
}

export function addressLine(action: "add" | "remove", address: LoAddress): IpLine {
  if (action === "remove") return { line: `address del ${address} dev lo`, fine: ABSENT };
  return { line: `address replace ${address} dev lo${address.includes(":") ? " nodad" : ""} metric ${OUR_METRIC}`, fine: PRESENT };
}
