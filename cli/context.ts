/** Which controller to talk to: the contexts file, flags and environment. The file holds an admin's key: mode 0600. */
import { readFile, stat } from "node:fs/promises";
import { existsSync, mkdirSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { z } from "zod";
import { IsthmusError } from "../mesh/errors.ts";
import { makeFolders } from "../mesh/folders.ts";
import { formatPath } from "../mesh/model/faults.ts";
import { nearest } from "../mesh/model/suggest.ts";
import type { Io } from "./io.ts";
import { writeSecret } from "./secret-file.ts";

const Context = z.strictObject({
  name: z.string().min(1).max(63),
  /** `https://HOST:PORT`. */
  server: z
    .string()
    .regex(/^https:\/\/[^/\s]+$/, "must be https://HOST:PORT")
    .optional(),
  /** Path of the controller's unix socket. */
  socket: z.string().optional(),
  /** PEM of the trusted roots. */
  ca: z.string().optional(),
  /** PEM of the admin's certificate and its chain. */
  cert: z.string().optional(),
  key: z.string().optional(),
});
export type Context = z.infer<typeof Context>;

const Contexts = z.strictObject({ current: z.string().optional(), contexts: z.array(Context).default([]) });
export type Contexts = z.infer<typeof Contexts>;

export interface TargetFlags {
  readonly context?: string;
  readonly socket?: string;
}

const PLACE = "Set HOME to a folder that you may write in, or ISTHMUS_CONFIG to the file itself.";

export const DEFAULT_RUN_DIR = "/run/isthmus";

export function contextsFile(io: Pick<Io, "env">): string {
  const config = io.env["XDG_CONFIG_HOME"] ?? join(io.env["HOME"] ?? homedir(), ".config");
  return io.env["ISTHMUS_CONFIG"] ?? join(config, "isthmus", "config.yaml");
}

/** @throws {IsthmusError} Invalid when the file is not what it should be, FileMode when others can read it. */
export async function readContexts(io: Pick<Io, "env">): Promise<Contexts> {
  const file = contextsFile(io);
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return { contexts: [] };
    throw new IsthmusError("Invalid", `${file} cannot be read: ${(error as Error).message}`, { remedy: PLACE, cause: error });
  }
  const { parse } = await import("yaml");
  let raw: unknown;
  try {
    raw = parse(text) ?? {};
  } catch (error) {
    throw new IsthmusError("Invalid", `${file}: ${(error as Error).message}`, {
      remedy: `Correct the file, or move it away and make the contexts again.`,
    });
  }
  const parsed = Contexts.safeParse(raw);
  if (parsed.success) {
    if (((await stat(file)).mode & 0o077) === 0) return parsed.data;
    const holds = parsed.data.contexts.some(({ key }) => key !== undefined) ? "holds a private key" : "is where private keys are kept";
    throw new IsthmusError("FileMode", `${file} ${holds} and can be read by others`, { remedy: `Run: chmod 600 ${file}` });
  }
  const faults = parsed.error.issues.map((issue) => ({
    path: formatPath(issue.path.filter((part) => typeof part !== "symbol")),
    message: issue.message,
  }));
  throw new IsthmusError("Invalid", `${file} is not a contexts file`, {
    faults,
    remedy: "Correct the file, or move it away and make the contexts again.",
  });
}

/** Replaces the file at once, mode 0600 in a directory of mode 0700. @throws {IsthmusError} DiskFull, Invalid, FileMode */
export async function writeContexts(io: Pick<Io, "env">, contexts: Contexts): Promise<string> {
  const { stringify } = await import("yaml");
  const file = contextsFile(io);
  makeFolders(dirname(resolve(file)), 0o700, { mkdirSync, statSync }, PLACE);
  await writeSecret(file, stringify(contexts, { lineWidth: 0 }));
  return file;
}

/** Contexts with one set (or replaced). */
export function withContext(contexts: Contexts, context: Context): Contexts {
  const others = contexts.contexts.filter((other) => other.name !== context.name);
  return { ...contexts, contexts: [...others, context].sort((a, b) => (a.name < b.name ? -1 : 1)) };
}

/** The context with this name. @throws {IsthmusError} NotFound with the nearest name. */
export function contextNamed(contexts: Contexts, name: string): Context {
  const found = contexts.contexts.find((context) => context.name === name);
  if (found !== undefined) return found;
  const names = contexts.contexts.map((context) => context.name);
  const near = nearest(name, names);
  throw new IsthmusError(
    "NotFound",
    `there is no context ${JSON.stringify(name)}${near === undefined ? "" : `; did you mean ${JSON.stringify(near)}?`}`,
    {
      remedy:
        names.length === 0
          ? "Make one with `isthmus create admin` on the controller's machine or `isthmus config set-context`."
          : `The contexts are: ${names.join(", ")}.`,
    },
  );
}

/** Flags before environment, before the current context, before the socket of a controller on this machine. */
export async function chooseContext(io: Pick<Io, "env">, flags: TargetFlags): Promise<Context> {
  const socket = flags.socket ?? (flags.context === undefined ? io.env["ISTHMUS_SOCKET"] : undefined);
  if (socket !== undefined && socket !== "") return { name: "socket", socket };
  const named = flags.context ?? io.env["ISTHMUS_CONTEXT"];
  const contexts = await readContexts(io);
  if (named !== undefined && named !== "") return contextNamed(contexts, named);
  if (contexts.current !== undefined) return contextNamed(contexts, contexts.current);
  const local = join(io.env["ISTHMUS_RUN"] ?? DEFAULT_RUN_DIR, "controller.sock");
  if (existsSync(local)) return { name: "local", socket: local };
  const file = io.env["ISTHMUS_CONFIG"];
  const why = file !== undefined && !existsSync(file) ? `${file}, which ISTHMUS_CONFIG names, does not exist` : "no context is set";
  throw new IsthmusError("Unreachable", `no controller is known here: ${why}, and no controller runs on this machine`, {
    remedy:
      "Choose one with `isthmus config use-context NAME`, give --socket PATH, or start one with `isthmus controller run`. On a node, `isthmus status` needs no controller.",
  });
}
