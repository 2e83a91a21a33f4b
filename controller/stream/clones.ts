/**
 * Two machines with one identity (a cloned disk). A reboot leaves a boot id for good; so a boot id that comes back after
 * another was seen means that both machines run. The one unlike the join is refused; the newest connection wins otherwise.
 */

import { IsthmusError } from "../../mesh/errors.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import type { AgentHello } from "../../mesh/model/wire.ts";
import type { Member } from "../join/records.ts";
import type { Events } from "../reconcile/events.ts";

export interface BootHistory {
  /** Boot ids in the order of their first contact; the last is the current one. */
  readonly boots: readonly string[];
  /** Boot ids that were found to be a clone's. */
  readonly refused: readonly string[];
}

export const NO_BOOTS: BootHistory = { boots: [], refused: [] };

/** Boot ids that are remembered; a node that reboots more often within a controller's life forgets the oldest. */
const REMEMBERED = 32;

export interface BootVerdict {
  readonly history: BootHistory;
  readonly accept: boolean;
  /** Boot id whose connection must end, because it is the clone's. */
  readonly evict?: string;
}

/** Judges a contact with boot id `boot`; `joined` is the boot id at the join. */
export function judgeBoot(history: BootHistory, boot: string, joined: string): BootVerdict {
  if (history.refused.includes(boot)) return { history, accept: false };
  const current = history.boots.at(-1);
  if (boot === current) return { history, accept: true };
  if (!history.boots.includes(boot)) {
    return { history: { ...history, boots: [...history.boots, boot].slice(-REMEMBERED) }, accept: true };
  }
  // Both run. Unless the newer one is the machine as it joined, the one that was there first is the real one.
  const clone = current === joined ? boot : (current ?? boot);
  const next: BootHistory = {
    boots: [...history.boots.filter((id) => id !== clone && id !== boot), ...(clone === boot ? [current ?? boot] : [boot])],
    refused: [...history.refused, clone].slice(-REMEMBERED),
  };
  return clone === boot ? { history: next, accept: false } : { history: next, accept: true, evict: clone };
}

export interface CloneGuard {
  /**
   * Judges who calls by what joined. Gives the boot id whose connection must end, because it is the clone's.
   * @throws {IsthmusError} `CloneDetected`
   */
  check(hello: AgentHello, member: Pick<Member, "machineId" | "bootId">): { readonly evict: string | undefined };
  /** The error for a connection that must end. */
  found(node: NodeName): IsthmusError;
  forget(node: NodeName): void;
}

const ANOTHER = "another machine with the same identity is connected";

/** Remembers the boot ids of each node, and tells of every clone. */
export function createCloneGuard(events: Pick<Events, "record">): CloneGuard {
  const boots = new Map<NodeName, BootHistory>();

  function found(node: NodeName, why: string): IsthmusError {
    const message = `a machine that says it is ${node} was refused: ${why}`;
    events.record(undefined, { type: "Warning", reason: "CloneDetected", message, about: `node/${node}` });
    return new IsthmusError("CloneDetected", `this machine is not node ${node}: ${why}`, {
      remedy: "If it is a copy, run `isthmus cleanup` on it and join under another name. If it was rebuilt, delete the node and join again.",
    });
  }

  return {
    check({ node, machineId, bootId }, member) {
      if (member.machineId !== machineId) throw found(node, "its machine and hardware ids are not those that joined");
      const verdict = judgeBoot(boots.get(node) ?? NO_BOOTS, bootId, member.bootId);
      boots.set(node, verdict.history);
      if (!verdict.accept) throw found(node, ANOTHER);
      return { evict: verdict.evict };
    },
    found: (node) => found(node, ANOTHER),
    forget: (node) => void boots.delete(node),
  };
}
