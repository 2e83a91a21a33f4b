/** A managed block in the hosts file. Everything outside its two marker lines stays byte for byte. */
import { chmodSync, chownSync, readFileSync, renameSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import type { IpAddress } from "../../mesh/model/scalars.ts";

const BEGIN = "# isthmus begin: kept by the isthmus agent, changes are overwritten";
const END = "# isthmus end";
const BLOCK = /\n?# isthmus begin[^\n]*\n[\s\S]*?# isthmus end\n?/;

type Hosts = ReadonlyMap<string, readonly IpAddress[]>;

export function observeHosts(file: string): Map<string, readonly IpAddress[]> {
  const hosts = new Map<string, IpAddress[]>();
  for (const line of BLOCK.exec(readText(file))?.[0].split("\n") ?? []) {
    const [address, ...names] = line.trim().split(/\s+/);
    if (address === undefined || address === "" || address.startsWith("#")) continue;
    for (const name of names) hosts.set(name, [...(hosts.get(name) ?? []), address as IpAddress]);
  }
  return hosts;
}

/** An empty map removes the block. */
export function writeHosts(file: string, hosts: Hosts): void {
  const before = readText(file);
  const outside = before.replace(BLOCK, "\n").replace(/^\n$/, "");
  const rest = outside === "" || outside.endsWith("\n") ? outside : `${outside}\n`;
  const after = hosts.size === 0 ? rest : `${rest}${[BEGIN, ...linesOf(hosts), END].join("\n")}\n`;
  if (after !== before) replaceText(file, after);
}

/** One line an address: `10.101.0.3 do1.isthmus do1`. */
function linesOf(hosts: Hosts): string[] {
  const names = new Map<IpAddress, string[]>();
  for (const [name, addresses] of hosts) for (const address of addresses) names.set(address, [...(names.get(address) ?? []), name]);
  return [...names].map(([address, all]) => [address, ...all].join(" "));
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
    throw error;
  }
}

function replaceText(file: string, text: string): void {
  const temporary = `${file}.isthmus-new`;
  try {
    writeFileSync(temporary, text, { flush: true });
    const now = statSync(file, { throwIfNoEntry: false });
    chmodSync(temporary, now === undefined ? 0o644 : now.mode & 0o777);
    if (now !== undefined) chownSync(temporary, now.uid, now.gid);
    renameSync(temporary, file);
  } catch {
    // In containers the hosts file is a mount of its own, which cannot be renamed over.
    try {
      unlinkSync(temporary);
    } catch {
      // It was not made.
    }
    writeFileSync(file, text, { flush: true });
  }
}
