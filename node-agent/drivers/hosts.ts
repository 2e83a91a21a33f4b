/** A managed block in the hosts file. Everything outside its two marker lines stays byte for byte. */
import { closeSync, constants, fsyncSync, ftruncateSync, openSync, readFileSync, statSync, writeSync } from "node:fs";
import { asIsthmusError } from "../../mesh/errors.ts";
import type { IpAddress } from "../../mesh/model/scalars.ts";
import { onDisk, readIfThere } from "../files.ts";
import { writeAtomic } from "../whole-file.ts";

const BEGIN = "# isthmus begin: kept by the isthmus agent, changes are overwritten";
const FIRST = "# isthmus begin";
const END = "# isthmus end";
/** From a first marker to its last one: where someone deleted that, what follows is not ours up to some later one. */
const BLOCK = /^# isthmus begin[^\n]*\n(?:(?!# isthmus begin)[^\n]*\n)*?# isthmus end(?:\n|$)/gm;

type Hosts = ReadonlyMap<string, readonly IpAddress[]>;

export function observeHosts(file: string): Map<string, readonly IpAddress[]> {
  const hosts = new Map<string, IpAddress[]>();
  for (const line of ((readIfThere(file) ?? "").match(BLOCK) ?? []).flatMap((block) => block.split("\n"))) {
    const [address, ...names] = line.trim().split(/\s+/);
    if (address === undefined || address === "" || address.startsWith("#")) continue;
    for (const name of names) hosts.set(name, [...(hosts.get(name) ?? []), address as IpAddress]);
  }
  return hosts;
}

/** An empty map removes the block. */
export function writeHosts(file: string, hosts: Hosts): void {
  const before = readIfThere(file) ?? "";
  const outside = withoutOrphans(before.replace(BLOCK, ""), new Set(linesOf(hosts)));
  const rest = outside === "" || outside.endsWith("\n") ? outside : `${outside}\n`;
  const after = hosts.size === 0 ? rest : `${rest}${[BEGIN, ...linesOf(hosts), END].join("\n")}\n`;
  if (after !== before) replaceText(file, after);
}

/** Without first markers that lost their last one, and without the lines right after them that would be written again. */
function withoutOrphans(text: string, ours: ReadonlySet<string>): string {
  let after = false;
  const kept = text.split("\n").filter((line) => {
    const marker = line.startsWith(FIRST);
    after = marker || (after && ours.has(line));
    return !after;
  });
  return kept.join("\n");
}

/** One line an address: `10.101.0.3 do1.isthmus do1`. */
function linesOf(hosts: Hosts): string[] {
  const names = new Map<IpAddress, string[]>();
  for (const [name, addresses] of hosts) for (const address of addresses) names.set(address, [...(names.get(address) ?? []), name]);
  return [...names].map(([address, all]) => [address, ...all].join(" "));
}

/** Whole or not at all: on a full disk the file stays as it is. @throws DiskFull, FileMode */
function replaceText(file: string, text: string): void {
  const now = statSync(file, { throwIfNoEntry: false });
  try {
    writeAtomic(file, text, now === undefined ? { mode: 0o644 } : { mode: now.mode & 0o777, owner: now });
  } catch (error) {
    if (asIsthmusError(error).code === "DiskFull") throw error;
    // In containers the hosts file is a mount of its own, which cannot be renamed over, in a folder that may be read-only.
    overwrite(file, text);
  }
}

/** In place; what was there comes back where the new text finds no room. */
function overwrite(file: string, text: string): void {
  onDisk(file, () => {
    const handle = openSync(file, constants.O_RDWR | constants.O_CREAT, 0o644);
    const before = readFileSync(handle);
    const put = (bytes: Uint8Array): void => {
      for (let at = 0; at < bytes.length;) at += writeSync(handle, bytes, at, bytes.length - at, at);
      ftruncateSync(handle, bytes.length);
      fsyncSync(handle);
    };
    try {
      put(Buffer.from(text));
    } catch (error) {
      put(before);
      throw error;
    } finally {
      closeSync(handle);
    }
  });
}
