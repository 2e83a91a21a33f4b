/**
 * How many bytes get through to each peer, inside the tunnel. An interface's MTU says what the first hop carries; a smaller hop beyond
 * that drops what is too large, and where its ICMP is lost too, TCP stalls. So packets of every size are tried, by the mesh (which
 * keeps the underlay's MTU, so that a way that has grown is found): at the first session, when a peer's endpoint changes, and rarely
 * after. What is found is kept over restarts (I2).
 */
import { z } from "zod";
import type { DesiredInput } from "../mesh/kernel/types.ts";
import { LEAST_V6_MTU, overlayMtu } from "../mesh/kernel/wireguard.ts";
import type { Plan } from "../mesh/model/plan.ts";
import type { Endpoint, IpAddress, NodeName } from "../mesh/model/scalars.ts";
import { familyOf, splitEndpoint } from "../mesh/net/ip.ts";
import { meshAddress } from "../mesh/net/overlay.ts";
import { pause } from "./backoff.ts";

/** Outer headers, RFC 791 or 8200, UDP, and WireGuard's own 32 bytes. */
const OVERHEAD = { 4: 60, 6: 80 } as const;
/** If not even this gets through, nothing can be said: the peer may not answer pings. */
const LEAST = 576;
/** WireGuard pads to 16 bytes; nothing finer can be told apart. */
const STEP = 8;
const HOUR_MS = 3_600_000;
/** Until a peer is measured again: a gateway in use, any other, one whose way is narrow. The last is twice as long each time, up to a peer's. */
const AGAIN_MS = { link: HOUR_MS, peer: 6 * HOUR_MS, narrow: 600_000 } as const;
/** One that did not answer; longer each time. */
const MUTE_MS = { link: 30_000, peer: 600_000 } as const;
/**
 * Lost packets are no narrow way: one answer of so many is enough. While the full size is asked of a way that is known to be narrow, large
 * packets of others are lost on it, so only the first time is worth so much.
 */
const TRIES = 3;
/** Peers that are no gateways in use take turns: a thousand of them must not cost an idle agent a percent of a core. */
export const PACE_MS = 20_000;

export interface MtuTarget {
  /** Its mesh address. */
  readonly address: IpAddress;
  /** Where it is reached now; another one is another way. */
  readonly endpoint: Endpoint;
  /** A gateway in use: measured before the others. */
  readonly link: boolean;
}

export interface PathMtuPorts {
  readonly stored: ReadonlyMap<NodeName, number>;
  /** What the underlay's MTU lets one expect; undefined before the first pass. */
  full(): number | undefined;
  /** Whether an undivided packet of so many bytes, its IP header included, is answered. */
  probe(address: IpAddress, bytes: number, tries: number, signal: AbortSignal): Promise<boolean>;
  /** The MTU of the way to an endpoint as the kernel learned it from ICMP; undefined where it did not. */
  learned(endpoint: Endpoint): Promise<number | undefined>;
  /** Resolves when the kernel is as the last change wants it. */
  settled(): Promise<unknown>;
  onChange(): void;
  /** Monotonic milliseconds. */
  now(): number;
  random(): number;
  log(line: string): void;
}

export interface PathMtu {
  /** Peers with a session. `known`: all peers of the plan; what is known of others is forgotten. */
  setTargets(targets: ReadonlyMap<NodeName, MtuTarget>, known: ReadonlySet<NodeName>): void;
  /** Peers to which fewer bytes than expected get through. */
  readonly narrow: ReadonlyMap<NodeName, number>;
  readonly measuring: NodeName | undefined;
  run(signal: AbortSignal): Promise<void>;
}

const Stored = z.record(z.string(), z.int());

export function formatNarrow(narrow: ReadonlyMap<NodeName, number>): string {
  return JSON.stringify(Object.fromEntries([...narrow].sort(([a], [b]) => (a < b ? -1 : 1))));
}

