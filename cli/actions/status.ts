/** `status`: a machine's own view, from its agent's socket. The controller is not needed. */
import { join } from "node:path";
import { IsthmusError } from "../../mesh/errors.ts";
import { clientFor } from "../client.ts";
import type { Io } from "../io.ts";
import { serialise } from "../render/output.ts";
import { renderStatus } from "../render/status.ts";
import { styler } from "../render/style.ts";

export async function showStatus(io: Io, flags: { readonly run: string; readonly output?: "json" | "yaml" }): Promise<number> {
  const socket = join(flags.run, "agent.sock");
  let status: unknown;
  try {
    status = await clientFor({ name: "agent", socket }).call("GET", "/status");
  } catch (error) {
    if (!(error instanceof IsthmusError)) throw error;
    if (error.code === "Forbidden")
      throw new IsthmusError("NotRoot", `the agent's socket ${socket} may be used by root only`, { remedy: "Run as root.", cause: error });
    if (error.code !== "Unreachable") throw error;
    throw new IsthmusError("Unreachable", `no agent answers at ${socket}`, {
      remedy:
        "Is this machine a node, and does the agent run? systemctl status isthmus-agent, or `isthmus join TOKEN`. What was programmed keeps forwarding meanwhile.",
      cause: error,
    });
  }
  if (flags.output === undefined) io.out(renderStatus(status, io.now(), styler(io)));
  else io.out(await serialise(status, flags.output));
  return 0;
}
