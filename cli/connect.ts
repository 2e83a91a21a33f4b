/** From flags to a client. */
import { clientFor, type Client } from "./client.ts";
import type { GlobalFlags } from "./cli.ts";
import { chooseContext } from "./context.ts";
import type { Io } from "./io.ts";

/** The client of the chosen context. @throws {IsthmusError} when there is none */
export async function connect(io: Io, flags: GlobalFlags): Promise<Client> {
  return clientFor(await chooseContext(io, flags), (text) => io.err(`warning: ${text}\n`));
}
