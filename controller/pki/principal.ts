/** Who is at the other end of a connection: from the certificate, and from what the store says of it right now. */
import type { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { IsthmusError } from "../../mesh/errors.ts";
import type { Resource } from "../../mesh/model/resources.ts";
import type { NodeName } from "../../mesh/model/scalars.ts";
import { revoked } from "../join/decide.ts";
import type { AdminRecord } from "../join/records.ts";
import { FOLDER, resourceKey } from "../reconcile/keys.ts";
import type { Mirror } from "../reconcile/mirror.ts";
import { identityOf, spkiHash, type Identity } from "./certificates.ts";

export type AdminRole = "viewer" | "operator" | "admin";

export type Principal =
  /** Root on the controller's own machine, over the unix socket. */
  | { readonly kind: "root" }
  | { readonly kind: "admin"; readonly name: string; readonly role: AdminRole }
  | { readonly kind: "node"; readonly name: NodeName; readonly keyHash: string }
  /** A node's certificate of ours whose node is not on record. */
  | { readonly kind: "stranger"; readonly name: NodeName; readonly keyHash: string; readonly certificate: Uint8Array }
  /** A node whose removal is on record. */
  | { readonly kind: "removed"; readonly name: NodeName }
  | { readonly kind: "nobody"; readonly why: IsthmusError };

/** What the handshake proved; the same for the whole life of a connection. */
interface Proven {
  readonly identity: Identity;
  readonly keyHash: string;
  readonly validTo: number;
  readonly certificate: Uint8Array;
}

const proven = new WeakMap<TLSSocket, Proven | IsthmusError>();

/**
 * Live check: certificate, expiry, revocation and record are looked at for every request.
 * @param issuers intermediates of this network's controllers
 */
export function principalOf(socket: TLSSocket, mirror: Mirror, issuers: readonly X509Certificate[], now: number): Principal {
  const known = proven.get(socket) ?? prove(socket, issuers);
  proven.set(socket, known);
  if (known instanceof IsthmusError) return { kind: "nobody", why: known };
  const { identity, keyHash } = known;
  if (identity.role === "node") {
    const tombstone = mirror.get(FOLDER.removed + keyHash);
    if (tombstone !== undefined) return { kind: "removed", name: identity.name as NodeName };
  }
  if (mirror.get(FOLDER.revoked + keyHash) !== undefined)
    return identity.role === "node"
      ? { kind: "nobody", why: revoked(identity.name) }
      : nobody("CertificateRevoked", `the certificate of ${identity.role} ${identity.name} was revoked`, "Ask an admin for a new certificate.");
  if (known.validTo <= now)
    return nobody(
      "CertificateExpired",
      `the certificate of ${identity.role} ${identity.name} expired at ${new Date(known.validTo).toISOString()}`,
      "Renew it: a node does so with its key on record.",
    );
  switch (identity.role) {
    case "node":
      return nodePrincipal(identity.name as NodeName, known, mirror);
    case "admin":
      return adminPrincipal(identity.name, keyHash, mirror);
    case "controller":
      return nobody("Forbidden", "a controller's certificate opens nothing here");
  }
}

function nodePrincipal(name: NodeName, { keyHash, certificate }: Proven, mirror: Mirror): Principal {
  const node = mirror.get(resourceKey("MeshNode", name))?.value as Resource<"MeshNode"> | undefined;
  if (node === undefined) return { kind: "stranger", name, keyHash, certificate };
  if (node.spec.tlsKey !== keyHash) return nobody("Unauthenticated", `node ${name} is on record with another key`, "Join again with a token.");
  return { kind: "node", name, keyHash };
}

function adminPrincipal(name: string, keyHash: string, mirror: Mirror): Principal {
  const admin = mirror.get(FOLDER.admins + name)?.value as AdminRecord | undefined;
  if (admin === undefined || admin.keyHash !== keyHash) return nobody("Unauthenticated", `admin ${name} is not on record with this key`);
  if (admin.revoked === true) return nobody("CertificateRevoked", `the certificate of admin ${name} was revoked`);
  return { kind: "admin", name, role: admin.role };
}

/** Failures of the handshake's own check that leave the key proven. */
const ONLY_DATES = new Set(["CERT_HAS_EXPIRED", "CERT_NOT_YET_VALID"]);

function prove(socket: TLSSocket, issuers: readonly X509Certificate[]): Proven | IsthmusError {
  const leaf = socket.getPeerX509Certificate();
  if (leaf === undefined) return new IsthmusError("Unauthenticated", "no client certificate was presented");
  // An expired certificate still proves whose key it is, which is what a removal needs; OpenSSL says one reason only, so the
  // signature is looked at again.
  const dates =
    ONLY_DATES.has(String(socket.authorizationError)) && issuers.some((issuer) => leaf.checkIssued(issuer) && leaf.verify(issuer.publicKey));
  if (!socket.authorized && !dates) return new IsthmusError("Unauthenticated", "the client certificate was not issued by this network's authority");
  const identity = identityOf(leaf.subjectAltName);
  if (identity === undefined) return new IsthmusError("Unauthenticated", "the client certificate names no role of ours");
  const spki = leaf.publicKey.export({ type: "spki", format: "der" });
  return { identity, keyHash: spkiHash(spki), validTo: leaf.validToDate.getTime(), certificate: leaf.raw };
}

function nobody(code: "CertificateRevoked" | "CertificateExpired" | "Unauthenticated" | "Forbidden", message: string, remedy?: string): Principal {
  return { kind: "nobody", why: new IsthmusError(code, message, remedy === undefined ? {} : { remedy }) };
}
