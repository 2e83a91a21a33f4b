/** Health of the LAN gateways of static routes, checked by each node that routes through them. */
import { linkView } from "../../mesh/elect/health.ts";
import type { LanHealthView } from "../../mesh/elect/lan.ts";
import type { GatewayHealth } from "../../mesh/model/health.ts";
import type { LanRoutePlan } from "../../mesh/model/plan.ts";
import { durationMs, type IpAddress, type NodeName } from "../../mesh/model/scalars.ts";
import { createCheck, type Check, type CheckPorts, type CheckSpec } from "./check.ts";

export interface LanMonitor {
  /** LAN routes by id; checks that stay keep what they know. */
  setRoutes(routes: ReadonlyMap<string, Pick<LanRoutePlan, "gateways" | "health">>): void;
  /** Health of every gateway of that route. */
  health(id: string): ReadonlyMap<IpAddress, LanHealthView>;
  onChange(listener: () => void): void;
  close(): void;
}

export interface LanMonitorOptions extends CheckPorts {
  /** For checks of type `agent`: what the link probes say of the mesh node that holds this LAN address, if one does. */
  readonly agentOf: (gateway: IpAddress) => LanHealthView | undefined;
}

export function createLanMonitor(options: LanMonitorOptions): LanMonitor {
  const checks = new Map<string, Check>();
  let routes: ReadonlyMap<string, Pick<LanRoutePlan, "gateways" | "health">> = new Map();
  const listeners: (() => void)[] = [];
  const tell = (): void => {
    for (const listener of listeners) listener();
  };
  return {
    setRoutes(wantedRoutes) {
      routes = wantedRoutes;
      const wanted = new Map<string, { spec: CheckSpec; health: GatewayHealth }>();
      for (const { gateways, health } of routes.values()) {
        for (const gateway of gateways) {
          const spec = specOf(gateway, health);
          if (spec !== undefined) wanted.set(keyOf(spec, health), { spec, health });
        }
      }
      for (const [key, check] of checks) {
        if (wanted.has(key)) continue;
        check.close();
        checks.delete(key);
      }
      for (const [key, { spec, health }] of wanted) {
        const config = { intervalMs: durationMs(health.interval), threshold: health.threshold, holdDownMs: durationMs(health.holdDown) };
        if (!checks.has(key)) checks.set(key, createCheck(spec, config, options, tell));
      }
    },
    health(id) {
      const route = routes.get(id);
      if (route === undefined) return new Map();
      return new Map(route.gateways.map((gateway) => [gateway, viewOf(gateway, route.health)]));
    },
    onChange(listener) {
      listeners.push(listener);
    },
    close() {
      for (const check of checks.values()) check.close();
      checks.clear();
    },
  };

  function viewOf(gateway: IpAddress, health: GatewayHealth): LanHealthView {
    if (health.type === "none") return { verdict: "Up", since: 0 };
    if (health.type === "agent") return options.agentOf(gateway) ?? { verdict: "Unknown", since: 0 };
    const spec = specOf(gateway, health);
    const check = spec === undefined ? undefined : checks.get(keyOf(spec, health));
    return check === undefined ? { verdict: "Unknown", since: 0 } : linkView(gateway as string as NodeName, check.health);
  }
}

/** What is asked: the gateway itself, unless the check names another address. */
function specOf(gateway: IpAddress, health: GatewayHealth): CheckSpec | undefined {
  switch (health.type) {
    case "icmp":
      return { type: "icmp", address: gateway };
    case "tcp":
      return health.tcp && { type: "tcp", address: health.tcp.address ?? gateway, port: health.tcp.port };
    case "http":
      return {
        type: "http",
        address: health.http?.address ?? gateway,
        port: health.http?.port ?? 80,
        path: health.http?.path ?? "/",
        status: health.http?.status ?? 200,
      };
    case "agent":
    case "none":
      return undefined;
  }
}

function keyOf(spec: CheckSpec, health: GatewayHealth): string {
  return JSON.stringify([spec, health.interval, health.threshold, health.holdDown]);
}
