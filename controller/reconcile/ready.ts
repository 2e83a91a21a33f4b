/** Whether a node is ready, and an event each time that this changes. */
import type { Condition } from "../../mesh/model/meta.ts";
import type { Events } from "./events.ts";
import type { NodeContact, NodeReport } from "./reports.ts";

type Plain = Pick<Condition, "type" | "status" | "reason" | "message">;

/** The agent's condition until its plan is in the kernel and its first handshakes are over. */
export const STARTING = "Starting";
/** The agent's condition while the kernel refuses what the node itself needs. */
const REFUSED = "KernelRefused";

/** Only a person changes that: no power, network or port brings such a node back. */
const REVOKED =
  "its certificate was revoked: the controller refuses it, while it stays a WireGuard peer, and a gateway, of all others until it is deleted (`isthmus delete node`)";

/**
 * Connected, its plan in the kernel, its first handshakes over. A node that nobody hears goes on by its last plan all the same.
 * @param revoked its certificate was
 */
export function readyCondition(
  contact: Pick<NodeContact, "connected"> | undefined,
  report: Pick<NodeReport, "conditions"> | undefined,
  revoked = false,
): Plain {
  const ready = (status: Plain["status"], reason: string, message?: string): Plain => ({
    type: "Ready",
    status,
    reason,
    ...(message === undefined ? {} : { message }),
  });
  if (revoked) return ready("False", "CertificateRevoked", REVOKED);
  const away = "the agent is not connected; its data plane goes on by the last plan";
  if (contact === undefined) return ready("Unknown", "NeverSeen", away);
  if (!contact.connected) return ready("False", "Disconnected", away);
  if (report === undefined) return ready("Unknown", "NotReported", "the agent is connected and has not reported yet");
  const fault = report.conditions?.find(({ type, status }) => status === "True" && (type === STARTING || type === REFUSED));
  if (fault !== undefined) return ready("False", fault.type, fault.message);
  return ready("True", "Connected");
}

/** After a start, agents that were there before have this long to come back before their absence is news. */
const RETURN_MS = 15_000;

export interface ReadyWatch {
  /** Tells of nodes that became ready, or ceased to be, since the last look. */
  sweep(): void;
}

export interface ReadyWatchOptions {
  /** Names of all nodes on record. */
  readonly nodes: () => Iterable<string>;
  readonly ready: (node: string) => Plain;
  readonly events: Pick<Events, "record">;
  /** Nodes that were connected when the controller before this one ended. */
  readonly before: Iterable<string>;
  /** Monotonic milliseconds. */
  readonly monotonic: () => number;
}

/** A change that came and went between two looks (a connection made anew) is no news. */
export function watchReady({ nodes, ready, events, before, monotonic }: ReadyWatchOptions): ReadyWatch {
  const started = monotonic();
  let told = new Map<string, boolean>([...before].map((node) => [node, true]));
  return {
    sweep() {
      const next = new Map<string, boolean>();
      for (const node of nodes()) {
        const { status, reason, message } = ready(node);
        const known = told.get(node);
        const now = status === "True";
        // Nothing is said of one that was never ready, nor of one that a restart of the controller may still bring back.
        const wait = !now && (known === undefined || monotonic() - started < RETURN_MS);
        if (wait) {
          if (known !== undefined) next.set(node, known);
          continue;
        }
        next.set(node, now);
        if (known === now) continue;
        events.record(undefined, {
          type: now ? "Normal" : "Warning",
          reason: now ? "NodeReady" : "NodeNotReady",
          message: now ? `${node} is ready` : `${node} is not ready (${reason})${message === undefined ? "" : `: ${message}`}`,
          about: `node/${node}`,
        });
      }
      told = next;
    },
  };
}
