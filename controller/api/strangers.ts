/**
 * Connections that have shown no certificate of ours. Each costs memory from its first byte on, and a request that never comes whole
 * is waited for: without a limit one host could fill the memory with connections alone.
 */
import type { Server as HttpsServer } from "node:https";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { IpAddress } from "../../mesh/model/scalars.ts";
import { whose } from "../join/limit.ts";

/** Open at one time from one address. Two thousand machines behind one NAT may join at once. */
const OF_ADDRESS = 2_000;
const NEWS_MS = 60_000;

export interface StrangersOptions {
  readonly addressOf: (socket: Socket) => IpAddress | undefined;
  /** Milliseconds of a clock that nobody sets. */
  readonly monotonic: () => number;
  readonly log: (message: string, detail: object) => void;
  /** Fewer in tests. */
  readonly most?: number;
}

/**
 * Ends the oldest of them for each one more: a handshake takes milliseconds, so that whoever means it is through long before his turn comes,
 * and nobody who shares his address can keep him out by connections that stay open.
 */
export function limitStrangers(server: HttpsServer, { addressOf, monotonic, log, most = OF_ADDRESS }: StrangersOptions): void {
  /** By address, oldest first, each with how it stops counting. */
  const open = new Map<string, Map<Socket, () => void>>();
  /** The same by where it comes from: the handshake's own socket is another object than the connection's. */
  const leaving = new Map<string, () => void>();
  let toldAt = -Infinity;

  function enter(socket: Socket, key: string): void {
    const others = open.get(key) ?? new Map<Socket, () => void>();
    open.set(key, others);
    const from = endOf(socket);
    const leave = (): void => {
      socket.off("close", leave);
      if (leaving.get(from) === leave) leaving.delete(from);
      others.delete(socket);
      if (others.size === 0 && open.get(key) === others) open.delete(key);
    };
    others.set(socket, leave);
    leaving.set(from, leave);
    socket.on("close", leave);
  }

  server.on("connection", (socket: Socket) => {
    const address = addressOf(socket);
    // It has gone already.
    if (address === undefined) return;
    const key = whose(address);
    const [oldest] = open.get(key) ?? [];
    const full = (open.get(key)?.size ?? 0) >= most;
    enter(socket, key);
    if (!full || oldest === undefined) return;
    oldest[1]();
    oldest[0].destroy();
    if (monotonic() - toldAt < NEWS_MS) return;
    toldAt = monotonic();
    log("the oldest connections that are not authenticated yet are ended: too many are open from one address", { address, most });
  });
  server.on("secureConnection", (socket: TLSSocket) => {
    if (socket.authorized) leaving.get(endOf(socket))?.();
  });
}

function endOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
