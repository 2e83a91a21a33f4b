/** What the store keeps of joined machines besides the MeshNode itself. */
import { createHash } from "node:crypto";
import type { NodeName } from "../../mesh/model/scalars.ts";

/** `members/<node>`: what binds a node to its machine. */
export interface Member {
  readonly machineId: string;
  /** Boot id at the join: of two machines with one identity, the one unlike it is the clone. */
  readonly bootId: string;
  readonly token?: string;
  readonly joined: string;
}

/** `secrets/<SHA-256 of the secret>` */
export interface SecretRecord {
  readonly token: string;
}

/** `wgkeys/…`, `tlskeys/…`, `indexes/…`: who holds it. */
export interface Holder {
  readonly node: NodeName;
}

/** `removed/<SHA-256 of the TLS key>`: a later contact is told (I1). */
export interface Tombstone {
  readonly node: NodeName;
  readonly at: string;
}

/** `revoked/<SHA-256 of a TLS key>` */
export interface Revocation {
  readonly name: string;
  readonly at: string;
}

/** `admins/<name>` */
export interface AdminRecord {
  readonly role: "viewer" | "operator" | "admin";
  readonly keyHash: string;
  readonly revoked?: boolean;
  readonly created: string;
}

/** `controllers/<name>` */
export interface ControllerRecord {
  /** `HOST:PORT`. */
  readonly addresses: readonly string[];
}

/** Secrets have 256 random bits, so a plain hash is enough to keep them from whoever reads the store. */
export function secretHash(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}
