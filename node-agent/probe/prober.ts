/**
 * Probes the links to gateways: a small UDP datagram leaves from this node's client link address every interval, and the
 * gateway's kernel sends it back through its own forward hook (docs/dataplane: kernel echo). One socket, one timer.
 *
 * Node runs timers before it polls sockets, so a miss is decided in `setImmediate`, after the poll that follows the timer:
 * answers that already lay in the buffer while this process stood still are read first.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { randomBytes } from "node:crypto";
import { createLinkHealth, isReturning, linkView, onAnswer, onGatewayState, onSent, setConfig, type HealthState } from "../../mesh/elect/health.ts";
import { isSilent } from "../../mesh/elect/stall.ts";
import type { GatewayState, LinkView } from "../../mesh/elect/types.ts";
import { createLinkWatch, judgeWatch, onTimer, takeNews, tellStalled } from "../../mesh/elect/watch.ts";
import type { IpAddress, NodeName } from "../../mesh/model/scalars.ts";
import { familyOf } from "../../mesh/net/ip.ts";
import type { Clock } from "./clock.ts";

export interface ProbeTarget {
  readonly node: NodeName;
  /** The gateway's link address of the family of `bind`. */
  readonly address: IpAddress;
  readonly intervalMs: number;
  readonly threshold: number;
  readonly holdDownMs: number;
}

export interface ProberOptions {
  /** This node's client link address. Tried again until it exists. */
  readonly bind: IpAddress;
  readonly echoPort: number;
  readonly clock: Clock;
}

export interface Prober {
  /** What to probe from now on; what is known of targets that stay is kept. */
  setTargets(targets: readonly ProbeTarget[]): void;
  /** Word of a gateway (`link-state.ts`). */
  gatewayState(node: NodeName, state: GatewayState, downPaths: readonly string[]): void;
  /** One view per target, `Unknown` before the first answer. */
  links(): ReadonlyMap<NodeName, LinkView>;
  /** All links are silent, or this process stood still in the last window. Who is told so hears of its end by `onChange`. */
  stalled(): boolean;
  /** Called after every change of a verdict or of a gateway's word, and when a standstill that was told is over. */
  onChange(listener: () => void): void;
  close(): void;
}

/** Two bytes that name the format, two of zeros, the sequence number, and eight random bytes per target. */
const MAGIC = 0x4953;
const SIZE = 16;
const BIND_RETRY_MS = 200;
/** A dead gateway that answers again is asked that much more often until it is believed: as many answers, in less time. */
const HURRY = 5;
/** libuv reads at most this many datagrams per poll; beyond, another poll must follow before anything is decided. */
const READS_PER_POLL = 32;

interface Target {
  readonly node: NodeName;
  readonly address: IpAddress;
  readonly health: HealthState;
  readonly packet: Buffer;
  nextAt: number;
}

