/** Which plan is in force: what the controller sends or the disk still holds, once it can be a plan at all (I1). */
import type { Plan } from "../mesh/model/plan.ts";
import type { Position } from "../mesh/model/wire.ts";
import { formatCache } from "./cache.ts";
import type { SetCondition } from "./conditions.ts";
import { type Holdings, viewData } from "./holdings.ts";
import type { Keeper } from "./keeper.ts";
import { acceptPlan } from "./plan-guard.ts";

export interface PlanIntakePorts {
  readonly file: Keeper;
  readonly condition: SetCondition;
  readonly log: (line: string) => void;
  /** @param renamed whether the controllers have other addresses now */
  onPlan(plan: Plan, renamed: boolean): void;
}

export interface PlanIntake {
  readonly plan: Plan | undefined;
  readonly position: Position | undefined;
  /** What is no plan is said and changes nothing. @param from the disk's plan was said to be good when it came */
  take(holdings: Holdings, from: "controller" | "disk"): void;
}

export function createPlanIntake({ file, condition, log, onPlan }: PlanIntakePorts): PlanIntake {
  let plan: Plan | undefined;
  let position: Position | undefined;
  return {
    get plan() {
      return plan;
    },
    get position() {
      return position;
    },
    take(holdings, from) {
      const { plan: next, faults } = acceptPlan(viewData(holdings), plan);
      if (next === undefined) {
        if (from === "disk") return;
        condition("PlanRejected", "Incomplete", `the controller's plan is not taken: ${faults}`);
        log(`the controller's plan is not taken: ${faults}`);
        return;
      }
      condition("PlanRejected", "Unsupported", faults);
      const renamed = next.network.controllers.join() !== plan?.network.controllers.join();
      plan = next;
      position = holdings.seen;
      if (from === "controller") {
        condition("CacheDamaged", "", undefined);
        file.set(() => formatCache(holdings));
      }
      onPlan(next, renamed);
    },
  };
}
