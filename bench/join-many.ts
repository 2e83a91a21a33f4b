/** Joins nodes that never come; runs on the controller's host: `node join-many.ts TOKEN COUNT`. */
import { Agent as HttpsAgent } from "node:https";
import { parseJoinToken } from "../mesh/model/token.ts";
import { join } from "./fanout-agents.ts";

const [token = "", count = "0"] = process.argv.slice(2);
const { controllers, secret } = parseJoinToken(token);
const at = controllers[0]?.split(":") ?? [];
const server = { host: at[0] ?? "", port: Number(at[1]) };
const pool = new HttpsAgent({ keepAlive: true, maxSockets: 8 });
await Promise.all(Array.from({ length: Number(count) }, (_, i) => join(server, secret, `idle${i}`, pool)));
pool.destroy();