export function parseNarrow(value: unknown): ReadonlyMap<NodeName, number> {
  return new Map(Object.entries(Stored.parse(value)) as [NodeName, number][]);
}

/** The largest size that is answered, up to `full`; undefined when not even a small one is. A size that was lost once is tried again. */
export async function measureMtu(full: number, answered: (bytes: number) => Promise<boolean>): Promise<number | undefined> {
  if (await answered(full)) return full;
  if (!(await answered(LEAST))) return undefined;
  if (await answered(full)) return full;
  let works = LEAST;
  let fails = full;
  while (fails - works > STEP) {
    const middle = works + Math.max(STEP, Math.floor((fails - works) / 2 / STEP) * STEP);
    if (await answered(middle)) works = middle;
    else fails = middle;
  }
  return works;
}

interface Entry {
  target: MtuTarget;
  dueAt: number;
  /** Times in a row that nothing was answered. */
  mute: number;
  /** Times in a row that a narrow way was found as it was. */
  same: number;
  /** Another endpoint is another way: what is known of the last one says nothing. */
  moved: boolean;
}

export function createPathMtu(ports: PathMtuPorts): PathMtu {
  const entries = new Map<NodeName, Entry>();
  let narrow = ports.stored;
  let measuring: NodeName | undefined;
  let woken = new AbortController();
  let peersFrom = -Infinity;
  /** The same failure for a thousand peers is told once. */
  let said = "";

  const next = (): [NodeName, Entry] | undefined => {
    const now = ports.now();
    const due = [...entries].filter(([, { dueAt, target }]) => dueAt <= now && (target.link || now >= peersFrom));
    return due.toSorted(([, a], [, b]) => Number(b.target.link) - Number(a.target.link) || a.dueAt - b.dueAt)[0];
  };

  const set = (node: NodeName, bytes: number | undefined): void => {
    if (narrow.get(node) === bytes) return;
    const changed = new Map(narrow);
    if (bytes === undefined) changed.delete(node);
    else changed.set(node, bytes);
    narrow = changed;
    ports.onChange();
  };

  /** Takes the route that knows a narrow way off: meanwhile large packets of others are lost on it. */
  const open = async (node: NodeName): Promise<void> => {
    measuring = node;
    ports.onChange();
    await ports.settled();
  };

  const measure = async (node: NodeName, entry: Entry, full: number, signal: AbortSignal): Promise<void> => {
    const { address, endpoint } = entry.target;
    const probe = (bytes: number, tries = TRIES): Promise<boolean> => ports.probe(address, bytes, tries, signal);
    const known = narrow.get(node);
    try {
      let answered: number | undefined;
      if (known === undefined || known >= full || entry.moved) {
        // A route that knows the narrow way would refuse what is larger.
        if (known !== undefined) await open(node);
        answered = await measureMtu(full, probe);
      } else {
        answered = await measureMtu(known, probe);
        if (answered === known) {
          await open(node);
          if (await probe(full, entry.same === 0 ? TRIES : 1)) answered = full;
        }
      }
      if (answered === undefined) {
        const kind = entry.target.link ? "link" : "peer";
        entry.dueAt = ports.now() + Math.min(MUTE_MS[kind] * 2 ** entry.mute++, AGAIN_MS[kind]);
        return;
      }
      // Anyone may say by ICMP that a way is narrow; what carries large packets is not.
      const learned = answered < full ? await ports.learned(endpoint) : undefined;
      const bytes = Math.max(
        LEAST,
        Math.min(answered, learned === undefined ? Infinity : learned - OVERHEAD[familyOf(splitEndpoint(endpoint).address)]),
      );
      if (bytes < full && narrow.get(node) !== bytes) ports.log(`only ${bytes} of ${full} bytes get through to ${node}`);
      set(node, bytes < full ? bytes : undefined);
      entry.same = bytes === known ? entry.same + 1 : 0;
      entry.mute = 0;
      entry.moved = false;
      const narrowAgain = Math.min(AGAIN_MS.narrow * 2 ** Math.max(0, entry.same - 1), AGAIN_MS.peer);
      const after = bytes < full ? narrowAgain : entry.target.link ? AGAIN_MS.link : AGAIN_MS.peer;
      entry.dueAt = ports.now() + after * (0.75 + ports.random() / 2);
    } finally {
      if (!entry.target.link) peersFrom = ports.now() + PACE_MS;
      if (measuring !== undefined) {
        measuring = undefined;
        ports.onChange();
      }
    }
  };

  return {
    get narrow() {
      return narrow;
    },
    get measuring() {
      return measuring;
    },
    setTargets(targets, known) {
      for (const node of entries.keys()) if (!targets.has(node)) entries.delete(node);
      for (const [node, target] of targets) {
        const entry = entries.get(node);
        if (entry === undefined || entry.target.endpoint !== target.endpoint)
          entries.set(node, { target, dueAt: ports.now(), mute: 0, same: 0, moved: entry !== undefined });
        else entry.target = target;
      }
      const kept = [...narrow].filter(([node]) => known.has(node));
      if (kept.length < narrow.size) {
        narrow = new Map(kept);
        ports.onChange();
      }
      if (next() !== undefined) woken.abort();
    },
    async run(signal) {
      while (!signal.aborted) {
        woken = new AbortController();
        const full = ports.full();
        const one = full === undefined ? undefined : next();
        if (one === undefined || full === undefined) {
          await pause(PACE_MS, signal, woken.signal);
          continue;
        }
        const [node, entry] = one;
        await measure(node, entry, full, signal).catch((thrown: unknown) => {
          entry.dueAt = ports.now() + AGAIN_MS.narrow;
          const why = thrown instanceof Error ? thrown.message : String(thrown);
          if (!signal.aborted && why !== said) ports.log(`measuring the way to ${node} failed: ${why}`);
          said = why;
        });
      }
    },
  };
}

