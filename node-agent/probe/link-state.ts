/**
 * What a gateway says of itself, on the link: pushed on change, asked each second. The link authenticates it: WireGuard lets
 * only the gateway send from its link address. JSON in one datagram each way.
 */
import { createSocket, type Socket } from "node:dgram";
import { randomBytes } from "node:crypto";
import { z } from "zod";
import type { GatewayState } from "../../mesh/elect/types.ts";
import type { IpAddress, NodeName } from "../../mesh/model/scalars.ts";
import { familyOf } from "../../mesh/net/ip.ts";
import type { Clock } from "./clock.ts";

/**
 * `down`: paths that the gateway cannot carry at present, its uplink checks say; and `site/<site>` for one site of several that it does not
 * reach, which moves nobody (docs/decisions/018).
 */
export interface GatewayWord {
  readonly state: Exclude<GatewayState, "Unknown">;
  readonly down: readonly string[];
}

const Ask = z.object({ t: z.literal("ask") });
/** `b` names the run of the sender and `n` counts within it, so that an older word never replaces a newer one. */
const Word = z.object({
  t: z.literal("state"),
  s: z.enum(["Serving", "Draining", "UplinkDown"]),
  d: z.array(z.string().max(128)).max(1000).default([]),
  b: z.string().max(32),
  n: z.int(),
});

const ASK_MS = 1_000;
/** After a boot the address is there a moment before the link answers, and then somebody asks. */
const RETRY_MS = 50;
/** A client that has not asked for so long is gone. */
const CLIENT_GONE_MS = 30_000;
/** A push may be lost: it is said again at these times, well inside the second until the next question. */
const REPEAT_MS = [0, 20, 60] as const;

export interface StateServer {
  /** Something changed: tell every client now. */
  push(): void;
  close(): void;
}

export interface StateServerOptions {
  /** This node's gateway link address. Tried again until it exists. */
  readonly bind: IpAddress;
  readonly port: number;
  readonly clock: Clock;
  /** What to say to the client with this link address; nothing while nothing is known. */
  readonly state: (client: IpAddress) => GatewayWord | undefined;
}

/** The gateway's side. */
export function createStateServer({ bind, port, clock, state }: StateServerOptions): StateServer {
  const run = randomBytes(6).toString("base64url");
  const clients = new Map<IpAddress, number>();
  const timers = new Set<NodeJS.Timeout>();
  let count = 0;
  const channel = openChannel(bind, port, (text, from) => {
    if (!Ask.safeParse(text).success) return;
    clients.set(from, clock.now());
    say(from);
  });
  const say = (client: IpAddress): void => {
    const word = state(client);
    if (word !== undefined) channel.send({ t: "state", s: word.state, d: word.down, b: run, n: ++count }, client);
  };
  const sayAll = (): void => {
    const now = clock.now();
    for (const [client, at] of clients) {
      if (now - at > CLIENT_GONE_MS) clients.delete(client);
      else say(client);
    }
  };
  return {
    push() {
      for (const delay of REPEAT_MS) {
        if (delay === 0) {
          sayAll();
          continue;
        }
        const timer = setTimeout(() => {
          timers.delete(timer);
          sayAll();
        }, delay);
        timers.add(timer);
      }
    },
    close() {
      for (const timer of timers) clearTimeout(timer);
      channel.close();
    },
  };
}

export interface StateClient {
  /** Asks one gateway now: it may have forgotten whom it tells. */
  ask(node: NodeName): void;
  setGateways(gateways: readonly { readonly node: NodeName; readonly address: IpAddress }[]): void;
  close(): void;
}

export interface StateClientOptions {
  /** This node's client link address. Tried again until it exists. */
  readonly bind: IpAddress;
  readonly port: number;
  readonly onWord: (node: NodeName, word: GatewayWord) => void;
}

/** The client's side: asks every gateway each second, and listens to what they push. */
export function createStateClient({ bind, port, onWord }: StateClientOptions): StateClient {
  let gateways = new Map<IpAddress, { readonly node: NodeName; run: string; count: number }>();
  const channel = openChannel(bind, port, (message, from) => {
    const gateway = gateways.get(from);
    const word = Word.safeParse(message);
    if (gateway === undefined || !word.success) return;
    const { s, d, b, n } = word.data;
    if (gateway.run === b && n <= gateway.count) return;
    gateway.run = b;
    gateway.count = n;
    onWord(gateway.node, { state: s, down: d });
  });
  const ask = (): void => {
    for (const address of gateways.keys()) channel.send({ t: "ask" }, address);
  };
  const timer = setInterval(ask, ASK_MS);
  channel.onOpen(ask);
  return {
    ask(node) {
      for (const [address, gateway] of gateways) if (gateway.node === node) channel.send({ t: "ask" }, address);
    },
    setGateways(wanted) {
      const before = gateways;
      gateways = new Map(
        wanted.map(({ node, address }) => {
          const known = before.get(address);
          return [address, known?.node === node ? known : { node, run: "", count: 0 }];
        }),
      );
      for (const address of gateways.keys()) if (!before.has(address)) channel.send({ t: "ask" }, address);
    },
    close() {
      clearInterval(timer);
      channel.close();
    },
  };
}

interface Channel {
  send(message: unknown, to: IpAddress): void;
  onOpen(listener: () => void): void;
  close(): void;
}

/** One UDP socket of JSON datagrams between equal ports; it is opened again for as long as its address is missing. */
function openChannel(bind: IpAddress, port: number, onMessage: (message: unknown, from: IpAddress) => void): Channel {
  const family = familyOf(bind);
  let socket: Socket | undefined;
  let ready = false;
  let retry: NodeJS.Timeout | undefined;
  let closed = false;
  let opened = (): void => {};
  const open = (): void => {
    retry = undefined;
    const next = createSocket({ type: family === 4 ? "udp4" : "udp6", lookup: (host, _options, done) => done(null, host, family) });
    next.on("message", (data, from) => {
      if (from.port === port) onMessage(parse(data), from.address as IpAddress);
    });
    next.on("error", () => {
      if (socket !== next) return;
      socket = undefined;
      ready = false;
      next.close();
      if (!closed) retry = setTimeout(open, RETRY_MS);
    });
    next.bind({ port, address: bind, exclusive: true }, () => {
      ready = true;
      opened();
    });
    socket = next;
  };
  open();
  return {
    // What cannot leave now is asked again within a second.
    send(message, to) {
      if (ready) socket?.send(JSON.stringify(message), port, to);
    },
    onOpen(listener) {
      opened = listener;
    },
    close() {
      closed = true;
      clearTimeout(retry);
      socket?.close();
      socket = undefined;
    },
  };
}

function parse(data: Buffer): unknown {
  try {
    return JSON.parse(data.toString("utf8"));
  } catch {
    return undefined;
  }
}
