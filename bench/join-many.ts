/**
 * Joins peers that do nothing but answer WireGuard; runs on the controller's host: `node join-many.ts TOKEN COUNT KEY`. Each has
 * an interface of its own, `peer<i>`, whose one peer is the node with the public key KEY.
 */
import { execFileSync, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { Agent as HttpsAgent } from "node:https";
import { setTimeout as delay } from "node:timers/promises";
import { parseJoinToken } from "../mesh/model/token.ts";
import { prepare, redeem } from "./fanout-agents.ts";

const FIRST_PORT = 40_000;

const [token = "", count = "0", key = ""] = process.argv.slice(2);
const { controllers, secret } = parseJoinToken(token);
const [host = "", port = ""] = controllers[0]?.split(":") ?? [];
const pool = new HttpsAgent({ keepAlive: true, maxSockets: 8 });
await Promise.all(Array.from({ length: Number(count) }, (_, i) => joinOne(i)));
pool.destroy();

async function joinOne(i: number): Promise<void> {
  const name = `peer${i}`;
  const endpoint = `${host}:${FIRST_PORT + i}`;
  const privateKey = execFileSync("wg", ["genkey"], { encoding: "utf8" });
  const publicKey = execFileSync("wg", ["pubkey"], { encoding: "utf8", input: privateKey }).trim();
  spawn("wireguard-go", ["-f", name], { detached: true, stdio: "ignore", env: { ...process.env, LOG_LEVEL: "silent" } }).unref();
  while (!existsSync(`/var/run/wireguard/${name}.sock`)) await delay(20);
  // wg opens its file by name, which a socket, Node's kind of pipe, does not allow.
  const script = `cat | wg set ${name} listen-port ${FIRST_PORT + i} private-key /dev/stdin peer "$1" allowed-ips 0.0.0.0/0`;
  execFileSync("sh", ["-c", script, "sh", key], { input: privateKey });
  execFileSync("ip", ["link", "set", name, "up"]);
  await redeem({ host, port: Number(port) }, secret, { ...(await prepare(name)), publicKey, endpoint }, pool);
}
