/** `create token`, `token revoke`, `admin revoke`. */
import { IsthmusError } from "../../mesh/errors.ts";
import { parseSpec } from "../../mesh/model/parse.ts";
import type { GlobalFlags } from "../cli.ts";
import { apiPath } from "../client.ts";
import { connect } from "../connect.ts";
import type { Io } from "../io.ts";
import { at } from "../render/objects.ts";
import { serialise } from "../render/output.ts";
import { spanMs } from "../span.ts";

export interface TokenFlags extends GlobalFlags {
  readonly site: string;
  readonly uses: number;
  readonly expires: string;
  readonly label?: Readonly<Record<string, string>>;
  readonly namePattern?: string;
  readonly grantAdvertise?: readonly string[];
  readonly output?: string;
}

/** Standard output gets the token and nothing else, so that `TOKEN=$(isthmus create token …)` works. */
export async function createToken(io: Io, name: string | undefined, flags: TokenFlags): Promise<number> {
  const spec = {
    site: flags.site,
    uses: flags.uses,
    expires: expiry(flags.expires, io.now()),
    ...(flags.label === undefined ? {} : { labels: flags.label }),
    ...(flags.namePattern === undefined ? {} : { namePattern: flags.namePattern }),
    ...(flags.grantAdvertise === undefined ? {} : { grants: { advertise: flags.grantAdvertise } }),
  };
  const parsed = parseSpec("JoinToken", spec, { now: io.now() });
  if (Array.isArray(parsed))
    throw new IsthmusError("Invalid", "the token is not valid; none was made", {
      faults: parsed,
      remedy: "Correct the flags; `isthmus explain --schema jointoken.spec` describes the fields.",
    });
  const client = await connect(io, flags);
  const answer = await client.call("POST", apiPath(["tokens"]), { ...(name === undefined ? {} : { name }), spec });
  if (flags.output === "json" || flags.output === "yaml") {
    io.out(await serialise(answer, flags.output));
    return 0;
  }
  const made = at(answer, "object", "metadata", "name");
  if (flags.output === "name") {
    io.out(`jointoken/${String(made)}\n`);
    io.err(`The token itself, which is shown only now: ${String(at(answer, "token"))}\n`);
    return 0;
  }
  io.out(`${String(at(answer, "token"))}\n`);
  if (io.outTty) {
    const uses = flags.uses === 1 ? "one machine" : `${flags.uses} machines`;
    io.err(
      `\nToken ${String(made)}: lets ${uses} join site ${flags.site} until ${spec.expires}. It is shown only now.\nOn the machine, as root:  isthmus join TOKEN\n`,
    );
  }
  return 0;
}

export async function revoke(io: Io, what: "tokens" | "admins" | "nodes", names: readonly string[], flags: GlobalFlags): Promise<number> {
  const client = await connect(io, flags);
  for (const name of names) {
    await client.call("POST", apiPath([what, name, "revoke"]), {});
    io.out(`${what.slice(0, -1)} ${name} revoked\n`);
  }
  if (what === "nodes") {
    io.err(`They stay WireGuard peers, and gateways, of all others. A machine that was stolen: \`isthmus delete node ${names.join(" ")}\`\n`);
  }
  return 0;
}

function expiry(text: string, now: number): string {
  if (/^\d{4}-/.test(text)) return text;
  const ms = spanMs(text, "--expires", "or give a time (RFC 3339)");
  if (ms === 0)
    throw new IsthmusError("BadRequest", `--expires ${JSON.stringify(text)}: the token would expire at once`, {
      remedy: "Give a length of time, for example 24h.",
    });
  return new Date(now + ms).toISOString().replace(/\.\d+Z$/, "Z");
}
