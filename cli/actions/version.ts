/** `version`. */
import manifest from "../../package.json" with { type: "json" };
import { IsthmusError } from "../../mesh/errors.ts";
import type { GlobalFlags } from "../cli.ts";
import { apiPath } from "../client.ts";
import { connect } from "../connect.ts";
import type { Io } from "../io.ts";
import { text } from "../render/objects.ts";
import { serialise } from "../render/output.ts";

export async function showVersion(io: Io, flags: GlobalFlags & { readonly client?: boolean; readonly output?: "json" | "yaml" }): Promise<number> {
  const client = manifest.version;
  const controller = flags.client === true ? undefined : await controllerVersion(io, flags);
  if (flags.output !== undefined) {
    io.out(await serialise({ client, ...(controller === undefined ? {} : { controller }), node: process.versions.node }, flags.output));
    return 0;
  }
  io.out(`client      ${client} (Node.js ${process.versions.node})\n`);
  if (controller !== undefined) io.out(`controller  ${controller}\n`);
  return 0;
}

/** A controller that is not there is no error here: this command is what people run first when something is wrong. */
async function controllerVersion(io: Io, flags: GlobalFlags): Promise<string> {
  try {
    const status = await (await connect(io, flags)).call("GET", apiPath(["status"]));
    return text(status, "version") || "answers, without saying its version";
  } catch (error) {
    if (error instanceof IsthmusError) return `not reached: ${error.message}`;
    throw error;
  }
}
