/** `label`. */
import { IsthmusError } from "../../mesh/errors.ts";
import { toFaults } from "../../mesh/model/faults.ts";
import { KINDS } from "../../mesh/model/resources.ts";
import { Labels } from "../../mesh/model/scalars.ts";
import { toStructural } from "../../mesh/model/structural.ts";
import { expandTargets, getObject, selectorQuery } from "../api.ts";
import type { GlobalFlags } from "../cli.ts";
import { apiPath } from "../client.ts";
import { connect } from "../connect.ts";
import type { Io } from "../io.ts";
import { targetsOf } from "../kinds.ts";
import { at, labelsOf } from "../render/objects.ts";
import { fullName } from "../render/output.ts";

export interface LabelFlags extends GlobalFlags {
  readonly overwrite?: boolean;
  readonly selector?: string;
  readonly all?: boolean;
  readonly list?: boolean;
}

export async function labelObjects(io: Io, words: readonly string[], flags: LabelFlags): Promise<number> {
  const { names, set, remove } = split(words);
  const targets = targetsOf(names);
  const selector = selectorQuery(flags.selector);
  if (targets.some((target) => target.name === undefined) && selector === undefined && flags.all !== true) {
    throw new IsthmusError("BadRequest", "which ones is not said", { remedy: "Name them, select them with -l, or give --all." });
  }
  const none = Object.keys(set).length === 0 && remove.length === 0;
  if (none && flags.list !== true)
    throw new IsthmusError("BadRequest", "no label is given", { remedy: "Write KEY=VALUE to set one, KEY- to take one away." });
  const client = await connect(io, flags);
  const labelled = await expandTargets(client, targets, selector);
  if (labelled.length === 0) io.err("Nothing to label.\n");
  for (const { kind, name } of labelled) {
    if (!none) {
      const before = await getObject(client, kind, name);
      const answer = await client.call("PATCH", apiPath(["resources", KINDS[kind].plural, name, "labels"]), {
        set,
        remove,
        ...(flags.overwrite === true ? { overwrite: true } : {}),
      });
      const changed =
        at(answer, "metadata", "resourceVersion") === undefined ||
        at(answer, "metadata", "resourceVersion") !== at(before, "metadata", "resourceVersion");
      io.out(`${fullName(kind, name)} ${changed ? "labeled" : "not labeled"}\n`);
    }
    if (flags.list === true)
      io.out(
        Object.entries(labelsOf(await getObject(client, kind, name)))
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([key, value]) => `${key}=${value}\n`)
          .join(""),
      );
  }
  return 0;
}

/** `node do1 a=b c-`: what is labelled, then what is set and removed. @throws {IsthmusError} for a bad label */
function split(words: readonly string[]): { names: string[]; set: Record<string, string>; remove: string[] } {
  const changes = words.filter((word, i) => i > 0 && (word.includes("=") || (word.endsWith("-") && word.length > 1)));
  const names = words.filter((word) => !changes.includes(word));
  const remove = changes.filter((word) => !word.includes("=")).map((word) => word.slice(0, -1));
  const set = Object.fromEntries(
    changes.filter((word) => word.includes("=")).map((word) => [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)]),
  );
  const parsed = Labels.safeParse(set);
  if (!parsed.success)
    throw new IsthmusError("Invalid", "a label is not valid", {
      faults: toFaults(parsed.error.issues, set, toStructural(Labels), []),
      remedy: "Correct the labels.",
    });
  const both = remove.find((key) => key in set);
  if (both !== undefined) throw new IsthmusError("BadRequest", `label ${both} is both set and taken away`, { remedy: "Write one of the two." });
  return { names, set, remove };
}
