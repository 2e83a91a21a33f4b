/** What a node holds that nothing but a fault may move: its agent's run, connection and choices, and WireGuard's sessions. */
import type { Plane } from "./plane.ts";

/** After so many seconds a session renews its keys (REKEY_AFTER_TIME), and never before: an earlier handshake is a session that was started anew. */
const REKEY_S = 120;
/** Handshakes are told in whole seconds. */
const SLACK_S = 2;
/** After 180 s without a handshake a session is dead. */
const DEAD_MS = 180_000;

export interface Held {
  readonly started: number;
  /** When its connection with the controller began. */
  readonly connected: number | undefined;
  readonly choices: readonly (readonly [path: string, active: string, reason: string])[];
  readonly conditions: readonly string[];
  /** How many events it has told. */
  readonly events: number;
  /** Peers whose session it takes for dead. */
  readonly dead: readonly string[];
  /** Of every peer: interface, key, endpoint and when the session began. */
  readonly sessions: readonly string[];
}

/** Looks again and again: what it says of a node stays the same for as long as the node's sessions are the same. */
export function watchHeld(plane: Plane): (node: string) => Promise<Held> {
  const sessions = new Map<string, { readonly began: number; readonly renewed: number }>();

  const beganOf = (id: string, handshake: number): number => {
    const known = sessions.get(id);
    const again = known !== undefined && handshake !== known.renewed && handshake - known.renewed < REKEY_S - SLACK_S;
    const began = known === undefined || again ? handshake : known.began;
    sessions.set(id, { began, renewed: handshake });
    return began;
  };

  return async (node) => {
    const { started, controller, paths, conditions, events, peers } = await plane.status(node);
    // Peers only: the other lines hold private keys.
    const dump = await plane.sh(node, "wg show all dump | awk 'NF == 9 { print $1, $2, $4, $6 }'");
    const rows = dump
      .trim()
      .split("\n")
      .map((line) => line.split(" "));
    return {
      started,
      connected: controller.since,
      choices: paths.map(({ id, active, reason }) => [id, active.join(), reason]),
      conditions: conditions.map(({ type }) => type).filter((type) => type !== "ClockWrong"),
      events: events.length,
      dead: peers.filter(({ handshakeAgeMs = Infinity }) => handshakeAgeMs > DEAD_MS).map((peer) => peer.node),
      sessions: rows
        .map(([link, key, endpoint, handshake]) => {
          const began = beganOf([node, link, key].join(" "), Number(handshake));
          return `${link} ${key} ${endpoint} since ${began}`;
        })
        .toSorted(),
    };
  };
}
