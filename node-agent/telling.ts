/** What passes, drift and handshakes mean for those who watch: files, conditions, events, and the report to the controller. */
import { release } from "node:os";
import { describeFor } from "../mesh/kernel/describe.ts";
import type { Operation } from "../mesh/kernel/operations.ts";
import type { Position } from "../mesh/model/wire.ts";
import type { CacheRead } from "./cache.ts";
import type { SetCondition } from "./conditions.ts";
import { formatElections } from "./elections.ts";
import type { PeerReach } from "./endpoints.ts";
import type { Identity } from "./identity.ts";
import type { KeptFiles } from "./kept-files.ts";
import { formatLinks, linksExhausted } from "./links.ts";
import { interfaceAddresses, ownCandidates } from "./own-endpoints.ts";
import { mtuConditions } from "./path-mtu.ts";
import type { PlanIntake } from "./plan-intake.ts";
import type { Pass } from "./reconcile.ts";
import type { Reporter } from "./report.ts";
import { failuresById, moveEvents, refusedOf, resultsOf } from "./results.ts";
import { createStarting, NO_PLAN_YET } from "./starting.ts";

const FOREIGN =
  "keys and plan were made on another machine: nothing starts before a controller agrees. If this is a copy, run `isthmus cleanup` and join under another name";

export interface TellingPorts {
  readonly reporter: Pick<Reporter, "set" | "event">;
  readonly condition: SetCondition;
  readonly files: Pick<KeptFiles, "links" | "choices">;
  readonly intake: Pick<PlanIntake, "plan" | "position">;
  identity(): Identity;
  /** From the monotonic clock to ms since 1970. */
  readonly wall: (monotonic: number) => number;
  readonly log: (line: string) => void;
}

export interface Telling {
  /** Position that the kernel stands at. */
  readonly applied: Position | undefined;
  /** What the agent finds when it starts. */
  beginning(cache: CacheRead, foreign: boolean): void;
  pass(pass: Pass): void;
  drift(operations: readonly Operation[]): void;
  reach(reach: PeerReach): void;
}

export function createTelling({ reporter, condition, files, intake, identity, wall, log }: TellingPorts): Telling {
  const starting = createStarting();
  let applied: Position | undefined;
  return {
    get applied() {
      return applied;
    },

    beginning(cache, foreign) {
      if (cache.state === "damaged") {
        const message = `the plan on disk is damaged (${cache.why}); it was set aside as ${cache.aside}`;
        log(message);
        reporter.event({ type: "Warning", reason: "CacheDamaged", message, about: "node" });
        condition("CacheDamaged", "CacheDamaged", message);
      }
      if (foreign) {
        log("this machine is not the one that joined; nothing starts before the controller agrees");
        condition("MachineChanged", "MachineChanged", FOREIGN);
      }
      condition("Starting", "NoPlan", NO_PLAN_YET);
    },

    pass(pass) {
      const { plan, links, host } = pass.input;
      files.links.set(() => formatLinks(links));
      files.choices.set(() => formatElections(pass.elections, wall));
      const refused = refusedOf(pass);
      for (const event of moveEvents(pass, refused)) reporter.event(event);
      condition("KernelRefused", "KernelRefused", failuresById(pass).get("node"));
      condition("WireGuardMute", "NoAnswer", muteText(pass.mute));
      condition("TooManyGateways", "LinksExhausted", linksExhausted(pass.withoutLink));
      for (const { type, message } of mtuConditions(pass.input)) condition(type, type, message);
      if (pass.failures.length === 0 && intake.plan === plan) applied = intake.position;
      else for (const { op, error } of pass.failures.slice(0, 3)) log(`the kernel refused ${op.op}: ${error ?? ""}`);
      const { network } = plan;
      const { manualEndpoints, advertise } = identity();
      reporter.set({
        ...(applied === undefined ? {} : { applied }),
        kernel: release().slice(0, 64),
        wireguard: host.wireguard,
        endpoints: ownCandidates(interfaceAddresses(), network.ports.mesh, [network.overlay.v4, network.overlay.v6, network.links.v4]),
        manualEndpoints,
        advertise,
        links: Object.fromEntries([...links].map(([node, k]) => [node, network.ports.links + k])),
        results: resultsOf(pass, wall, refused),
      });
    },

    drift(operations) {
      const describe = describeFor(intake.plan ?? { peers: new Map() });
      const rows = operations.slice(0, 3).flatMap((one) => describe(one).map((row) => `${row.action} ${row.what}`));
      const message = `put back what someone else changed: ${rows.join("; ")}${operations.length > 3 ? `; ${operations.length - 3} more` : ""}`;
      reporter.event({ type: "Warning", reason: "Drift", message, about: "node" });
      log(message);
    },

    reach({ observed, fresh, lost, noPath }) {
      const handshakes = { peers: fresh.length + lost.length, fresh: fresh.length, ...(lost.length === 0 ? {} : { lost: lost.slice(0, 20) }) };
      reporter.set({ observed: Object.fromEntries(observed), handshakes });
      const silent = lost.filter((node) => !noPath.includes(node));
      condition("Starting", "Handshakes", starting.look(silent, performance.now()));
      const names = noPath.slice(0, 20).join(", ");
      condition(
        "NoPathTo",
        "BothBehindNat",
        noPath.length === 0 ? undefined : `no path to ${names}: both ends are behind NAT in different sites, and neither can be dialed`,
      );
    },
  };
}

function muteText(mute: readonly string[]): string | undefined {
  if (mute.length === 0) return undefined;
  return `WireGuard does not answer for ${mute.join(", ")}, which is left as it was last seen; a wireguard-go that stays mute is ended and made anew within seconds. If this comes back, see memory and disks of this machine, and the log of the wireguard-go (wireguard-go.INTERFACE.log in the run directory, or the journal)`;
}
