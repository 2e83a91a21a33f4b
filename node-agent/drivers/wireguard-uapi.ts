/**
 * What wireguard-go says of an interface (https://www.wireguard.com/xplatform/), asked again and again over a connection that stays
 * open. A shell that starts `wg` for it costs ten times as much (docs/decisions/012-agent-weight.md); the kernel's WireGuard has no such socket.
 */
import { hash } from "node:crypto";
import { readdirSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import { IsthmusError } from "../../mesh/errors.ts";
import type { WgDevice, WgPeerSeen } from "../../mesh/kernel/types.ts";
import type { Cidr, Endpoint, WgPublicKey } from "../../mesh/model/scalars.ts";
import { wgPublicKeyOf } from "../keys.ts";
import { socketOf } from "./wireguard-go.ts";

const SUFFIX = ".sock";

/** Interfaces that have a socket, whether or not anybody listens there. */
export function userspaceInterfaces(): string[] {
  try {
    return readdirSync(dirname(socketOf("any"))).flatMap((file) => (file.endsWith(SUFFIX) ? [file.slice(0, -SUFFIX.length)] : []));
  } catch {
    return [];
  }
}

export interface UserspaceLook {
  /**
   * One question at a time. Undefined where nobody listens.
   * @throws {IsthmusError} Timeout, or KernelRefused
   */
  ask(): Promise<WgDevice | undefined>;
  close(): void;
}

export function createUserspaceLook(name: string, timeoutMs: number): UserspaceLook {
  const read = createConfigReader(name);
  let talk: Talk | undefined;
  let closed = false;
  const ask = async (): Promise<string | undefined> => {
    if (closed) return undefined;
    if (talk === undefined || talk.ended()) talk = openTalk(name);
    return talk.ask(timeoutMs);
  };
  return {
    async ask() {
      // The process behind an open connection may be gone, and another one be there.
      const answer = (await ask()) ?? (await ask());
      return answer === undefined ? undefined : read(answer);
    },
    close() {
      closed = true;
      talk?.close();
    },
  };
}

interface Talk {
  /** Undefined when the connection ended before the answer did. */
  ask(timeoutMs: number): Promise<string | undefined>;
  ended(): boolean;
  close(): void;
}

function openTalk(name: string): Talk {
  let ended = false;
  let pieces: string[] = [];
  let tail = "";
  let answered: ((text: string | undefined) => void) | undefined;
  const socket = connect(socketOf(name));
  const settle = (text: string | undefined): void => {
    pieces = [];
    tail = "";
    answered?.(text);
    answered = undefined;
  };
  const end = (): void => {
    ended = true;
    socket.destroy();
    settle(undefined);
  };
  // Waiting for a question does not keep this process alive; the deadline of an answer does.
  socket.unref();
  socket.on("error", end).on("close", end);
  socket.setEncoding("latin1").on("data", (text: string) => {
    pieces.push(text);
    // Two pieces may part the end of an answer.
    tail = (tail + text).slice(-2);
    if (tail === "\n\n") settle(pieces.join(""));
  });
  return {
    ended: () => ended,
    close: end,
    ask: (timeoutMs) =>
      new Promise((resolve, reject) => {
        if (ended) return resolve(undefined);
        const late = (): void => {
          if (answered !== mine) return;
          answered = undefined;
          reject(new IsthmusError("Timeout", `wireguard-go ${name}: no answer within ${timeoutMs} ms`));
          end();
        };
        // An answer that came while this process stood still is read first.
        const timer = setTimeout(() => setImmediate(late), timeoutMs);
        const mine = (text: string | undefined): void => {
          clearTimeout(timer);
          resolve(text);
        };
        answered = mine;
        socket.write("get=1\n\n");
      }),
  };
}

const NO_KEY = "0".repeat(64);

/**
 * Reads one answer after the other. Most peers are as they were at the last look: one whose lines are the same is the same object
 * again, and leaves nothing for the collector. They come in another order each time.
 */
export function createConfigReader(name: string): (answer: string) => WgDevice {
  let known = new Map<string, KnownPeer>();
  let own = { digest: "", publicKey: "" as WgPublicKey };
  /** The private key is there for its public half only, and is not kept. */
  const publicKeyOf = (privateKey: string): WgPublicKey => {
    const digest = hash("sha256", privateKey);
    if (digest !== own.digest) own = { digest, publicKey: wgPublicKeyOf(base64(privateKey)) };
    return own.publicKey;
  };
  return (answer) => {
    const end = answer.lastIndexOf("errno=");
    const errno = end < 0 ? "missing" : answer.slice(end + "errno=".length, -2);
    if (errno !== "0") throw new IsthmusError("KernelRefused", `wireguard-go ${name}: refused to tell its configuration (errno ${errno})`);
    const [head = "", ...blocks] = `\n${answer.slice(0, end).trimEnd()}`.split("\npublic_key=");
    const fields = fieldsOf(head);
    const privateKey = fields.get("private_key");
    const now = new Map<string, KnownPeer>();
    const peers = new Map<WgPublicKey, WgPeerSeen>();
    for (const block of blocks) {
      const key = block.slice(0, NO_KEY.length);
      const before = known.get(key);
      const peer = before?.text === block ? before : readPeer(block);
      now.set(before === undefined ? peer.key : before.key, peer);
      peers.set(peer.seen.publicKey, peer.seen);
    }
    known = now;
    return {
      publicKey: privateKey === undefined ? ("" as WgPublicKey) : publicKeyOf(privateKey),
      listenPort: Number(fields.get("listen_port") ?? 0),
      fwmark: Number(fields.get("fwmark") ?? 0),
      peers,
    };
  };
}

interface KnownPeer {
  readonly key: string;
  /** Undefined where the lines have a secret: those are read anew rather than kept. */
  readonly text?: string;
  readonly seen: WgPeerSeen;
}

function readPeer(block: string): KnownPeer {
  // A piece of a string keeps all of it in memory; this one is kept for long, the answer is not.
  const text = Buffer.from(block, "latin1").toString("latin1");
  const [key = "", ...lines] = text.split("\n");
  const allowedIps = lines.flatMap((line) => (line.startsWith("allowed_ip=") ? [line.slice("allowed_ip=".length) as Cidr] : []));
  const fields = fieldsOf(text);
  const endpoint = fields.get("endpoint");
  const secret = (fields.get("preshared_key") ?? NO_KEY) !== NO_KEY;
  const seen: WgPeerSeen = {
    publicKey: base64(key) as WgPublicKey,
    allowedIps: allowedIps.sort(),
    keepalive: Number(fields.get("persistent_keepalive_interval") ?? 0),
    latestHandshake: Number(fields.get("last_handshake_time_sec") ?? 0),
    rxBytes: Number(fields.get("rx_bytes") ?? 0),
    txBytes: Number(fields.get("tx_bytes") ?? 0),
    ...(secret ? { presharedKey: true as const } : {}),
    ...(endpoint === undefined ? {} : { endpoint: endpoint as Endpoint }),
  };
  return { key, seen, ...(secret ? {} : { text }) };
}

/** The last value of each field. */
function fieldsOf(lines: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of lines.split("\n")) {
    const at = line.indexOf("=");
    if (at > 0) fields.set(line.slice(0, at), line.slice(at + 1));
  }
  return fields;
}

function base64(hex: string): string {
  return Buffer.from(hex, "hex").toString("base64");
}
