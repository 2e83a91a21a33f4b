/** Joins that arrive together are decided together: one transaction, one fsync, one fan-out. */
import { setImmediate } from "node:timers/promises";
import { IsthmusError, asIsthmusError } from "../../mesh/errors.ts";
import type { JoinRequest } from "../../mesh/model/wire.ts";
import type { IpAddress } from "../../mesh/model/scalars.ts";
import { readRequest } from "../pki/certificates.ts";
import { NODE_DAYS, type Authority } from "../pki/authority.ts";
import { commit } from "../reconcile/draft.ts";
import type { Mirror } from "../reconcile/mirror.ts";
import type { Store } from "../store/types.ts";
import { decideJoin, type JoinInput, type Joined } from "./decide.ts";
import { membershipFor } from "./readmit.ts";

export interface JoinAnswer extends Joined {
  /** PEM chain: leaf, intermediate. */
  readonly certificate: string;
  readonly revision: number;
}

export interface JoinService {
  /** @throws {IsthmusError} why the machine may not join */
  join(request: JoinRequest, seen: IpAddress | undefined): Promise<JoinAnswer>;
}

export interface JoinServiceOptions {
  readonly store: Store;
  readonly mirror: Mirror;
  readonly authority: Authority;
  readonly now: () => number;
  readonly newUid: () => string;
}

interface Waiting {
  readonly input: JoinInput;
  readonly done: (outcome: { joined: Joined; revision: number }) => void;
  readonly failed: (error: IsthmusError) => void;
}

export function createJoinService({ store, mirror, authority, now, newUid }: JoinServiceOptions): JoinService {
  let waiting: Waiting[] = [];
  let working = false;

  async function work(): Promise<void> {
    if (working) return;
    working = true;
    while (waiting.length > 0) {
      const batch = waiting;
      waiting = [];
      try {
        const { epoch, recovering } = await store.state();
        const settings = { now: now(), epoch, recovering, newUid };
        const { revision, result } = await commit(store, mirror, (draft) =>
          batch.map(({ input }) => attempt(() => decideJoin(draft, input, settings))),
        );
        for (const [i, outcome] of result.entries()) {
          if (outcome instanceof IsthmusError) batch[i]?.failed(outcome);
          else batch[i]?.done({ joined: outcome, revision });
        }
      } catch (thrown) {
        for (const one of batch) one.failed(asIsthmusError(thrown));
      }
    }
    working = false;
  }

  return {
    async join(request, seen) {
      const { publicKey, keyHash } = await readRequest(request.csr);
      const { joined, revision } = await new Promise<{ joined: Joined; revision: number }>((done, failed) => {
        waiting.push({ input: { request, keyHash, seen }, done, failed });
        void setImmediate().then(work);
      });
      const { node } = joined;
      // The plan's round was scheduled by the commit: all others have the newcomer before 2 ms go into its certificate.
      await setImmediate();
      const certificate = await authority.issue({ role: "node", name: node.metadata.name }, publicKey, NODE_DAYS, membershipFor(node));
      return { ...joined, certificate, revision };
    },
  };
}

function attempt<T>(decide: () => T): T | IsthmusError {
  try {
    return decide();
  } catch (thrown) {
    return asIsthmusError(thrown);
  }
}
