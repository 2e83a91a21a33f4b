/**
 * The table `inet isthmus`. The body is replaced in one transaction, elements of sets are changed one by one. Whether
 * someone changed the table by hand is seen by a digest of how the kernel lists it, kept beside the body that made it.
 */
import { createHash } from "node:crypto";
import type { IsthmusError } from "../../mesh/errors.ts";
import type { Operation } from "../../mesh/kernel/operations.ts";
import { NFT_TABLE, type NftTable } from "../../mesh/kernel/types.ts";
import { must, refused, run } from "./exec.ts";
import { read } from "./reading.ts";
import type { RecordStore } from "./records.ts";

type NftOperation = Extract<Operation, { op: "nft.replace" | "nft.elements" | "nft.remove" }>;

const TABLE = `inet ${NFT_TABLE}`;
const ELEMENTS = /^\s*elements = \{([^}]*)\}\n/gm;

export async function observeNft(records: RecordStore): Promise<NftTable | undefined> {
  const listed = await list();
  if (listed === undefined) return undefined;
  const kept = records.read().nft;
  return { body: kept?.digest === digestOf(listed) ? kept.body : listed.replace(ELEMENTS, ""), sets: setsOf(listed) };
}

/** One transaction for all; either every operation succeeds or none. */
export async function applyNft(operations: readonly NftOperation[], records: RecordStore): Promise<IsthmusError | undefined> {
  const { ok, stderr } = await run("nft", ["-f", "-"], { input: operations.map(script).join("\n") });
  if (!ok) return refused("nft", stderr);
  const replaced = operations.findLast((one) => one.op === "nft.replace");
  if (replaced !== undefined) {
    const listed = await list();
    if (listed !== undefined) records.note((all) => ({ ...all, nft: { body: replaced.table.body, digest: digestOf(listed) } }));
  }
  return undefined;
}

function script(operation: NftOperation): string {
  switch (operation.op) {
    case "nft.replace":
      return [
        `add table ${TABLE}`,
        `delete table ${TABLE}`,
        `table ${TABLE} {`,
        operation.table.body,
        "}",
        ...[...operation.table.sets].map(([set, elements]) => elementLine("add", set, elements)),
        "",
      ].join("\n");
    case "nft.elements":
      return `${elementLine("delete", operation.set, operation.remove)}\n${elementLine("add", operation.set, operation.add)}\n`;
    case "nft.remove":
      return `add table ${TABLE}\ndelete table ${TABLE}\n`;
  }
}

function elementLine(action: "add" | "delete", set: string, elements: readonly string[]): string {
  return elements.length === 0 ? "" : `${action} element ${TABLE} ${set} { ${elements.join(", ")} }`;
}

async function list(): Promise<string | undefined> {
  const { ok, stdout, stderr } = await read("nft", ["-s", "list", "table", "inet", NFT_TABLE]);
  if (ok) return stdout;
  if (/No such file/i.test(stderr)) return undefined;
  throw refused("nft list table", stderr);
}

function digestOf(listed: string): string {
  return createHash("sha256").update(listed.replace(ELEMENTS, "")).digest("hex");
}

/** Elements as prefixes: nft lists a single address without its length. */
function setsOf(listed: string): Map<string, readonly string[]> {
  const sets = new Map<string, readonly string[]>();
  for (const block of listed.matchAll(/^\tset (\S+) \{\n([\s\S]*?)^\t\}/gm)) {
    const [, name, content] = block;
    const elements = /elements = \{([^}]*)\}/.exec(content ?? "")?.[1] ?? "";
    const texts = elements
      .split(",")
      .map((one) => one.trim())
      .filter((one) => one !== "");
    if (name !== undefined)
      sets.set(
        name,
        texts.map((one) => (one.includes("/") || one.includes("-") ? one : `${one}/${one.includes(":") ? 128 : 32}`)),
      );
  }
  return sets;
}

/** Base chains of others at the forward hook that drop by policy: DATAPLANE §6, `ForwardingBlocked`. */
export async function foreignForwardDrops(): Promise<
  { readonly family: string; readonly table: string; readonly chain: string; readonly accepts: boolean }[]
> {
  const text = await must("nft", ["-j", "list", "ruleset"]).catch(() => "");
  if (text === "") return [];
  interface Row {
    readonly chain?: { readonly family: string; readonly table: string; readonly name: string; readonly hook?: string; readonly policy?: string };
    readonly rule?: { readonly family: string; readonly table: string; readonly chain: string; readonly expr: unknown };
  }
  const rows = (JSON.parse(text) as { readonly nftables: readonly Row[] }).nftables;
  const chains = rows.flatMap(({ chain }) => (chain === undefined || chain.table === NFT_TABLE || chain.hook !== "forward" ? [] : [chain]));
  // Usually there is none: thousands of rules need not be read each half minute.
  if (chains.length === 0) return [];
  const opens = rows.flatMap(({ rule }) =>
    rule !== undefined && /"ism/.test(JSON.stringify(rule.expr)) && /"accept"/.test(JSON.stringify(rule.expr))
      ? [`${rule.family} ${rule.table}`]
      : [],
  );
  return chains.flatMap((chain) => {
    const dropsAll =
      chain.policy === "drop" ||
      rows.some(
        ({ rule }) =>
          rule?.table === chain.table &&
          rule.family === chain.family &&
          rule.chain === chain.name &&
          /^\[(\{"counter":[^}]*\},?)?\{"(drop|reject)":/.test(JSON.stringify(rule.expr)),
      );
    return dropsAll
      ? [{ family: chain.family, table: chain.table, chain: chain.name, accepts: opens.includes(`${chain.family} ${chain.table}`) }]
      : [];
  });
}
