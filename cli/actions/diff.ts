/** `diff`. */
import { IsthmusError } from "../../mesh/errors.ts";
import type { NodeDiff } from "../../mesh/model/answers.ts";
import type { GlobalFlags } from "../cli.ts";
import { apiPath } from "../client.ts";
import { connect } from "../connect.ts";
import { checkDocuments, readDocuments } from "../documents.ts";
import type { Io } from "../io.ts";
import { targetsOf } from "../kinds.ts";
import { renderDiff } from "../render/diff.ts";
import { list } from "../render/objects.ts";
import { serialise } from "../render/output.ts";
import { styler } from "../render/style.ts";
import { withPlaces } from "./apply.ts";

export interface DiffFlags extends GlobalFlags {
  readonly filename?: readonly string[];
  readonly recursive?: boolean;
  readonly delete?: readonly string[];
  readonly output?: string;
}

/** As `kubectl diff`: 0 when nothing would change, 1 when something would. */
export async function diffFiles(io: Io, flags: DiffFlags): Promise<number> {
  if (flags.filename === undefined && flags.delete === undefined)
    throw new IsthmusError("BadRequest", "nothing is given to compare", { remedy: "Give -f FILE, or --delete KIND/NAME." });
  const placed = flags.filename === undefined ? [] : await readDocuments(io, flags.filename, flags.recursive);
  if (placed.length > 0) checkDocuments(placed, io.now());
  const doomed = (flags.delete ?? []).flatMap((word) => targetsOf([word]));
  if (doomed.some((target) => target.name === undefined))
    throw new IsthmusError("BadRequest", "--delete needs KIND/NAME", { remedy: "Write for example --delete egress/web." });
  const client = await connect(io, flags);
  const answer = await client
    .call("POST", apiPath(["diff"]), { documents: placed.map((each) => each.raw), delete: doomed })
    .catch((error: unknown) => {
      throw error instanceof IsthmusError ? withPlaces(error, placed) : error;
    });
  const nodes = list(answer, "nodes") as readonly NodeDiff[];
  if (flags.output === "json" || flags.output === "yaml") io.out(await serialise({ nodes }, flags.output));
  else io.out(renderDiff(nodes, styler(io)));
  return nodes.some((node) => node.changes.length > 0) ? 1 : 0;
}
