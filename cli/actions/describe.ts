/** `describe`. */
import { expandTargets, getObject, selectorQuery } from "../api.ts";
import type { GlobalFlags } from "../cli.ts";
import { connect } from "../connect.ts";
import type { Io } from "../io.ts";
import { targetsOf } from "../kinds.ts";
import { renderDescription } from "../render/describe.ts";
import { aboutIds, fetchEvents } from "./events.ts";

const SHOWN_EVENTS = 20;

export async function describeObjects(io: Io, words: readonly string[], flags: GlobalFlags & { readonly selector?: string }): Promise<number> {
  const targets = targetsOf(words);
  const client = await connect(io, flags);
  const named = await expandTargets(client, targets, selectorQuery(flags.selector));
  if (named.length === 0) io.err(`No ${words.join(" ")} found.\n`);
  const blocks: string[] = [];
  for (const { kind, name } of named) {
    const object = await getObject(client, kind, name);
    const events = (await Promise.all(aboutIds(kind, name).map((about) => fetchEvents(client, about)))).flat().sort((a, b) => a.at - b.at);
    blocks.push(renderDescription(object, events.slice(-SHOWN_EVENTS), io.now()));
  }
  io.out(blocks.join("\n\n"));
  return 0;
}
