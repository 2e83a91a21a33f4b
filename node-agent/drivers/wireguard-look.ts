/**
 * What WireGuard says, also while the process of one interface says nothing. `wg` waits for such a process without end and asks
 * it for other interfaces' sake too, so a look that takes too long is made again, one interface at a time. The mute one is shown
 * as it was last seen; one that stays mute is left out, as a device that speaks no WireGuard, and is made anew for that.
 */
import { readdirSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { asIsthmusError } from "../../mesh/errors.ts";
import type { WgDevice } from "../../mesh/kernel/types.ts";
import type { WgPublicKey } from "../../mesh/model/scalars.ts";
import { standBy, worked } from "./exec.ts";
import { createDumpReader, OWN_DEVICE } from "./wireguard.ts";
import { hears, isUserspace } from "./wireguard-go.ts";

/** A look at all takes milliseconds; a gateway that died is not left before it is over. */
const ALL_MS = 1_000;
const ONE_MS = 5_000;
/** A process that is asked for the first time is waited for; its answer may also come later. */
const ANSWER_MS = 300;
/** Whoever has not answered one question for so long hangs, and is ended. */
const HUNG_MS = 10_000;
/** Somebody else's process may be the mute one: all are asked together again after this time. */
const ALONE_MS = 5_000;

const UNKNOWN = { publicKey: "" as WgPublicKey, listenPort: 0, fwmark: 0, peers: new Map() };

export interface WireguardLook {
  /** What WireGuard says of every interface. */
  (): Promise<ReadonlyMap<string, WgDevice>>;
  /** A request got no answer: asks whether its process still answers anybody. */
  suspect(name: string): void;
  isMute(name: string): boolean;
  /** The process is another one from here on. */
  forget(name: string): void;
}

interface Asked {
  readonly outcome: Promise<unknown>;
  hung: boolean;
}

export function createWireguardLook(): WireguardLook {
  const all = standBy(ALL_MS);
  const one = standBy(ONE_MS);
  const read = createDumpReader();
  const mute = new Map<string, Asked>();
  let last: ReadonlyMap<string, WgDevice> = new Map();
  let allAgainAt = -Infinity;

  const suspect = (name: string): Promise<unknown> => {
    const before = mute.get(name);
    if (before !== undefined) return before.outcome;
    const outcome = hears(name, HUNG_MS, true).then((heard) => {
      if (mute.get(name) !== asked) return;
      if (heard === "silence") asked.hung = true;
      else mute.delete(name);
    });
    const asked: Asked = { outcome, hung: false };
    mute.set(name, asked);
    return outcome;
  };

  const dumpOf = async (name: string): Promise<string[]> => {
    try {
      const { ok, stdout } = await one("wg", ["show", name, "dump"]);
      const lines = stdout.split("\n").filter((line) => line !== "");
      return ok ? lines.map((line) => `${name}\t${line}`) : [];
    } catch (error) {
      if (asIsthmusError(error).code !== "Timeout") throw error;
      void suspect(name);
      return [];
    }
  };

  const oneByOne = async (): Promise<Map<string, WgDevice>> => {
    const names = readdirSync("/proc/sys/net/ipv4/conf").filter((name) => OWN_DEVICE.test(name));
    for (const name of mute.keys()) if (!names.includes(name)) mute.delete(name);
    const fresh = names.filter((name) => !mute.has(name) && isUserspace(name));
    const over = new AbortController();
    await Promise.race([Promise.all(fresh.map(suspect)), delay(ANSWER_MS, undefined, { signal: over.signal }).catch(() => {})]);
    over.abort();
    const lines: string[] = [];
    for (const name of names) if (!mute.has(name)) lines.push(...(await dumpOf(name)));
    const found = read(lines.join("\n"));
    for (const [name, { hung }] of mute) if (!hung) found.set(name, { ...(last.get(name) ?? UNKNOWN), mute: true });
    return found;
  };

  const look = async (): Promise<ReadonlyMap<string, WgDevice>> => {
    if (mute.size === 0 && performance.now() >= allAgainAt) {
      try {
        last = read(worked("wg", ["show", "all", "dump"], await all("wg", ["show", "all", "dump"])));
        return last;
      } catch (error) {
        if (asIsthmusError(error).code !== "Timeout") throw error;
        allAgainAt = performance.now() + ALONE_MS;
      }
    }
    last = await oneByOne();
    return last;
  };
  return Object.assign(look, {
    suspect: (name: string) => void suspect(name),
    isMute: (name: string) => mute.has(name),
    forget: (name: string) => void mute.delete(name),
  });
}