/** Peers with a session now, by where WireGuard reaches them. */
export function mtuTargets(
  { network, peers }: Plan,
  links: ReadonlyMap<NodeName, number>,
  observed: ReadonlyMap<NodeName, Endpoint>,
  fresh: readonly NodeName[],
): ReadonlyMap<NodeName, MtuTarget> {
  return new Map(
    fresh.flatMap((node): [NodeName, MtuTarget][] => {
      const [peer, endpoint] = [peers.get(node), observed.get(node)];
      if (peer === undefined || endpoint === undefined) return [];
      return [[node, { address: meshAddress(network, peer.i).v4, endpoint, link: links.has(node) }]];
    }),
  );
}

/** What is said of narrow ways; without a message where there is nothing to say. */
export function mtuConditions(input: DesiredInput): { readonly type: "SmallMtu" | "NoIPv6"; readonly message: string | undefined }[] {
  const full = overlayMtu(input);
  const narrow = [...(input.pathMtu ?? [])].filter(([, bytes]) => bytes < full).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const without = narrow.filter(([, bytes]) => bytes < LEAST_V6_MTU);
  const list = (ways: typeof narrow): string =>
    ways
      .slice(0, 10)
      .map(([node, bytes]) => `${node} (${bytes})`)
      .join(", ") + (ways.length > 10 ? ` and ${ways.length - 10} more` : "");
  const noV6 =
    full < LEAST_V6_MTU
      ? `the underlay leaves ${full} bytes for the overlay; IPv6 needs ${LEAST_V6_MTU}: there is none in the overlay`
      : without.length > 0
        ? `IPv6 needs ${LEAST_V6_MTU} bytes: there is none in the overlay to ${list(without)}`
        : undefined;
  return [
    { type: "SmallMtu", message: narrow.length === 0 ? undefined : `fewer than ${full} bytes get through to ${list(narrow)}` },
    { type: "NoIPv6", message: noV6 },
  ];
}
