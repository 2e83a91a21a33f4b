/**
 * Every wireguard-go watches its socket by an inotify instance, of which a user has 128 where nobody raised that: one machine
 * needs few, but a lab has the interfaces of all its nodes. So the limit is raised for as long as there is a lab.
 */
import { readFile, rm, writeFile } from "node:fs/promises";
import { RUN_ROOT } from "./names.ts";

const LIMIT = "/proc/sys/fs/inotify/max_user_instances";
/** What it was before the first lab. */
const BEFORE = `${RUN_ROOT}.inotify`;
const ENOUGH = 8192;

/** Where it may not be changed, a small lab gets by, and an agent that does not says what it lacks. */
export async function raiseInotify(): Promise<void> {
  const now = Number(await readFile(LIMIT, "utf8"));
  if (now >= ENOUGH) return;
  await writeFile(BEFORE, String(now), { flag: "wx" }).catch(() => {});
  await writeFile(LIMIT, String(ENOUGH)).catch(() => {});
}

/** After the last lab; a value that somebody else set meanwhile stays. */
export async function restoreInotify(): Promise<void> {
  const before = await readFile(BEFORE, "utf8").catch(() => undefined);
  if (before === undefined) return;
  if (Number(await readFile(LIMIT, "utf8")) === ENOUGH) await writeFile(LIMIT, before);
  await rm(BEFORE, { force: true });
}