export function createProber({ bind, echoPort, clock }: ProberOptions): Prober {
  const targets = new Map<NodeName, Target>();
  const byAddress = new Map<string, Target>();
  const listeners: (() => void)[] = [];
  const watch = createLinkWatch();
  let socket: Socket | undefined;
  let ready = false;
  let timer: NodeJS.Timeout | undefined;
  let retry: NodeJS.Timeout | undefined;
  let dueAt = 0;
  let readThisPoll = 0;
  let closed = false;

  const open = (): void => {
    retry = undefined;
    const family = familyOf(bind);
    // Addresses only: the default lookup costs a tick and an allocation per datagram.
    const next = createSocket({ type: family === 4 ? "udp4" : "udp6", lookup: (host, _options, done) => done(null, host, family) });
    next.on("message", read);
    next.on("error", () => reopen(next));
    next.bind({ port: echoPort, address: bind, exclusive: true }, () => {
      ready = true;
    });
    socket = next;
  };
  const reopen = (broken: Socket): void => {
    if (socket !== broken) return;
    socket = undefined;
    ready = false;
    broken.close();
    if (!closed) retry = setTimeout(open, BIND_RETRY_MS);
  };

  const read = (message: Buffer, from: RemoteInfo): void => {
    readThisPoll++;
    const target = from.port === echoPort ? byAddress.get(from.address) : undefined;
    if (target === undefined || message.length !== SIZE || message.compare(target.packet, 8, SIZE, 8, SIZE) !== 0) return;
    if (message.readUInt16BE(0) !== MAGIC) return;
    if (onAnswer(target.health, message.readUInt32BE(4), clock.now()) && isReturning(target.health)) hurry(target);
    // Links that wait for a witness are judged again, after the rest of this poll.
    if (isSilent(watch.links)) setImmediate(judge, clock.now());
    // A first answer or a recovery is told at once; misses are told by the tick.
    if (target.health.version !== target.health.told && takeNews(watch)) tell();
  };

  const tick = (): void => {
    const now = clock.now();
    const shortest = watch.links.reduce((least, { config }) => Math.min(least, config.intervalMs), Infinity);
    onTimer(watch, dueAt, now, shortest);
    readThisPoll = 0;
    setImmediate(judge, now);
    send(now);
    schedule(now);
  };

  const judge = (at: number): void => {
    if (closed) return;
    if (readThisPoll >= READS_PER_POLL) {
      readThisPoll = 0;
      setImmediate(judge, at);
      return;
    }
    if (judgeWatch(watch, at)) tell();
  };

  const send = (now: number): void => {
    for (const target of targets.values()) {
      if (target.nextAt > now + 1) continue;
      const interval = target.health.config.intervalMs;
      // On a common grid, so that links of one interval share their windows and the process wakes once for all.
      target.nextAt = (Math.floor((now + 1) / interval) + 1) * interval;
      if (!ready) continue;
      target.packet.writeUInt32BE(onSent(target.health, now), 4);
      // One that cannot leave (no route yet, link gone) is a probe without an answer, which says it all: nobody is called back.
      socket?.send(target.packet, echoPort, target.address);
    }
  };

  const hurry = (target: Target): void => {
    const now = clock.now();
    target.nextAt = Math.min(target.nextAt, now + target.health.config.intervalMs / HURRY);
    schedule(now);
  };

  const schedule = (now: number): void => {
    clearTimeout(timer);
    timer = undefined;
    if (closed || targets.size === 0) return;
    dueAt = Infinity;
    for (const { nextAt } of targets.values()) dueAt = Math.min(dueAt, nextAt);
    timer = setTimeout(tick, Math.max(0, dueAt - now));
  };

  const tell = (): void => {
    for (const listener of listeners) listener();
  };

  open();
  return {
    setTargets(wanted) {
      const now = clock.now();
      const keep = new Set(wanted.map(({ node }) => node));
      for (const [node, { address }] of targets) {
        if (keep.has(node) && wanted.some((one) => one.node === node && one.address === address)) continue;
        targets.delete(node);
        byAddress.delete(address);
      }
      for (const { node, address, intervalMs, threshold, holdDownMs } of wanted) {
        const config = { intervalMs, threshold, holdDownMs };
        const known = targets.get(node);
        if (known !== undefined) {
          setConfig(known.health, config);
          known.nextAt = Math.min(known.nextAt, now + intervalMs);
          continue;
        }
        const packet = randomBytes(SIZE);
        packet.writeUInt32BE(MAGIC * 0x10000, 0);
        const target: Target = { node, address, health: createLinkHealth(config, now), packet, nextAt: now };
        targets.set(node, target);
        byAddress.set(address, target);
      }
      watch.links = [...targets.values()].map(({ health }) => health);
      schedule(now);
    },
    gatewayState(node, state, downPaths) {
      const target = targets.get(node);
      if (target === undefined) return;
      onGatewayState(target.health, state, downPaths, clock.now());
      if (takeNews(watch)) tell();
    },
    links: () => new Map([...targets.values()].map(({ node, health }) => [node, linkView(node, health)])),
    stalled: () => tellStalled(watch),
    onChange(listener) {
      listeners.push(listener);
    },
    close() {
      closed = true;
      clearTimeout(timer);
      clearTimeout(retry);
      socket?.close();
      socket = undefined;
    },
  };
}
