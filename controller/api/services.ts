/** What the API's routes work with. `main.ts` makes it; nothing else constructs these parts. */
import type { JoinService } from "../join/service.ts";
import type { Authority } from "../pki/authority.ts";
import type { Principal } from "../pki/principal.ts";
import type { Events } from "../reconcile/events.ts";
import type { Mirror } from "../reconcile/mirror.ts";
import type { Planner } from "../reconcile/planner.ts";
import type { Recovery } from "../reconcile/recovery.ts";
import type { Reports } from "../reconcile/reports.ts";
import type { StatusKeeper } from "../reconcile/status.ts";
import type { Store } from "../store/types.ts";
import type { Agents } from "../stream/agents.ts";
import type { Hub } from "../stream/hub.ts";
import type { Audit } from "./audit.ts";

export interface Services {
  readonly store: Store;
  readonly mirror: Mirror;
  readonly authority: Authority;
  readonly planner: Planner;
  readonly hub: Hub;
  readonly agents: Agents;
  readonly reports: Reports;
  readonly status: StatusKeeper;
  readonly events: Events;
  readonly recovery: Recovery;
  readonly joins: JoinService;
  readonly audit: Audit;
  readonly now: () => number;
  readonly newUid: () => string;
  /** `HOST:PORT` under which agents reach this controller. */
  readonly advertise: () => readonly string[];
  /** Name of this controller. */
  readonly name: string;
  /** One file with store and PKI. */
  readonly backup: () => Promise<Buffer>;
  /** Text of /metrics. */
  readonly metrics: () => Promise<string>;
}

/** Who did it, as the audit log says. */
export function actorName(principal: Principal): string {
  switch (principal.kind) {
    case "root":
      return "root";
    case "nobody":
      return "anonymous";
    case "admin":
    case "node":
    case "stranger":
    case "removed":
      return `${principal.kind === "admin" ? "admin" : "node"}/${principal.name}`;
  }
}
