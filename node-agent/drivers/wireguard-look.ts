/**
 * What WireGuard says, also while somebody says nothing. Processes are asked each at its own socket, and the kernel by `wg`. That waits
 * without end for a process that hangs, be it somebody else's, so a look that takes too long is made again, one interface at a time.
 * Who does not answer in time is shown as it was last seen, and as mute. Only a word that it is no WireGuard device, or a process that
 * stays mute, leaves an interface out: it is made anew for that.
 */
import { readdirSync } from "node:fs";
import { asIsthmusError } from "../../mesh/errors.ts";
import type { WgDevice } from "../../mesh/kernel/types.ts";
import type { WgPublicKey } from "../../mesh/model/scalars.ts";
import { type Look, refused, standBy, worked } from "./exec.ts";
import { createDumpReader, OWN_DEVICE, parseDump } from "./wireguard.ts";
import { hears, isUserspace } from "./wireguard-go.ts";
import { createUserspaceLook, userspaceInterfaces, type UserspaceLook } from "./wireguard-uapi.ts";

/** A look at all takes milliseconds; a gateway that died is not left before it is over. */
const ALL_MS = 1_000;
const ONE_MS = 5_000;
/** Whoever has not answered one question for so long hangs, and is ended. */
const HUNG_MS = 10_000;
/** Somebody else's process may be the mute one: all are asked together again after this time. */
const ALONE_MS = 5_000;

/** What `wg` says of a device that is none of its own: gone, of another kind, and of any where the kernel has no WireGuard. */
const NONE = /: (No such device|Operation not supported|Protocol not supported)$/;
const UNREAD = /^Unable to access interface (\S+): /;

const UNKNOWN = { publicKey: "" as WgPublicKey, listenPort: 0, fwmark: 0, peers: new Map() };

export interface LookPorts {
  /** For `wg` and every interface at once. */
  readonly all: Look;
  /** For `wg` and one interface. */
  readonly one: Look;
  /** Every network interface. */
  names(): readonly string[];
  /** Those that have the socket of a process. */
  sockets(): readonly string[];
}

function hostPorts(): LookPorts {
  return { all: standBy(ALL_MS), one: standBy(ONE_MS), names: () => readdirSync("/proc/sys/net/ipv4/conf"), sockets: userspaceInterfaces };
}

export interface WireguardLook {
  /**
   * What WireGuard says of every interface.
   * @throws {IsthmusError} Timeout where an interface of the kernel was never seen, or what `wg` complained of
   */
  (): Promise<ReadonlyMap<string, WgDevice>>;
  /** A request got no answer: asks whether its process still answers anybody. */
  suspect(name: string): void;
  isMute(name: string): boolean;
  /** The interface is another one from here on. */
  forget(name: string): void;
}

type Seen = readonly [string, WgDevice];

