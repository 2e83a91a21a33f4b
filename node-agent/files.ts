/** Files of the agent: where they are, and that root alone can read or replace them (I8). */
import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmdirSync, type Stats, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { IsthmusError } from "../mesh/errors.ts";
import { makeFolders } from "../mesh/folders.ts";

/** As the kernel counts them (path_resolution(7)). */
const MOST_LINKS = 40;

/** Where everything of one agent stands. */
export interface Places {
  readonly data: string;
  readonly run: string;
  readonly wgKey: string;
  readonly tlsKey: string;
  readonly certificate: string;
  readonly roots: string;
  readonly identity: string;
  readonly plan: string;
  readonly links: string;
  readonly choices: string;
  readonly endpoints: string;
  readonly names: string;
  /** Peers to which fewer bytes get through than expected. */
  readonly mtu: string;
  readonly socket: string;
}

export function places(
  data: string = process.env["ISTHMUS_DATA"] ?? "/var/lib/isthmus",
  run: string = process.env["ISTHMUS_RUN"] ?? "/run/isthmus",
): Places {
  return {
    data,
    run,
    wgKey: join(data, "wg.key"),
    tlsKey: join(data, "tls.key"),
    certificate: join(data, "node.crt"),
    roots: join(data, "roots.pem"),
    identity: join(data, "identity.json"),
    plan: join(data, "plan.json"),
    links: join(data, "links.json"),
    choices: join(data, "choices.json"),
    endpoints: join(data, "endpoints.json"),
    names: join(data, "names.json"),
    mtu: join(data, "mtu.json"),
    socket: join(run, "agent.sock"),
  };
}

/**
 * Makes the data and run directories (0700) and refuses those that others may read or replace. @param say what was changed of one that
 * was there @throws FileMode, DiskFull
 */
export function prepareDirectories(at: Places, say: (line: string) => void): void {
  for (const path of [at.data, at.run]) {
    checkWay(resolve(path));
    makeFolder(path);
    if (path === at.run) closeOwn(path, say);
    checkMode(path, 0o700);
  }
}

/** What agent and controller put into their run directory. */
const OWN = /^(agent\.(sock|pid)|controller\.sock|wireguard-go\..+)$/;

/** Earlier controllers made the run directory for all to read, and it stays until the next boot. Somebody else's is not touched. */
function closeOwn(path: string, say: (line: string) => void): void {
  const { mode, uid } = statSync(path);
  const readable = (mode & 0o077) !== 0 && (mode & 0o022) === 0;
  if (!readable || uid !== process.getuid?.() || !readdirSync(path).every((name) => OWN.test(name))) return;
  onDisk(path, () => chmodSync(path, 0o700));
  say(`${path} had mode ${octal(mode)}: it is for root alone now (0700)`);
}

/** Makes a folder of the agent, and those above it. @throws FileMode, DiskFull */
export function makeFolder(path: string): void {
  makeFolders(resolve(path), 0o700, { mkdirSync, statSync }, "choose another place with --data or --run");
}

/** Refuses files that others may read or change. Absent ones pass. @throws FileMode */
export function checkModes(at: Places): void {
  for (const path of [at.wgKey, at.tlsKey, at.identity, at.plan]) checkMode(path, 0o600);
}

function checkMode(path: string, most: 0o600 | 0o700): void {
  if (!existsSync(path)) return;
  const found = statSync(path);
  checkOwner(path, found);
  if ((found.mode & 0o777 & ~most) === 0) return;
  const why = most === 0o700 ? "it is for root's files and sockets alone, and" : "it holds secrets and";
  const instead = most === 0o700 ? ", or choose a folder of its own with --data or --run" : "";
  throw new IsthmusError("FileMode", `${path} has mode ${octal(found.mode)}; ${why} may be at most ${octal(most)}`, {
    remedy: `chmod ${octal(most)} ${path}${instead}`,
  });
}

/**
 * Whoever may replace a folder on the way to ours, or a link to it, may put a place of his own there, and root would write into it. In a
 * folder that is sticky, as /tmp is, everybody replaces only what is his.
 */
function checkWay(path: string, links = 0): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found !== undefined) {
    checkOwner(path, found);
    if (found.isSymbolicLink()) {
      if (links > MOST_LINKS)
        throw new IsthmusError("FileMode", `${path} leads nowhere: too many symbolic links`, { remedy: "choose another folder" });
      checkWay(resolve(dirname(path), readlinkSync(path)), links + 1);
    } else if (othersReplace(found)) {
      throw new IsthmusError(
        "FileMode",
        `${path} has mode ${octal(found.mode)}: others than root may replace what is in it, also the agent's folders`,
        {
          remedy: `chmod go-w ${path}, or choose another place with --data or --run`,
        },
      );
    }
  }
  if (dirname(path) !== path) checkWay(dirname(path), links);
}

function othersReplace({ mode, gid }: Stats): boolean {
  const writable = (mode & 0o002) !== 0 || ((mode & 0o020) !== 0 && gid !== 0);
  return writable && (mode & 0o1000) === 0;
}

function checkOwner(path: string, { uid }: Stats): void {
  if (uid === 0 || uid === process.getuid?.()) return;
  throw new IsthmusError("FileMode", `${path} belongs to user ${uid}, not to root`, {
    remedy: `chown root: ${path}, or choose another place with --data or --run`,
  });
}

function octal(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, "0");
}

/** Takes a directory away unless it holds something, or is a mount point (a volume, a file system of its own): then it stays. */
export function removeIfEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    if (!["ENOENT", "ENOTEMPTY", "EBUSY"].includes(codeOf(error) ?? "")) throw error;
  }
}

/** Content of a file, or nothing where there is none. */
export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Names in a directory; none where there is none. */
export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** A JSON file that only speeds things up: unreadable or absent means `fallback`. */
export function readHint<T>(path: string, parse: (value: unknown) => T, fallback: T): T {
  try {
    const text = readIfThere(path);
    return text === undefined ? fallback : parse(JSON.parse(text));
  } catch {
    return fallback;
  }
}

export function codeOf(error: unknown): string | undefined {
  return typeof error === "object" && error !== null && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

/** Runs file work; what the file system refuses becomes an error with a remedy. @throws DiskFull, FileMode */
export function onDisk<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw writeFailure(path, error);
  }
}

/** The error for a write that failed. */
export function writeFailure(path: string, error: unknown): IsthmusError {
  if (error instanceof IsthmusError) return error;
  const code = codeOf(error);
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new IsthmusError("DiskFull", `no room to write ${path}; the last good state stays`, {
      remedy: `free space on the file system of ${dirname(path)}`,
      cause: error,
    });
  }
  if (code === "EACCES" || code === "EROFS" || code === "EPERM") {
    return new IsthmusError("FileMode", `${path} cannot be written (${code})`, { remedy: "run as root, on a writable file system", cause: error });
  }
  return new IsthmusError("Internal", `${path} cannot be written (${code ?? String(error)})`, { cause: error });
}
