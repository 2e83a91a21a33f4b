/** Which network namespaces a run of the tests left behind: others work on the same machine meanwhile. */
import { readdirSync } from "node:fs";

export const NETNS = "/run/netns";

/** The folder where each process that runs tests leaves its id as a file's name. */
export const PROCESSES = "ISTHMUS_TEST_PROCESSES";

/** Every namespace that a test makes carries the id of the test's process in its name, between `-`. */
export function leftBehind(before: readonly string[], after: readonly string[], processes: readonly string[]): string[] {
  return after.filter((name) => !before.includes(name) && name.split("-").some((part) => processes.includes(part)));
}

export function networkNamespaces(): string[] {
  return filesIn(NETNS);
}

export function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
