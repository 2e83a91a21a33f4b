/** Keys are made on this node and never leave it (I8): WireGuard's (X25519) and TLS's (P-256). */
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { IsthmusError } from "../mesh/errors.ts";
import { WgPublicKey } from "../mesh/model/scalars.ts";
import { type Places, readIfThere } from "./files.ts";
import { writeAtomic } from "./whole-file.ts";

export interface NodeKeys {
  readonly wgPublicKey: WgPublicKey;
  /** PEM, PKCS#8. */
  readonly tlsKey: string;
}

/** PKCS#8 (RFC 8410 §7) and SPKI frames around the 32 raw bytes of an X25519 key. */
const PKCS8_HEAD = Buffer.from("302e020100300506032b656e04220420", "hex");
const SPKI_BYTES = 32;

/** Reads both keys, or makes those that are missing. A retried join finds its first keys again. */
export function loadOrMakeKeys(at: Places): NodeKeys {
  const wg = readIfThere(at.wgKey) ?? makeWgKey(at);
  const tlsKey = readIfThere(at.tlsKey) ?? makeTlsKey(at);
  try {
    createPrivateKey(tlsKey);
    return { wgPublicKey: wgPublicKeyOf(wg), tlsKey };
  } catch (error) {
    // The cause stays out: parser errors may quote what they read.
    throw new IsthmusError("CacheDamaged", `the keys in ${at.data} cannot be read (${error instanceof Error ? error.name : "error"})`, {
      remedy: "restore them from a backup of this machine, or run `isthmus cleanup` and join again",
    });
  }
}

/** Public half of a private WireGuard key in wg's own text form. */
export function wgPublicKeyOf(privateKey: string): WgPublicKey {
  const raw = Buffer.from(privateKey.trim(), "base64");
  if (raw.length !== 32) throw new RangeError("a WireGuard key has 32 bytes");
  const key = createPrivateKey({ key: Buffer.concat([PKCS8_HEAD, raw]), format: "der", type: "pkcs8" });
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  return WgPublicKey.parse(spki.subarray(-SPKI_BYTES).toString("base64"));
}

/** SHA-256 of a public key's SubjectPublicKeyInfo, hex: how keys are pinned. */
export function spkiHash(key: KeyObject): string {
  return createHash("sha256")
    .update(key.export({ format: "der", type: "spki" }))
    .digest("hex");
}

function makeWgKey(at: Places): string {
  const { privateKey } = generateKeyPairSync("x25519");
  const raw = privateKey.export({ format: "der", type: "pkcs8" }).subarray(-32);
  const text = `${raw.toString("base64")}\n`;
  writeAtomic(at.wgKey, text);
  return text;
}

function makeTlsKey(at: Places): string {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const pem = privateKey.export({ format: "pem", type: "pkcs8" }).toString();
  writeAtomic(at.tlsKey, pem);
  return pem;
}
