/**
 * A gateway's own look at its uplink, for each path that it serves. A path is down when all of its checks fail. Until each
 * check has answered or missed its first deadlines nothing is known, and a gateway should say nothing (`settled`).
 */
import { durationMs } from "../../mesh/model/scalars.ts";
import type { HealthConfig } from "../../mesh/elect/health.ts";
import type { UplinkCheck } from "../../mesh/model/health.ts";
import type { PathId, ServePlan } from "../../mesh/model/plan.ts";
import { createCheck, type Check, type CheckPorts, type CheckSpec } from "./check.ts";

export interface UplinkMonitor {
  setServes(serves: ReadonlyMap<PathId, ServePlan>): void;
  /** Sorted ids of the served paths whose uplink is down. */
  downPaths(): PathId[];
  /** Every check has spoken since it was started. After a restart the clients keep this gateway's last word until then. */
  settled(): boolean;
  onChange(listener: () => void): void;
  close(): void;
}

/** An uplink counts as up again after so long without a miss, or the intent's hold-down where that is shorter; doubles with flapping. */
const LONGEST_QUIET_MS = durationMs("1s");

export function createUplinkMonitor(ports: CheckPorts): UplinkMonitor {
  const checks = new Map<string, Check>();
  const paths = new Map<PathId, readonly string[]>();
  const listeners: (() => void)[] = [];
  let told = "";
  const settled = (): boolean => checks.values().every(({ health }) => health.verdict !== "Unknown");
  const downPaths = (): PathId[] =>
    [...paths]
      .filter(([, keys]) => keys.length > 0 && keys.every((key) => checks.get(key)?.health.verdict === "Down"))
      .map(([id]) => id)
      .toSorted();
  const tell = (): void => {
    const now = `${settled()} ${downPaths().join()}`;
    if (now === told) return;
    told = now;
    for (const listener of listeners) listener();
  };
  return {
    setServes(serves) {
      const wanted = new Map<string, { spec: CheckSpec; config: HealthConfig }>();
      paths.clear();
      for (const [id, { uplink, uplinkIntervalMs: intervalMs, threshold, holdDownMs }] of serves) {
        const config = { intervalMs, threshold, holdDownMs: Math.min(holdDownMs, LONGEST_QUIET_MS) };
        const keys = uplink.flatMap((check) => {
          const spec = specOf(check);
          if (spec === undefined) return [];
          const key = JSON.stringify([spec, config]);
          wanted.set(key, { spec, config });
          return [key];
        });
        paths.set(id, keys);
      }
      for (const [key, check] of checks) {
        if (wanted.has(key)) continue;
        check.close();
        checks.delete(key);
      }
      for (const [key, { spec, config }] of wanted) {
        if (!checks.has(key)) checks.set(key, createCheck(spec, config, ports, tell));
      }
      tell();
    },
    downPaths,
    settled,
    onChange(listener) {
      listeners.push(listener);
    },
    close() {
      for (const check of checks.values()) check.close();
      checks.clear();
      paths.clear();
    },
  };
}

/** Undefined where the check names no address: an uplink has no natural one. */
function specOf(check: UplinkCheck): CheckSpec | undefined {
  switch (check.type) {
    case "icmp":
      return check.icmp && { type: "icmp", address: check.icmp.address };
    case "tcp":
      return check.tcp?.address === undefined ? undefined : { type: "tcp", address: check.tcp.address, port: check.tcp.port };
    case "http":
      return check.http?.address === undefined
        ? undefined
        : { type: "http", address: check.http.address, port: check.http.port, path: check.http.path, status: check.http.status };
  }
}
