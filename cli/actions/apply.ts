/** `apply`, and sending documents that a `create` made. */
import { IsthmusError } from "../../mesh/errors.ts";
import type { ApplyResult } from "../../mesh/model/answers.ts";
import { placeOf } from "../../mesh/model/parse.ts";
import { oneLine } from "../../mesh/model/words.ts";
import type { GlobalFlags } from "../cli.ts";
import { apiPath, type Client } from "../client.ts";
import { connect } from "../connect.ts";
import { checkDocuments, type Placed, readDocuments } from "../documents.ts";
import type { Io } from "../io.ts";
import { type AnyObject, list } from "../render/objects.ts";
import { asList, fullName, nameOf, serialise } from "../render/output.ts";

export interface ApplyFlags extends GlobalFlags {
  readonly filename?: readonly string[];
  readonly recursive?: boolean;
  readonly dryRun: boolean;
  /** `--dry-run=client`: no controller is asked. */
  readonly local?: boolean;
  readonly output?: string;
}

export async function applyFiles(io: Io, flags: ApplyFlags): Promise<number> {
  const placed = await readDocuments(io, flags.filename ?? [], flags.recursive);
  const { resources } = checkDocuments(placed, io.now());
  if (flags.local === true) {
    io.out(resources.map((each) => `${fullName(each.kind, each.metadata.name)} is valid (client dry run)\n`).join(""));
    return 0;
  }
  const client = await connect(io, flags);
  const results = await sendDocuments(client, placed, flags.dryRun);
  await printResults(io, results, flags);
  return 0;
}

/** All or nothing. Faults that the controller finds come back with the files' own places. */
export async function sendDocuments(client: Client, placed: readonly Placed[], dryRun: boolean): Promise<readonly ApplyResult[]> {
  try {
    const answer = await client.call("POST", apiPath(["apply"]), { documents: placed.map((each) => each.raw), ...(dryRun ? { dryRun: true } : {}) });
    return list(answer, "results") as readonly ApplyResult[];
  } catch (error) {
    throw error instanceof IsthmusError ? withPlaces(error, placed) : error;
  }
}

/** The controller counts the documents that it got; people count those of their files. */
export function withPlaces(error: IsthmusError, placed: readonly Placed[]): IsthmusError {
  if (error.faults.length === 0) return error;
  const faults = error.faults.map((fault) => {
    const where = fault.document === undefined ? undefined : placed[fault.document]?.where;
    return where === undefined ? fault : { ...fault, ...placeOf(where) };
  });
  return new IsthmusError(error.code, error.message, { faults, ...(error.remedy === undefined ? {} : { remedy: error.remedy }) });
}

export async function printResults(
  io: Io,
  results: readonly ApplyResult[],
  flags: { readonly dryRun: boolean; readonly output?: string | undefined },
): Promise<void> {
  for (const result of results)
    for (const warning of result.warnings ?? []) io.err(`warning: ${fullName(result.kind, result.name)}: ${oneLine(warning)}\n`);
  const objects = results.map((result) => result.object as AnyObject);
  if (flags.output === "json" || flags.output === "yaml") {
    io.out(await serialise(objects.length === 1 ? objects[0] : asList(objects), flags.output));
    return;
  }
  const suffix = flags.dryRun ? " (server dry run)" : "";
  const line = (result: ApplyResult): string =>
    flags.output === "name"
      ? nameOf({ kind: result.kind, metadata: { name: result.name } })
      : `${fullName(result.kind, result.name)} ${result.action}${suffix}`;
  io.out(results.map((result) => `${line(result)}\n`).join(""));
}
