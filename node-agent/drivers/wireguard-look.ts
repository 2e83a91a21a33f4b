/**
 * What WireGuard says, also while the process of one interface says nothing. Processes are asked each at its own socket, and the
 * kernel by `wg`. That waits without end for a process that hangs, be it somebody else's, so a look that takes too long is made again,
 * one interface at a time. A mute one is shown as it was last seen; one that stays mute is left out, as a device that speaks no
 * WireGuard, and is made anew for that.
 */
import { readdirSync } from "node:fs";
import { asIsthmusError } from "../../mesh/errors.ts";
import type { WgDevice } from "../../mesh/kernel/types.ts";
import type { WgPublicKey } from "../../mesh/model/scalars.ts";
import { standBy, worked } from "./exec.ts";
import { createDumpReader, OWN_DEVICE } from "./wireguard.ts";
import { hears } from "./wireguard-go.ts";
import { createUserspaceLook, userspaceInterfaces, type UserspaceLook } from "./wireguard-uapi.ts";

/** A look at all takes milliseconds; a gateway that died is not left before it is over. */
const ALL_MS = 1_000;
const ONE_MS = 5_000;
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

export function createWireguardLook(): WireguardLook {
  const all = standBy(ALL_MS);
  const one = standBy(ONE_MS);
  const read = createDumpReader();
  const mute = new Map<string, { hung: boolean }>();
  const processes = new Map<string, UserspaceLook>();
  let last: ReadonlyMap<string, WgDevice> = new Map();
  let allAgainAt = -Infinity;

  const suspect = (name: string): void => {
    if (mute.has(name)) return;
    const asked = { hung: false };
    mute.set(name, asked);
    void hears(name, HUNG_MS, true).then((heard) => {
      if (mute.get(name) !== asked) return;
      if (heard === "silence") asked.hung = true;
      else mute.delete(name);
    });
  };

  const dumpOf = async (name: string): Promise<string[]> => {
    try {
      const { ok, stdout } = await one("wg", ["show", name, "dump"]);
      const lines = stdout.split("\n").filter((line) => line !== "");
      return ok ? lines.map((line) => `${name}\t${line}`) : [];
    } catch (error) {
      if (asIsthmusError(error).code !== "Timeout") throw error;
      suspect(name);
      return [];
    }
  };

  const askKernel = async (names: readonly string[]): Promise<Map<string, WgDevice>> => {
    const lines: string[] = [];
    for (const name of names) lines.push(...(await dumpOf(name)));
    return read(lines.join("\n"));
  };

  const processOf = (name: string): UserspaceLook => {
    const process = processes.get(name) ?? createUserspaceLook(name, ALL_MS);
    processes.set(name, process);
    return process;
  };
  const leave = (name: string): void => {
    processes.get(name)?.close();
    processes.delete(name);
  };

  const askProcess = async (name: string): Promise<readonly [string, WgDevice][]> => {
    try {
      const device = await processOf(name).ask();
      return device === undefined ? [] : [[name, device]];
    } catch (error) {
      if (asIsthmusError(error).code !== "Timeout") throw error;
      suspect(name);
      return [];
    }
  };

  const oneByOne = async (userspace: readonly string[]): Promise<Map<string, WgDevice>> => {
    const names = readdirSync("/proc/sys/net/ipv4/conf").filter((name) => OWN_DEVICE.test(name));
    for (const name of mute.keys()) if (!names.includes(name)) mute.delete(name);
    const asked = names.filter((name) => !mute.has(name));
    const [kernel, ...processes] = await Promise.all([
      askKernel(asked.filter((name) => !userspace.includes(name))),
      ...asked.filter((name) => userspace.includes(name)).map(askProcess),
    ]);
    const found = new Map([...kernel, ...processes.flat()]);
    for (const [name, { hung }] of mute) if (!hung) found.set(name, { ...(last.get(name) ?? UNKNOWN), mute: true });
    return found;
  };

  const lookOnce = async (): Promise<ReadonlyMap<string, WgDevice>> => {
    const userspace = userspaceInterfaces().filter((name) => OWN_DEVICE.test(name));
    for (const name of processes.keys()) if (!userspace.includes(name)) leave(name);
    if (userspace.length === 0 && mute.size === 0 && performance.now() >= allAgainAt) {
      try {
        last = read(worked("wg", ["show", "all", "dump"], await all("wg", ["show", "all", "dump"])));
        return last;
      } catch (error) {
        if (asIsthmusError(error).code !== "Timeout") throw error;
        allAgainAt = performance.now() + ALONE_MS;
      }
    }
    last = await oneByOne(userspace);
    return last;
  };
  /** A process is asked one question at a time; who comes second sees what happened meanwhile. */
  let tail: Promise<unknown> = Promise.resolve();
  const look = (): Promise<ReadonlyMap<string, WgDevice>> => {
    const next = tail.then(lookOnce);
    tail = next.catch(() => undefined);
    return next;
  };
  return Object.assign(look, {
    suspect,
    isMute: (name: string) => mute.has(name),
    forget(name: string) {
      mute.delete(name);
      leave(name);
    },
  });
}
