/**
 * Nodes that a restored or damaged store forgot. What a node is stands in its certificate, signed by us, so nobody has to
 * be believed (I11); what was deleted has a tombstone and is not let in again.
 */
import { z } from "zod";
import { IsthmusError } from "../../mesh/errors.ts";
import { API_VERSION } from "../../mesh/model/meta.ts";
import type { Resource } from "../../mesh/model/resources.ts";
import { Cidr, Labels, NodeName, ObjectName, WgPublicKey } from "../../mesh/model/scalars.ts";
import { NO_ALLOCATIONS, claim, type AllocationState } from "../../mesh/net/allocate.ts";
import type { Draft } from "../reconcile/draft.ts";
import { FOLDER, POOL_KEY, resourceKey, wgKeyKey } from "../reconcile/keys.ts";
import type { Holder, Member } from "./records.ts";

const Membership = z.object({
  i: z.int().min(1),
  k: WgPublicKey,
  s: ObjectName,
  l: Labels.optional(),
  a: z.array(Cidr).optional(),
});
export type Membership = z.infer<typeof Membership>;

/** What a node's certificate says of it. */
export function membershipFor(node: Resource<"MeshNode">): Membership {
  const { index, publicKey, site, labels, advertise } = node.spec;
  return {
    i: index,
    k: publicKey,
    s: site,
    ...(labels === undefined ? {} : { l: labels }),
    ...(advertise === undefined ? {} : { a: advertise.slice(0, 16) }),
  };
}

export interface ReadmitInput {
  readonly name: string;
  readonly keyHash: string;
  /** As `membershipOf` read it from the certificate. */
  readonly membership: unknown;
  readonly machineId: string;
  readonly bootId: string;
  readonly now: number;
  readonly newUid: () => string;
}

/** @throws {IsthmusError} when something of the node belongs to another by now, or was removed or revoked */
export function readmit(draft: Draft, input: ReadmitInput): Resource<"MeshNode"> {
  const parsed = Membership.safeParse(input.membership);
  const name = NodeName.safeParse(input.name);
  if (!parsed.success || !name.success) throw refused(input.name, "its certificate does not say what it was");
  const { i: index, k: publicKey, s: site, l: labels, a: advertise } = parsed.data;
  for (const key of [FOLDER.removed + input.keyHash, FOLDER.revoked + input.keyHash]) {
    if (draft.read(key) !== undefined) throw refused(input.name, "it was removed");
  }
  const taken = [resourceKey("MeshNode", name.data), wgKeyKey(publicKey), `${FOLDER.indexes}${index}`, FOLDER.tlsKeys + input.keyHash];
  if (taken.some((key) => draft.read(key) !== undefined)) throw refused(input.name, "its name, key or address belongs to another node by now");
  const created = new Date(input.now).toISOString();
  const node: Resource<"MeshNode"> = {
    apiVersion: API_VERSION,
    kind: "MeshNode",
    metadata: {
      name: name.data as unknown as Resource["metadata"]["name"],
      uid: input.newUid(),
      generation: 1,
      creationTimestamp: created,
      origin: "api",
    },
    spec: {
      site,
      index,
      publicKey,
      tlsKey: input.keyHash,
      ...(labels === undefined ? {} : { labels }),
      ...(advertise === undefined ? {} : { advertise }),
    },
  };
  const holder: Holder = { node: name.data };
  const member: Member = { machineId: input.machineId, bootId: input.bootId, joined: created };
  const pool = (draft.read(POOL_KEY) as AllocationState | undefined) ?? NO_ALLOCATIONS;
  draft.write(resourceKey("MeshNode", name.data), node);
  draft.write(FOLDER.members + name.data, member);
  draft.write(FOLDER.tlsKeys + input.keyHash, holder);
  draft.write(wgKeyKey(publicKey), holder);
  draft.write(`${FOLDER.indexes}${index}`, holder);
  draft.write(POOL_KEY, claim(pool, index, input.now));
  return node;
}

function refused(name: string, why: string): IsthmusError {
  return new IsthmusError("Unauthenticated", `node ${name} is not on record and cannot be taken back: ${why}`, {
    remedy: "Join again with a token.",
  });
}
