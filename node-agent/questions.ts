/** What may be asked of a running agent: by root on its own socket, and by the controller over the session. */
import type { Explanation } from "../mesh/model/answers.ts";
import { diffProposal, explainDestination, type ExplainPorts } from "./answers.ts";
import type { ProposedChange } from "./holdings.ts";
import { createWireguardRestart } from "./restart-wireguard.ts";
import type { SessionPorts } from "./session.ts";
import type { SocketHandlers } from "./socket.ts";
import { agentStatus, type AgentStatus, type StatusParts } from "./status.ts";

export interface QuestionPorts extends Omit<StatusParts, "plan" | "applied" | "health" | "conditions" | "events">, ExplainPorts {
  /** What stands in the status at this moment. */
  current(): Pick<StatusParts, "plan" | "applied" | "health" | "conditions" | "events">;
}

export interface Questions extends SocketHandlers {
  readonly ask: SessionPorts["onAsk"];
}

export function createQuestions(ports: QuestionPorts): Questions {
  const { reconciler, link } = ports;
  const status = (): AgentStatus => agentStatus({ ...ports, ...ports.current() });
  const explain = (destination: string): Promise<Explanation> => explainDestination(destination, reconciler.last, ports.current().health, ports);
  const restartWireguard = createWireguardRestart(reconciler);
  return {
    status,
    explain,
    leave: () => link.leave(),
    /** Observes and applies now: what there was to do, and what the kernel refused. Nothing to do means that it is as planned. */
    async reconcile() {
      await reconciler.now();
      const { operations = 0, failures = [] } = reconciler.last ?? {};
      return { ok: failures.length === 0, operations, failures: failures.length };
    },
    async ask(what, body) {
      if (what === "status") return status();
      if (what === "restart-wireguard") return restartWireguard();
      if (what === "diff") return diffProposal(body as ProposedChange, link.session.holdings, reconciler.last);
      return explain(typeof body === "object" && body !== null && "destination" in body ? String(body.destination) : "");
    },
  };
}
