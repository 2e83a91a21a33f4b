/** `join`, `leave`, `cleanup`, `agent run`: what happens is the agent's work; here flags become its options. */
import { readFile, stat } from "node:fs/promises";
import type { Command } from "commander";
import { IsthmusError } from "../../mesh/errors.ts";
import type { Io } from "../io.ts";
import { processSignal } from "../signals.ts";
import { settings } from "../settings.ts";

interface Places {
  readonly data: string;
  readonly run: string;
}

interface JoinSettings extends Places {
  readonly tokenFile?: string;
  readonly name?: string;
  readonly endpoint?: readonly string[] | string;
  readonly advertise?: readonly string[] | string;
  readonly foreground?: boolean | string;
}

export async function joinMachine(io: Io, token: string | undefined, command: Command): Promise<number> {
  const given = await settings<JoinSettings>(command);
  if (token !== undefined && token !== "-" && command.getOptionValueSource("tokenFile") === "cli")
    throw new IsthmusError("BadRequest", "a token and --token-file exclude each other", { remedy: "Give one of the two." });
  const text = await tokenText(io, token, given.tokenFile);
  const { joinCommand } = await import("../../node-agent/main.ts");
  const joined = await joinCommand({
    token: text,
    name: given.name,
    endpoints: many(given.endpoint),
    advertise: many(given.advertise),
    foreground: yes(given.foreground),
    ...agentOptions(io, given),
    log: agentLog(io),
  });
  // In the foreground the agent has said so itself, at the beginning, and is over by now.
  if (joined.managed) io.out(`node ${joined.node} joined network ${joined.network}\n`);
  return 0;
}

export async function leaveMachine(io: Io, command: Command): Promise<number> {
  const given = await settings<Places>(command);
  const { leaveCommand } = await import("../../node-agent/main.ts");
  const left = await leaveCommand(agentOptions(io, given));
  io.out(`node ${left.node} left network ${left.network}\n`);
  return 0;
}

export async function cleanupMachine(io: Io, command: Command): Promise<number> {
  const given = await settings<Places>(command);
  const { cleanupCommand } = await import("../../node-agent/main.ts");
  const done = await cleanupCommand(agentOptions(io, given));
  io.out(done.length === 0 ? "nothing of ours was here\n" : done.map((line) => `${line}\n`).join(""));
  return 0;
}

export async function runAgentCommand(io: Io, command: Command): Promise<number> {
  const given = await settings<Places>(command);
  const { runAgent } = await import("../../node-agent/main.ts");
  await runAgent({ ...agentOptions(io, given), log: agentLog(io) });
  return 0;
}

function agentOptions(io: Io, given: Places): Places & { readonly log: (line: string) => void; readonly signal: AbortSignal } {
  return { data: given.data, run: given.run, log: (line) => io.err(`${line}\n`), signal: processSignal(io) };
}

/** What a running agent says. In a file each line has its time; a terminal needs none, and the journal has its own. */
export function agentLog(io: Pick<Io, "err" | "env" | "errTty" | "now">): (line: string) => void {
  const dated = !io.errTty && io.env["JOURNAL_STREAM"] === undefined;
  return (line) => io.err(`${dated ? `${new Date(io.now()).toISOString()} ` : ""}${line}\n`);
}

async function tokenText(io: Io, token: string | undefined, file: string | undefined): Promise<string> {
  const text =
    token !== undefined && token !== "-"
      ? token
      : token === "-" || file === "-"
        ? await io.stdin()
        : file !== undefined
          ? await tokenFile(io, file)
          : io.env["ISTHMUS_TOKEN"];
  if (text === undefined || text.trim() === "")
    throw new IsthmusError("BadRequest", "no token is given", {
      remedy: "Give the token, --token-file FILE, or - to read it from standard input. `isthmus create token` on an admin's machine makes one.",
    });
  return text.trim();
}

async function tokenFile(io: Io, file: string): Promise<string> {
  const text = await readFile(file, "utf8").catch((error: Error) => {
    throw new IsthmusError("NotFound", `the token file ${file} cannot be read: ${error.message}`, { remedy: "Check the path." });
  });
  if (((await stat(file)).mode & 0o077) !== 0) io.err(`warning: ${file} can be read by others; a token lets anyone join (chmod 600 ${file})\n`);
  return text;
}

/** From flags a list; from the environment one text with commas. */
function many(value: readonly string[] | string | undefined): string[] {
  if (value === undefined) return [];
  const texts: readonly string[] = typeof value === "string" ? [value] : value;
  return texts
    .flatMap((text) => text.split(","))
    .map((text) => text.trim())
    .filter((text) => text !== "");
}

/** A flag from the environment is a text. */
function yes(value: boolean | string | undefined): boolean {
  if (typeof value !== "string") return value === true;
  return !["", "0", "false", "no"].includes(value.toLowerCase());
}
