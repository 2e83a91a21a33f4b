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

/** Ends what is more at once, before its handshake: there is nobody yet to whom a reason could be told. */
export function limitStrangers(server: HttpsServer, { addressOf, monotonic, log, most = OF_ADDRESS }: StrangersOptions): void {
  const open = new Map<string, number>();
  /** How each one stops counting, by where it comes from: the handshake's own socket is another object than the connection's. */
  const leaving = new Map<string, () => void>();
  let toldAt = -Infinity;

  function enter(socket: Socket, key: string): void {
    open.set(key, (open.get(key) ?? 0) + 1);
    const from = endOf(socket);
    const leave = (): void => {
      socket.off("close", leave);
      leaving.delete(from);
      const left = (open.get(key) ?? 1) - 1;
      if (left === 0) open.delete(key);
      else open.set(key, left);
    };
    leaving.set(from, leave);
    socket.on("close", leave);
  }

  server.on("connection", (socket: Socket) => {
    const address = addressOf(socket);
    // It has gone already.
    if (address === undefined) return;
    const key = whose(address);
    if ((open.get(key) ?? 0) < most) return enter(socket, key);
    socket.destroy();
    if (monotonic() - toldAt < NEWS_MS) return;
    toldAt = monotonic();
    log("connections without a certificate are refused: too many are open from one address", { address, most });
  });
  server.on("secureConnection", (socket: TLSSocket) => {
    if (socket.authorized) leaving.get(endOf(socket))?.();
  });
}

function endOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
