/** The command that runs another one inside a host. */
import { IsthmusError } from "../mesh/errors.ts";
import { REPOSITORY } from "./names.ts";
import { initOf } from "./state.ts";

/** `[command, args]` for execa. @throws IsthmusError `Unreachable` when the host is powered off. */
export async function enter(lab: string, host: string, argv: readonly string[]): Promise<[string, string[]]> {
  const init = await initOf(lab, host);
  if (init === undefined) {
    throw new IsthmusError("Unreachable", `${host} is powered off`, { remedy: `Power it on: isthmus lab heal node ${host}.` });
  }
  // `isthmus` itself is on the host's PATH, as after an installation.
  const path = `PATH=${REPOSITORY}:${REPOSITORY}/node_modules/.bin:${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`;
  return ["nsenter", ["--target", String(init.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--", "env", path, ...argv]];
}

/**
 * Enters the host's network only. The process stays a child of the caller, who can signal it; power-off ends it all the
 * same. For tools that need neither the host's files nor its names.
 */
export async function enterNetwork(lab: string, host: string, argv: readonly string[]): Promise<[string, string[]]> {
  const [, args] = await enter(lab, host, argv);
  return ["nsenter", [...args.slice(0, 2), "--net", "--", ...args.slice(args.indexOf("--") + 1)]];
}
