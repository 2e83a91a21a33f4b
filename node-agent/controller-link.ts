/** The session with the controllers, and what its beginning, its end and this node's removal mean for the agent. */
import { IsthmusError } from "../mesh/errors.ts";
import { pause } from "./backoff.ts";
import type { SetCondition } from "./conditions.ts";
import type { Holdings } from "./holdings.ts";
import { bootId } from "./machine-id.ts";
import type { Membership } from "./membership.ts";
import { hasAddress } from "./own-endpoints.ts";
import { createSession, type Session, type SessionPorts } from "./session.ts";
import { VERSION } from "./version.ts";

const LEAVE_MS = 8_000;
const LEAVE_ANSWER_MS = 2_000;

export interface ControllerLinkPorts extends Pick<SessionPorts, "controllers" | "onHoldings" | "onAsk" | "log"> {
  readonly membership: Membership;
  readonly condition: SetCondition;
  readonly signal: AbortSignal;
  /** @param remote where the verified controller was reached, whatever name it has */
  onConnected(address: string, remote: string | undefined): void;
  /** The controller agreed to the machine that keys and plan were copied to. */
  onMachineAccepted(): void;
  /** Authenticated: this node was removed from the network. */
  onRemoved(): void;
}

export interface ControllerLink {
  readonly session: Session;
  /** Why there is no connection. */
  readonly error: IsthmusError | undefined;
  /** Asks the controller to remove this node, and resolves when it has. A connection that is silent is made anew. */
  leave(): Promise<unknown>;
}

export function createControllerLink(holdings: Holdings, ports: ControllerLinkPorts): ControllerLink {
  const { membership, condition, log, signal } = ports;
  let error: IsthmusError | undefined;
  let leaving: (() => void) | undefined;

  const session = createSession(holdings, {
    who: { node: membership.identity.node, version: VERSION, bootId: bootId(), machineId: membership.machine },
    controllers: () => ports.controllers(),
    credentials: membership.credentials,
    now: membership.now,
    hasAddress,
    renew: membership.renew,
    onHoldings: (held) => ports.onHoldings(held),
    onConnected(address, now, remote) {
      error = undefined;
      log(`connected to controller ${address}`);
      if (membership.accepted(now)) {
        condition("MachineChanged", "", undefined);
        log("the controller accepted this machine; starting");
        ports.onMachineAccepted();
      }
      ports.onConnected(address, remote);
    },
    onDisconnected(why) {
      if (why.message !== error?.message) log(`${why.message}${why.remedy === undefined ? "" : ` (${why.remedy})`}`);
      error = why;
    },
    onRemoved() {
      const { node, network } = membership.identity;
      log(`node ${node} was removed from network ${network}`);
      leaving?.();
      ports.onRemoved();
    },
    onAsk: (what, body) => ports.onAsk(what, body),
    log,
  });

  return {
    session,
    get error() {
      return error;
    },
    async leave() {
      const removed = new Promise<boolean>((done) => {
        leaving = () => done(true);
      });
      const { node, network } = membership.identity;
      const deadline = performance.now() + LEAVE_MS;
      while (performance.now() < deadline) {
        // It is not heard, and must not be (I11): its farewell would take a node out.
        if (error?.code === "CertificateRevoked") throw error;
        // Before the controller's hello a message is not heard.
        const sent = session.connected !== undefined && session.send({ t: "leave" });
        const gone = await Promise.race([removed, pause(sent ? LEAVE_ANSWER_MS : 100, signal).then(() => false)]);
        if (gone) return { node, network, left: true };
        if (sent) session.reconnect();
      }
      throw new IsthmusError("Unreachable", "no controller took the farewell; this node is still a member", {
        remedy: "try again when a controller is reachable, or run `isthmus cleanup` here and `isthmus delete node` elsewhere",
      });
    },
  };
}