export function createWireguardLook({ all, one, names, sockets }: LookPorts = hostPorts()): WireguardLook {
  const read = createDumpReader();
  const mute = new Map<string, { hung: boolean }>();
  const processes = new Map<string, UserspaceLook>();
  const last = new Map<string, WgDevice>();
  let allAgainAt = -Infinity;
  /** `wg` did not answer in time for the kernel: nobody waits for it before it does. */
  let late: { asking: boolean } | undefined;

  const suspect = (name: string): void => {
    if (mute.has(name) || !isUserspace(name)) return;
    const asked = { hung: false };
    mute.set(name, asked);
    void hears(name, HUNG_MS, true).then((heard) => {
      if (mute.get(name) !== asked) return;
      if (heard === "silence") asked.hung = true;
      else mute.delete(name);
    });
  };

  /** Undefined while `wg` answers late. */
  const dumpOf = async (name: string): Promise<string | undefined> => {
    try {
      const answer = await one("wg", ["show", name, "dump"]);
      if (!answer.ok && NONE.test(answer.stderr.trimEnd())) return "";
      const lines = worked("wg", ["show", name, "dump"], answer).split("\n");
      return lines.map((line) => (line === "" ? "" : `${name}\t${line}`)).join("\n");
    } catch (error) {
      if (asIsthmusError(error).code !== "Timeout" || !last.has(name)) throw error;
      return undefined;
    }
  };

  const askAside = (name: string): void => {
    if (late?.asking === true) return;
    const mine = { asking: true };
    late = mine;
    one("wg", ["show", name, "dump"]).then(
      () => (late = undefined),
      (error: unknown) => {
        if (asIsthmusError(error).code === "Timeout") mine.asking = false;
        else late = undefined;
      },
    );
  };

  /** The kernel is one: where it answers late for one interface, the others are not waited for. */
  const askKernel = async (asked: readonly string[]): Promise<Seen[]> => {
    const dumps: string[] = [];
    const silent: string[] = [];
    for (const name of asked) {
      const dump = late !== undefined && last.has(name) ? undefined : await dumpOf(name);
      if (dump === undefined) {
        silent.push(name);
        askAside(name);
      } else {
        dumps.push(dump);
        late = undefined;
      }
    }
    return [...read(dumps.join("\n")), ...silent.map(asLastSeen)];
  };

  const asLastSeen = (name: string): Seen => [name, { ...(last.get(name) ?? UNKNOWN), mute: true }];

  const processOf = (name: string): UserspaceLook => {
    const process = processes.get(name) ?? createUserspaceLook(name, ALL_MS);
    processes.set(name, process);
    return process;
  };
  const leave = (name: string): void => {
    processes.get(name)?.close();
    processes.delete(name);
  };

  const askProcess = async (name: string): Promise<Seen[]> => {
    const known = mute.get(name);
    if (known !== undefined) return known.hung ? [] : [asLastSeen(name)];
    try {
      const device = await processOf(name).ask();
      if (device !== undefined) return [[name, device]];
      // Its socket may have outlived it, and the kernel have the interface now. `wg` tells that apart, and removes such a socket.
      const dump = await dumpOf(name);
      return dump === undefined ? [asLastSeen(name)] : [...parseDump(dump)];
    } catch (error) {
      const { code } = asIsthmusError(error);
      if (code !== "Timeout" && code !== "KernelRefused") throw error;
      if (code === "Timeout") suspect(name);
      return [asLastSeen(name)];
    }
  };

  const oneByOne = async (userspace: readonly string[]): Promise<Map<string, WgDevice>> => {
    const ours = names().filter((name) => OWN_DEVICE.test(name));
    for (const name of mute.keys()) if (!ours.includes(name)) mute.delete(name);
    const isProcess = (name: string): boolean => userspace.includes(name) || mute.has(name);
    const found = await Promise.all([askKernel(ours.filter((name) => !isProcess(name))), ...ours.filter(isProcess).map(askProcess)]);
    return new Map(found.flat());
  };

  const together = async (): Promise<Map<string, WgDevice>> => {
    const answer = await all("wg", ["show", "all", "dump"]);
    const dump = worked("wg", ["show", "all", "dump"], answer);
    // It goes on after an interface that it could not read.
    const unread = answer.stderr.split("\n").filter((line) => OWN_DEVICE.test(UNREAD.exec(line)?.[1] ?? "") && !NONE.test(line));
    if (unread.length > 0) throw refused("wg show all dump", unread.join("\n"));
    return read(dump);
  };

  const lookOnce = async (): Promise<ReadonlyMap<string, WgDevice>> => {
    const userspace = sockets().filter((name) => OWN_DEVICE.test(name));
    for (const name of processes.keys()) if (!userspace.includes(name)) leave(name);
    if (userspace.length === 0 && mute.size === 0 && late === undefined && performance.now() >= allAgainAt) {
      try {
        return remember(await together());
      } catch (error) {
        if (asIsthmusError(error).code !== "Timeout") throw error;
        allAgainAt = performance.now() + ALONE_MS;
      }
    }
    return remember(await oneByOne(userspace));
  };
  const remember = (found: ReadonlyMap<string, WgDevice>): ReadonlyMap<string, WgDevice> => {
    last.clear();
    for (const [name, device] of found) last.set(name, device);
    return found;
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
      last.delete(name);
      mute.delete(name);
      leave(name);
    },
  });
}
