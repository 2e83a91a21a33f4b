/** `node restart-wireguard`: drain, start anew, uncordon. */
import { WireguardRestart } from "../../mesh/model/answers.ts";
import { getObject } from "../api.ts";
import type { GlobalFlags } from "../cli.ts";
import { apiPath } from "../client.ts";
import { connect } from "../connect.ts";
import type { Io } from "../io.ts";
import { text } from "../render/objects.ts";
import { checkTimeout, existing, startDrain, uncordon, untilDrained } from "./drain.ts";

/** One interface after the other; the controller gives up after a minute and a half. */
const ANSWER_MS = 120_000;

/** One node after the other. One that was drained before stays so; one where something fails stays drained, and says what. */
export async function restartWireguard(io: Io, names: readonly string[], flags: GlobalFlags & { readonly timeout?: string }): Promise<number> {
  checkTimeout(flags.timeout);
  const client = await connect(io, flags);
  for (const node of await existing(client, names)) {
    const before = await getObject(client, "MeshNode", node);
    if (text(before, "status", "wireguard") === "kernel") {
      io.out(`node ${node} has WireGuard in its kernel: nothing to start anew\n`);
      continue;
    }
    const wasDrained = text(before, "spec", "cordoned") === "true";
    if (!wasDrained) await startDrain(io, client, node, flags.timeout);
    await untilDrained(io, client, node, flags.timeout);
    const { interfaces } = WireguardRestart.parse(await client.call("POST", apiPath(["nodes", node, "restart-wireguard"]), {}, ANSWER_MS));
    io.out(`node ${node}: wireguard-go started anew for ${interfaces.join(", ")}\n`);
    if (!wasDrained) await uncordon(io, [node], flags);
  }
  return 0;
}
