/** Who this node is, as its join said, and what the controller is trusted by. */
import { X509Certificate } from "node:crypto";
import { z } from "zod";
import { IsthmusError } from "../mesh/errors.ts";
import { Cidr, Endpoint, NodeName, ObjectName } from "../mesh/model/scalars.ts";
import type { JoinResponse } from "../mesh/model/wire.ts";
import { splitPem } from "./contact.ts";
import { type Places, readIfThere } from "./files.ts";
import { writeAtomic } from "./whole-file.ts";

const HOUR_MS = 3_600_000;

const Identity = z.object({
  node: NodeName,
  network: ObjectName,
  /** Hash of the machine that joined; keys and cache are bound to it. */
  machineId: z.string(),
  /** `HOST:PORT`, the order to try. */
  controllers: z.array(z.string()).min(1),
  manualEndpoints: z.array(Endpoint).default([]),
  advertise: z.array(Cidr).default([]),
  /** The time (ms) that a controller told last: a clock behind it is wrong. */
  lastNow: z.number().default(0),
});
export type Identity = z.infer<typeof Identity>;

export function readIdentity(at: Places): Identity | undefined {
  const text = readIfThere(at.identity);
  if (text === undefined) return undefined;
  try {
    return Identity.parse(JSON.parse(text));
  } catch (error) {
    throw new IsthmusError("CacheDamaged", `${at.identity} cannot be read`, {
      remedy: "restore it from a backup of this machine, or run `isthmus cleanup` and join again",
      cause: error,
    });
  }
}

export function writeIdentity(at: Places, identity: Identity): void {
  writeAtomic(at.identity, `${JSON.stringify(identity, undefined, 2)}\n`);
}

/** Keeps what a join or a renewal answered: certificate and roots first, the identity last, because it says "joined". */
export function keepAnswer(at: Places, answer: JoinResponse, rest: Pick<Identity, "machineId" | "manualEndpoints" | "advertise">): Identity {
  writeAtomic(at.certificate, answer.certificate);
  writeAtomic(at.roots, answer.roots.join("\n"));
  const identity: Identity = {
    ...rest,
    node: answer.node,
    network: answer.network,
    controllers: answer.controllers,
    // The controller's clock, not ours: ours may be years ahead, and then no certificate would be valid ever after.
    lastNow: leafOf(answer.certificate).validFromDate.getTime(),
  };
  writeIdentity(at, identity);
  return identity;
}

/** What to remember as the controller's time (ms): what it said, unless that is no news. A controller's wrong clock is mended too. */
export function knownNow(before: number, said: number): number {
  return Math.abs(said - before) > HOUR_MS ? said : before;
}

function leafOf(chain: string): X509Certificate {
  const leaf = splitPem(chain)[0];
  if (leaf === undefined) throw new IsthmusError("BadRequest", "the controller answered without a certificate");
  return new X509Certificate(leaf);
}

/** When the node's certificate is due for renewal (two thirds of its life) and when it ends; ms since 1970. */
export function certificateTimes(chain: string): { renewAt: number; expires: number } {
  const leaf = leafOf(chain);
  const from = leaf.validFromDate.getTime();
  const to = leaf.validToDate.getTime();
  return { renewAt: from + ((to - from) * 2) / 3, expires: to };
}
