/** Keys of the store: `<network>/<origin>/<kind>/<name>`. Origin `api` is what users and joins make; the rest is ours. */
import type { Kind } from "../../mesh/model/resources.ts";
import { KINDS } from "../../mesh/model/resources.ts";

export const NETWORK = "isthmus";

/** Folders whose items are no resources. */
export const FOLDER = {
  facts: `${NETWORK}/agent/facts/`,
  members: `${NETWORK}/join/members/`,
  wgKeys: `${NETWORK}/join/wgkeys/`,
  tlsKeys: `${NETWORK}/join/tlskeys/`,
  indexes: `${NETWORK}/join/indexes/`,
  secrets: `${NETWORK}/join/secrets/`,
  removed: `${NETWORK}/join/removed/`,
  revoked: `${NETWORK}/join/revoked/`,
  admins: `${NETWORK}/admin/admins/`,
  controllers: `${NETWORK}/controller/controllers/`,
  /** What each path serves, and what it goes on with for a while. */
  serving: `${NETWORK}/plan/serving/`,
} as const;

/** The one item of the address pool: every allocation compares it. */
export const POOL_KEY = `${NETWORK}/join/pool/state`;

export function kindFolder(kind: Kind): string {
  return `${NETWORK}/api/${KINDS[kind].plural}/`;
}

export function resourceKey(kind: Kind, name: string): string {
  return kindFolder(kind) + name;
}

/** A WireGuard key as part of a store key (`/` means something there). */
export function wgKeyKey(publicKey: string): string {
  return FOLDER.wgKeys + publicKey.replaceAll("/", "_").replaceAll("+", "-");
}

/** Of a path's id (`/` means something in a key). */
export function servingKey(id: string): string {
  return FOLDER.serving + id.replace("/", ":");
}

/** The folder of a key, and the rest. */
export function splitKey(key: string): { readonly folder: string; readonly name: string } {
  const cut = key.lastIndexOf("/") + 1;
  return { folder: key.slice(0, cut), name: key.slice(cut) };
}
