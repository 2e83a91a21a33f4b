/** `delete`. */
import { z } from "zod";
import { IsthmusError } from "../../mesh/errors.ts";
import { KINDS, type Kind } from "../../mesh/model/resources.ts";
import { oneLine } from "../../mesh/model/words.ts";
import { expandTargets, getObject, selectorQuery } from "../api.ts";
import type { GlobalFlags } from "../cli.ts";
import { apiPath, type Client } from "../client.ts";
import { connect } from "../connect.ts";
import { checkDocuments, readDocuments } from "../documents.ts";
import type { Io } from "../io.ts";
import { type Target, targetsOf } from "../kinds.ts";
import { fullName } from "../render/output.ts";

/** Of the answer, what is told. */
const Deleted = z.object({ warnings: z.array(z.string()).optional() });

export interface DeleteFlags extends GlobalFlags {
  readonly filename?: readonly string[];
  readonly recursive?: boolean;
  readonly selector?: string;
  readonly all?: boolean;
  readonly ignoreNotFound?: boolean;
  readonly dryRun: boolean;
}

export async function deleteObjects(io: Io, words: readonly string[], flags: DeleteFlags): Promise<number> {
  const fromFiles =
    flags.filename === undefined ? [] : named(checkDocuments(await readDocuments(io, flags.filename, flags.recursive), io.now()).resources);
  if (words.length === 0 && flags.filename === undefined)
    throw new IsthmusError("BadRequest", "nothing is named", { remedy: "Write KIND NAME…, KIND/NAME…, or -f FILE." });
  const targets = words.length === 0 ? [] : targetsOf(words);
  const selector = selectorQuery(flags.selector);
  if (targets.some((target) => target.name === undefined) && selector === undefined && flags.all !== true) {
    throw new IsthmusError("BadRequest", "which ones is not said", { remedy: "Name them, select them with -l, or give --all." });
  }
  const client = await connect(io, flags);
  // A misspelt name deletes nothing. Of what a file names a part may be gone already: that is left to each one's turn.
  const problems = flags.ignoreNotFound === true ? [] : await missing(client, targets);
  for (const { message } of problems) io.err(`error: ${message}; nothing was deleted\n`);
  if (problems[0] !== undefined) return problems[0].exit;
  const doomed = [...fromFiles, ...(await expandTargets(client, targets, selector))];
  if (doomed.length === 0) io.err("Nothing to delete.\n");
  let status = 0;
  for (const { kind, name } of doomed) {
    try {
      const path = apiPath(["resources", KINDS[kind].plural, name], { dryRun: flags.dryRun ? 1 : undefined });
      const { warnings = [] } = Deleted.parse(await client.call("DELETE", path));
      for (const warning of warnings) io.err(`warning: ${fullName(kind, name)}: ${oneLine(warning)}\n`);
      io.out(`${fullName(kind, name)} deleted${flags.dryRun ? " (server dry run)" : ""}\n`);
    } catch (error) {
      if (!(error instanceof IsthmusError) || error.code !== "NotFound") throw error;
      if (flags.ignoreNotFound === true) continue;
      io.err(`error: ${error.message}\n`);
      status = error.exit;
    }
  }
  return status;
}

async function missing(client: Client, targets: readonly Target[]): Promise<IsthmusError[]> {
  const problems: IsthmusError[] = [];
  for (const { kind, name } of targets) {
    if (name === undefined) continue;
    await getObject(client, kind, name).catch((error: unknown) => {
      if (!(error instanceof IsthmusError) || error.code !== "NotFound") throw error;
      problems.push(error);
    });
  }
  return problems;
}

function named(resources: readonly { readonly kind: Kind; readonly metadata: { readonly name: string } }[]): { kind: Kind; name: string }[] {
  // The other way round than they are made: routes go before the sites that they name.
  return resources.map(({ kind, metadata }) => ({ kind, name: metadata.name })).reverse();
}
