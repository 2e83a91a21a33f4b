/** Files of the agent: written whole or not at all, readable by root alone (I8). */
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { IsthmusError } from "../mesh/errors.ts";

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

/** Makes the data and run directories (0700) and refuses those that others may read. @throws FileMode, DiskFull */
export function prepareDirectories(at: Places): void {
  for (const path of [at.data, at.run]) {
    onDisk(path, () => mkdirSync(path, { recursive: true, mode: 0o700 }));
    if (path === at.data) checkMode(path, 0o700);
  }
}

/** Refuses files that others may read or change. Absent ones pass. @throws FileMode */
export function checkModes(at: Places): void {
  checkMode(at.data, 0o700);
  for (const path of [at.wgKey, at.tlsKey, at.identity, at.plan]) checkMode(path, 0o600);
}

function checkMode(path: string, most: number): void {
  if (!existsSync(path)) return;
  const found = statSync(path);
  const mode = found.mode & 0o777;
  const octal = (value: number): string => value.toString(8).padStart(4, "0");
  if ((mode & ~most) !== 0) {
    throw new IsthmusError("FileMode", `${path} has mode ${octal(mode)}; it holds secrets and may be at most ${octal(most)}`, {
      remedy: `chmod ${octal(most)} ${path}`,
    });
  }
  const uid = process.getuid?.() ?? 0;
  if (found.uid !== uid && found.uid !== 0) {
    throw new IsthmusError("FileMode", `${path} belongs to user ${found.uid}, not to root`, { remedy: `chown root: ${path}` });
  }
}

/** Writes a file whole: temporary file, fsync, rename, fsync of the directory. A crash leaves the old or the new one. */
export function writeAtomic(path: string, content: string, mode = 0o600): void {
  const temporary = `${path}.new-${process.pid}`;
  onDisk(path, () => {
    try {
      const file = openSync(temporary, "w", mode);
      try {
        writeFileSync(file, content);
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      renameSync(temporary, path);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
    const folder = openSync(dirname(path), "r");
    try {
      fsyncSync(folder);
    } finally {
      closeSync(folder);
    }
  });
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
