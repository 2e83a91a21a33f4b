/** `create admin`: a key made here, a certificate from the controller, a context that holds both. */
import { existsSync, mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { IsthmusError } from "../../mesh/errors.ts";
import { makeFolders } from "../../mesh/folders.ts";
import { AdminAnswer } from "../../mesh/model/answers.ts";
import type { GlobalFlags } from "../cli.ts";
import { apiPath, type Client, clientFor } from "../client.ts";
import { chooseContext, type Context, readContexts, withContext, writeContexts } from "../context.ts";
import type { Io } from "../io.ts";
import { strings } from "../render/objects.ts";

export interface AdminFlags extends GlobalFlags {
  readonly role: "viewer" | "operator" | "admin";
  readonly server?: string;
  readonly out?: string;
  readonly contextName?: string;
}

export async function createAdmin(io: Io, name: string, flags: AdminFlags): Promise<number> {
  if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name))
    throw new IsthmusError("BadRequest", `${JSON.stringify(name)} cannot be an admin's name`, { remedy: "Use lower-case letters, digits and '-'." });
  if (flags.out !== undefined && existsSync(flags.out))
    throw new IsthmusError("AlreadyExists", `${flags.out} exists already`, { remedy: "Choose another file for --out." });
  // Before there is an admin whose key can be kept nowhere.
  if (flags.out !== undefined) makeFolders(dirname(resolve(flags.out)), 0o700, { mkdirSync, statSync }, "Choose another file for --out.");
  const via = await chooseContext(io, flags);
  const client = clientFor(via);
  const server = flags.server === undefined ? await advertised(client, via) : asUrl(flags.server);
  const { makeAdminRequest } = await import("../csr.ts");
  const { key, csr } = await makeAdminRequest(name);
  const answer = AdminAnswer.parse(await client.call("POST", apiPath(["admins"]), { name, role: flags.role, csr }));
  const context: Context = { name: flags.contextName ?? name, server, ca: answer.roots.join("\n"), cert: answer.certificate, key };
  if (flags.out !== undefined) {
    await writeContexts({ env: { ISTHMUS_CONFIG: flags.out } }, { current: context.name, contexts: [context] });
    io.out(`admin ${name} (${flags.role}) created; give ${flags.out} to that person over a safe way: it holds a private key\n`);
    return 0;
  }
  const file = await writeContexts(io, withContext(await readContexts(io), context));
  io.out(`admin ${name} (${flags.role}) created; context ${context.name} written to ${file}\n`);
  io.err(`Use it with: isthmus config use-context ${context.name}\n`);
  return 0;
}

/** What the controller says of its own addresses, else the address that we use. */
async function advertised(client: Client, via: Context): Promise<string> {
  if (via.server !== undefined) return via.server;
  const status = await client.call("GET", apiPath(["status"]));
  const [first] = [...strings(status, "controllers"), ...strings(status, "advertise"), ...strings(status, "addresses")];
  if (first !== undefined) return asUrl(first);
  throw new IsthmusError("BadRequest", "the controller does not say at which address it is reached", {
    remedy: "Give --server https://HOST:PORT, or start the controller with --advertise.",
  });
}

export function asUrl(text: string): string {
  const url = text.startsWith("https://") ? text : `https://${text}`;
  if (!/^https:\/\/[^/\s]+:\d+$/.test(url))
    throw new IsthmusError("BadRequest", `${JSON.stringify(text)} is not https://HOST:PORT`, {
      remedy: "Write the address with its port, for example https://203.0.113.7:8443.",
    });
  return url;
}
