/**
 * When each peer's last handshake was. WireGuard says it by the wall clock, and that may be set while the agent runs: ahead, and every
 * session looks dead and is dialed elsewhere; back, and a dead one looks alive. So a time is put where this node saw it change, and ages
 * by the time since boot from then on. What was there before the agent nobody saw change: see `DOUBT_MS`. Pure; time is a parameter.
 */
import type { WgPeer } from "../mesh/kernel/types.ts";
import type { WgPublicKey } from "../mesh/model/scalars.ts";
import { FRESH_MS } from "./dial.ts";

/**
 * A session that was there before this agent is not given up for an old time alone, which may be that of a clock that was set: it counts
 * as alive for one keepalive interval (25 s), and for one more whenever something came over it, until a handshake tells more.
 */
export const DOUBT_MS = 30_000;

/** One moment by both clocks, in milliseconds. */
export interface Moment {
  /** Since 1970, as the clock is set now; WireGuard reads the same one. */
  readonly wall: number;
  /** Since boot, sleep included. */
  readonly boot: number;
}

type Devices<Device> = ReadonlyMap<string, Device>;
interface HasPeers {
  readonly peers: ReadonlyMap<WgPublicKey, WgPeer>;
  /** Shown as it was last seen, if it was. */
  readonly mute?: true;
}

export interface HandshakeTimes {
  /** Milliseconds since 1970 by the clock as it was set when the agent began: nobody sets this one. */
  now(): number;
  /**
   * The same devices with handshakes by `now`. The first call says what was there before the agent wrote anything, but for a device that
   * was mute: its first answer does. What needs no correction stays the same object.
   */
  seen<Device extends HasPeers>(devices: Devices<Device>): Devices<Device>;
}

interface Handshake {
  /** As WireGuard says it. */
  readonly told: number;
  /** By `now`. */
  readonly at: number;
  /** From before this agent. */
  readonly inherited?: { readonly rxBytes: number; readonly aliveUntil: number };
}

interface Interface {
  readonly peers: Map<string, Handshake>;
  /** When it last answered, or was not there; undefined before that. By `now`. */
  lookedAt: number | undefined;
}

export function createHandshakeTimes(clock: () => Moment): HandshakeTimes {
  const began = clock();
  const steadyOf = ({ boot }: Moment): number => boot - began.boot + began.wall;
  /** By interface, also of one that did not answer for a while. */
  const known = new Map<string, Interface>();
  /** The last look at whatever there was. */
  let lookedAtAll: number | undefined;

  const look = ({ peers: of, lookedAt }: Interface, { publicKey, latestHandshake: told = 0, rxBytes = 0 }: WgPeer, moment: Moment): number => {
    if (told === 0) {
      of.delete(publicKey);
      return 0;
    }
    const now = steadyOf(moment);
    const before = of.get(publicKey);
    let one = before;
    if (one?.told !== told) {
      const heard = Math.min(now, told * 1_000 - moment.wall + now);
      one =
        lookedAt === undefined
          ? { told, at: heard, inherited: { rxBytes, aliveUntil: now + DOUBT_MS } }
          : // Whole seconds: the second in which the last look was may be the handshake's, too.
            { told, at: Math.max(heard, lookedAt - 1_000) };
    } else if (one.inherited !== undefined && rxBytes > one.inherited.rxBytes) {
      one = { ...one, inherited: { rxBytes, aliveUntil: now + DOUBT_MS } };
    }
    if (one !== before) of.set(publicKey, one);
    const alive = now < (one.inherited?.aliveUntil ?? -Infinity);
    const time = Math.round((alive ? Math.max(one.at, now - FRESH_MS + DOUBT_MS) : one.at) / 1_000);
    // Both clocks are read one after the other.
    return Math.abs(time - told) <= 1 ? told : time;
  };

  return {
    now: () => steadyOf(clock()),
    seen<Device extends HasPeers>(devices: Devices<Device>): Devices<Device> {
      const moment = clock();
      let result: Map<string, Device> | undefined;
      for (const [link, device] of devices) {
        const one = known.get(link) ?? { peers: new Map<string, Handshake>(), lookedAt: lookedAtAll };
        known.set(link, one);
        let peers: Map<WgPublicKey, WgPeer> | undefined;
        for (const [key, peer] of device.peers) {
          const latestHandshake = look(one, peer, moment);
          if (latestHandshake !== (peer.latestHandshake ?? 0)) (peers ??= new Map(device.peers)).set(key, { ...peer, latestHandshake });
        }
        if (device.mute !== true) dropOthers(one.peers, device.peers);
        if (peers !== undefined) (result ??= new Map(devices)).set(link, { ...device, peers });
      }
      lookedAtAll = steadyOf(moment);
      for (const [link, one] of known) if (devices.get(link)?.mute !== true) one.lookedAt = lookedAtAll;
      return result ?? devices;
    },
  };
}

function dropOthers(handshakes: Map<string, Handshake>, peers: HasPeers["peers"]): void {
  if (handshakes.size > peers.size) for (const key of handshakes.keys()) if (!peers.has(key as WgPublicKey)) handshakes.delete(key);
}
