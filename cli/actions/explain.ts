/** `explain NODE DESTINATION` and `explain --schema PATH`. */
import { IsthmusError } from "../../mesh/errors.ts";
import { Explanation } from "../../mesh/model/answers.ts";
import { explainSchema } from "../../mesh/model/explain-schema.ts";
import { kindNamed } from "../../mesh/model/parse.ts";
import { canonicalIp } from "../../mesh/net/ip.ts";
import type { GlobalFlags } from "../cli.ts";
import { apiPath } from "../client.ts";
import { connect } from "../connect.ts";
import type { Io } from "../io.ts";
import { renderExplanation } from "../render/explain.ts";
import { serialise } from "../render/output.ts";
import { styler } from "../render/style.ts";

export interface ExplainFlags extends GlobalFlags {
  readonly schema?: string | true;
  readonly recursive?: boolean;
  readonly output?: "json" | "yaml";
}

export async function explain(io: Io, node: string | undefined, destination: string | undefined, flags: ExplainFlags): Promise<number> {
  const path = schemaPath(node, destination, flags.schema);
  if (path !== undefined) {
    io.out(explainSchema(path, { recursive: flags.recursive === true }));
    return 0;
  }
  if (node === undefined || destination === undefined)
    throw new IsthmusError("BadRequest", "a node and a destination are needed", {
      remedy: "Write for example `isthmus explain datacenter1 34.160.111.145`, or `isthmus explain --schema egressgateway.spec`.",
    });
  const address = canonicalIp(destination.replace(/\/(32|128)$/, ""));
  if (!address.ok)
    throw new IsthmusError("BadRequest", `${JSON.stringify(destination)} is not an address: ${address.fault}`, {
      remedy: "Give the address that traffic goes to, not a name or a prefix.",
    });
  const client = await connect(io, flags);
  const answer = await client.call("GET", apiPath(["nodes", node.replace(/^(mesh)?nodes?\//, ""), "explain"], { destination: address.text }));
  if (flags.output !== undefined) {
    io.out(await serialise(answer, flags.output));
    return 0;
  }
  const parsed = Explanation.safeParse(answer);
  if (!parsed.success)
    throw new IsthmusError("Internal", "the controller's explanation is not understood by this command", {
      remedy: "Use the command of the controller's version, or -o json.",
    });
  io.out(renderExplanation(parsed.data, io.now(), styler(io)));
  return 0;
}

/** `--schema PATH`, `PATH --schema`, or as kubectl: one word that begins with a kind. */
function schemaPath(node: string | undefined, destination: string | undefined, schema: string | true | undefined): string | undefined {
  if (typeof schema === "string") return schema;
  if (schema === true) return node ?? "";
  return destination === undefined && node !== undefined && kindNamed(node.split(".")[0] ?? "") !== undefined ? node : undefined;
}
