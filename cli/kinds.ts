/** The names by which people call kinds and objects: `nodes`, `nodes,sites`, `node/do1`. */
import { IsthmusError } from "../mesh/errors.ts";
import { kindNamed } from "../mesh/model/parse.ts";
import { KINDS, type Kind } from "../mesh/model/resources.ts";
import { nearest } from "../mesh/model/suggest.ts";
import { shortName } from "../mesh/model/words.ts";

/** One thing to look at. Without a name: all of the kind. */
export interface Target {
  readonly kind: Kind;
  readonly name?: string;
}

/** What `all` means: what people make and what joins. */
const ALL: readonly Kind[] = ["Site", "MeshNode", "MeshRoute", "StaticRoute", "EgressGateway", "VirtualIP", "MeshCluster"];

/** @throws {IsthmusError} UnknownKind with the nearest name. */
export function kindOf(word: string): Kind {
  const kind = kindNamed(word);
  if (kind !== undefined) return kind;
  const near = nearest(word, kindWords());
  throw new IsthmusError(
    "UnknownKind",
    `there is no kind ${JSON.stringify(word)}${near === undefined ? "" : `; did you mean ${JSON.stringify(near)}?`}`,
    { remedy: `The kinds are ${shortNames().join(", ")}, events.` },
  );
}

/** Every word that names a kind. */
export function kindWords(): string[] {
  return (Object.keys(KINDS) as Kind[]).flatMap((kind) => [KINDS[kind].plural, ...KINDS[kind].aliases]);
}

/**
 * Targets of a command's arguments: `KIND[,KIND…] [NAME…]` or `KIND/NAME…`. `route(s)` without a name means both kinds of
 * static routes, since DigitalOcean's are shown beside ours.
 */
export function targetsOf(words: readonly string[]): Target[] {
  const [first, ...names] = words;
  if (first === undefined) throw new IsthmusError("BadRequest", "a kind is missing", { remedy: `Name one of ${shortNames().join(", ")}, events.` });
  if (words.some((word) => word.includes("/"))) return once(words.map(slashed));
  if (names.length > 0) {
    const kind = kindOf(first);
    return once(names.map((name) => ({ kind, name })));
  }
  return first
    .split(",")
    .filter((word) => word !== "")
    .flatMap((word) => kindsOf(word).map((kind) => ({ kind })));
}

/** What is named twice is meant once. */
function once(targets: readonly Target[]): Target[] {
  return [...new Map(targets.map((target) => [`${target.kind}/${target.name}`, target])).values()];
}

function kindsOf(word: string): readonly Kind[] {
  if (word.toLowerCase() === "all") return ALL;
  const kind = kindOf(word);
  return kind === "MeshRoute" && /^routes?$/i.test(word) ? ["MeshRoute", "StaticRoute"] : [kind];
}

function slashed(word: string): Target {
  const [kind, name, ...more] = word.split("/");
  if (kind === undefined || kind === "" || name === undefined || name === "" || more.length > 0) {
    throw new IsthmusError("BadRequest", `${JSON.stringify(word)} is not KIND/NAME`, {
      remedy: "Write all as KIND/NAME, or one KIND and then its names.",
    });
  }
  return { kind: kindOf(kind), name };
}

function shortNames(): string[] {
  return (Object.keys(KINDS) as Kind[]).map(shortName);
}
