/** /metrics, in Prometheus' text format. */
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";
import type { CompileOutput } from "../mesh/compile/types.ts";
import type { Recovery } from "./reconcile/recovery.ts";
import type { Mirror } from "./reconcile/mirror.ts";
import { kindFolder } from "./reconcile/keys.ts";
import type { Agents } from "./stream/agents.ts";

export interface Metrics {
  readonly planSeconds: Histogram;
  readonly plans: Counter;
  readonly planFailures: Counter;
  text(): Promise<string>;
}

export interface MetricsSources {
  readonly agents: () => Agents;
  readonly mirror: () => Mirror;
  readonly recovery: () => Recovery;
  readonly output: () => CompileOutput | undefined;
}

export function createMetrics(sources: MetricsSources): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix: "isthmus_controller_" });
  const gauge = (name: string, help: string, read: () => number): void => {
    void new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  };
  gauge("isthmus_agents_connected", "Agents with an open stream.", () => sources.agents().sessions.size);
  gauge("isthmus_nodes", "Nodes on record.", () => sources.mirror().folder(kindFolder("MeshNode")).size);
  gauge("isthmus_store_revision", "Revision of the store.", () => sources.mirror().revision);
  gauge("isthmus_views", "Views of the plan.", () => sources.output()?.views.size ?? 0);
  gauge("isthmus_recovering", "1 while the controller recovers from lost writes.", () => Number(sources.recovery().active));
  gauge(
    "isthmus_view_hash_faults_total",
    "Views that differed on an agent although nothing was on its way.",
    () => sources.agents().counters.hashFaults,
  );
  gauge("isthmus_slow_readers_total", "Agents dropped because they read too slowly.", () => sources.agents().counters.slowReaders);
  gauge("isthmus_agents_refused_total", "Connections refused.", () => sources.agents().counters.refused);
  gauge("isthmus_agent_floods_total", "Times that an agent said more than it may.", () => sources.agents().counters.floods);
  return {
    planSeconds: new Histogram({
      name: "isthmus_plan_seconds",
      help: "Compiling a plan and sending what changed.",
      buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 2],
      registers: [registry],
    }),
    planFailures: new Counter({
      name: "isthmus_plan_failures_total",
      help: "Rounds that gave no plan: what is stored has not reached the nodes.",
      registers: [registry],
    }),
    plans: new Counter({ name: "isthmus_plans_total", help: "Plans published.", registers: [registry] }),
    text: () => registry.metrics(),
  };
}
