/** `-f FILE|DIR|-`: many YAML or JSON documents, each with its place, all checked before the first is sent. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { IsthmusError, type FieldFault } from "../mesh/errors.ts";
import { invalidDocuments, openList, parsePlaced, type ParsedDocuments, type Where } from "../mesh/model/parse.ts";
import type { Io } from "./io.ts";

export interface Placed {
  readonly raw: unknown;
  readonly where: Where;
}

const EXTENSIONS = [".yaml", ".yml", ".json"];

/**
 * Reads every document of the named files. Directories are read one level deep (all levels with `recursive`), in order of
 * name. @throws {IsthmusError} NotFound, or Invalid with the line of broken YAML, and what is wrong with the other documents.
 */
export async function readDocuments(io: Io, names: readonly string[], recursive = false): Promise<Placed[]> {
  if (names.length === 0)
    throw new IsthmusError("BadRequest", "no file is given", {
      remedy: "Name one with -f FILE, a directory with -f DIR, or standard input with -f -.",
    });
  const placed: Placed[] = [];
  const faults: FieldFault[] = [];
  for (const name of names) {
    for (const file of name === "-" ? ["-"] : await filesOf(name, recursive)) {
      const text = file === "-" ? await io.stdin() : await readFile(file, "utf8");
      const read = await split(text, file === "-" ? "standard input" : file);
      placed.push(...read.placed);
      faults.push(...read.faults);
    }
  }
  // Whoever mends these wants to know of the others, too.
  if (faults.length > 0) throw invalidDocuments([...faults, ...parsePlaced(placed, { now: io.now() }).faults], placed.length + faults.length);
  if (placed.length === 0)
    throw new IsthmusError("Invalid", `there is no document in ${names.join(", ")}`, {
      remedy: "A document has apiVersion, kind, metadata and spec.",
    });
  // Opened here so that the controller counts the same documents as we do.
  return placed.flatMap(openList);
}

/** Parsed with every rule that needs no controller. @throws {IsthmusError} Invalid with all faults of all documents. */
export function checkDocuments(placed: readonly Placed[], now: number): ParsedDocuments {
  const parsed = parsePlaced(placed, { now });
  if (parsed.faults.length > 0) throw invalidDocuments(parsed.faults, placed.length);
  return parsed;
}

async function filesOf(name: string, recursive: boolean): Promise<string[]> {
  let directory: boolean;
  try {
    directory = (await stat(name)).isDirectory();
  } catch (error) {
    throw new IsthmusError("NotFound", `${name} cannot be read: ${(error as Error).message}`, { remedy: "Check the path.", cause: error });
  }
  if (!directory) return [name];
  const entries = await readdir(name, { withFileTypes: true });
  const files: string[] = [];
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(name, entry.name);
    if (entry.isDirectory()) files.push(...(recursive ? await filesOf(path, true) : []));
    else if (EXTENSIONS.some((extension) => entry.name.endsWith(extension))) files.push(path);
  }
  return files;
}

/** Documents of one file. A document without content (between two `---`) does not count. */
async function split(text: string, file: string): Promise<{ placed: Placed[]; faults: FieldFault[] }> {
  const { parseAllDocuments } = await import("yaml");
  const documents = parseAllDocuments(text, { prettyErrors: true });
  const faults: FieldFault[] = [];
  const placed: Placed[] = [];
  let index = 0;
  for (const document of Array.isArray(documents) ? documents : []) {
    const problem = document.errors[0];
    if (problem !== undefined) {
      faults.push({ path: "", message: `not valid YAML: ${problem.message.split("\n")[0]?.replace(/:$/, "")}`, document: index, file });
      index++;
      continue;
    }
    let raw: unknown;
    try {
      // The library limits aliases, so that a small file cannot become a huge document.
      raw = document.toJS();
    } catch (error) {
      faults.push({ path: "", message: `not valid YAML: ${(error as Error).message}`, document: index++, file });
      continue;
    }
    if (raw === null || raw === undefined) continue;
    placed.push({ raw, where: { file, index } });
    index++;
  }
  return { placed, faults };
}
