/** This node's place in its network: identity, keys and certificate, and whether this machine is the one that joined. */
import { uptime } from "node:os";
import { asIsthmusError } from "../mesh/errors.ts";
import { pause } from "./backoff.ts";
import type { SetCondition } from "./conditions.ts";
import type { Credentials } from "./contact.ts";
import { type Places, readIfThere } from "./files.ts";
import { certificateTimes, type Identity, knownNow, writeIdentity } from "./identity.ts";
import { renew } from "./join.ts";
import { loadOrMakeKeys, type NodeKeys } from "./keys.ts";
import { machineIdLike } from "./machine-id.ts";

const HOUR_MS = 3_600_000;
const RETRY_MS = 60_000;
/** A clock may be set at any time: NTP that begins late, or somebody by hand. */
const CLOCK_LOOK_MS = 5_000;
const CLOCK_SLACK_MS = 60_000;

export interface MembershipPorts {
  readonly at: Places;
  readonly identity: Identity;
  readonly condition: SetCondition;
  readonly log: (line: string) => void;
  readonly signal: AbortSignal;
}

export interface Membership {
  readonly identity: Identity;
  readonly keys: NodeKeys;
  /** Hash of this machine. */
  readonly machine: string;
  /** Keys and cache came from another machine: nothing starts before the controller agrees. */
  readonly foreign: boolean;
  /** As they stand on disk now. */
  credentials(): Credentials & { readonly roots: string };
  readonly certificate: { readonly renewAt: number; readonly expires: number };
  /** This machine's clock, but never before what a controller said last. */
  now(): number;
  /** A verified controller took this node in and said its time. @returns whether the machine is another one than before */
  accepted(said: number): boolean;
  renew(): Promise<void>;
  /** Renews the certificate whenever it is due, until the signal aborts. */
  run(): Promise<void>;
}

export function openMembership({ at, identity: joined, condition, log, signal }: MembershipPorts): Membership {
  let identity = joined;
  const keys = loadOrMakeKeys(at);
  const machine = machineIdLike(identity.machineId);
  let foreign = identity.machineId !== machine;

  const credentials: Membership["credentials"] = () => ({
    key: keys.tlsKey,
    certificate: readIfThere(at.certificate) ?? "",
    roots: readIfThere(at.roots) ?? "",
  });
  const now = (): number => Math.max(Date.now(), identity.lastNow);
  /** What the controller said last, and when by the clock that nobody sets. */
  let told: { readonly said: number; readonly at: number } | undefined;
  /** The clock that certificates are made by: with one that is weeks ahead of it renewing would never end, with one behind never begin. */
  const controllersNow = (): number => (told === undefined ? now() : told.said + sinceBoot() - told.at);
  /** How far our clock was behind the controller's when that was looked at last: milliseconds of jitter are no news. */
  let behind = 0;
  const compareClocks = (): void => {
    if (told === undefined) return;
    const off = controllersNow() - Date.now();
    if (Math.abs(off - behind) < 1_000) return;
    behind = off;
    condition("ClockWrong", "ClockWrong", clockFault(off));
  };
  const renewNow = async (): Promise<void> => {
    identity = await renew(at, identity, keys, credentials(), now(), signal);
    condition("CertificateExpired", "", undefined);
    log("certificate renewed");
  };

  return {
    get identity() {
      return identity;
    },
    keys,
    machine,
    get foreign() {
      return foreign;
    },
    credentials,
    get certificate() {
      return certificateTimes(credentials().certificate);
    },
    now,
    accepted(said) {
      told = { said, at: sinceBoot() };
      compareClocks();
      const lastNow = knownNow(identity.lastNow, said);
      if (lastNow !== identity.lastNow || foreign) {
        identity = { ...identity, lastNow, machineId: machine };
        try {
          writeIdentity(at, identity);
        } catch (thrown) {
          log(asIsthmusError(thrown).message);
        }
      }
      const moved = foreign;
      foreign = false;
      return moved;
    },
    renew: renewNow,
    async run() {
      const looks = setInterval(compareClocks, CLOCK_LOOK_MS);
      try {
        while (!signal.aborted) {
          const { renewAt, expires } = certificateTimes(credentials().certificate);
          if (controllersNow() >= renewAt && !foreign) {
            await renewNow().catch((thrown: unknown) => {
              const error = asIsthmusError(thrown);
              if (controllersNow() >= expires)
                condition(
                  "CertificateExpired",
                  error.code,
                  `the certificate expired and cannot be renewed: ${error.message}. The data plane goes on.`,
                );
              log(`renewing the certificate failed: ${error.message}`);
            });
          }
          const left = renewAt - controllersNow();
          await pause(left <= 0 ? RETRY_MS * (0.5 + Math.random()) : Math.min(HOUR_MS, Math.max(1_000, left)), signal);
        }
      } finally {
        clearInterval(looks);
      }
    },
  };
}

/** In milliseconds; it goes on while the machine sleeps, as the controller's clock does. */
function sinceBoot(): number {
  return uptime() * 1_000;
}

/** @param off milliseconds that this node's clock is behind */
function clockFault(off: number): string | undefined {
  if (Math.abs(off) < CLOCK_SLACK_MS) return undefined;
  return `this node's clock is ${Math.round(Math.abs(off) / 1000)} s ${off > 0 ? "behind" : "ahead of"} the controller's`;
}
