/**
 * Seals under the positions that this network's controllers give out. Only what carries one counts as seen: a node cannot make
 * up a position that a store never had, and start a Recovery with it (DESIGN §5, I11). The key lies with the PKI, so that it
 * survives the loss of the store, and a backup holds it.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { IsthmusError } from "../../mesh/errors.ts";
import type { Position } from "../../mesh/model/wire.ts";
import { requireMode, writePrivate } from "../files.ts";

export interface Seals {
  /** 22 characters; the same for the same position. */
  seal(position: Position): string;
  /** Whether a controller of this network gave the position out. */
  proves(position: Position): boolean;
}

const KEY_BYTES = 32;
/** 128 bits cannot be guessed, and stand in every change that is sent to every agent. */
const SEAL_BYTES = 16;

/** Opens the key in the PKI folder, or makes it. @throws {IsthmusError} `FileMode`, `StoreDamaged` */
export function openSeals(folder: string): Seals {
  const file = join(folder, "position.key");
  if (existsSync(file)) requireMode(file, 0o600);
  else writePrivate(file, `${randomBytes(KEY_BYTES).toString("base64")}\n`);
  const key = Buffer.from(readFileSync(file, "utf8"), "base64");
  if (key.length !== KEY_BYTES)
    throw new IsthmusError("StoreDamaged", `${file} holds ${key.length} bytes of key instead of ${KEY_BYTES}`, {
      remedy: "Put the file back from a backup. Without one remove it: agents then join the new history without a Recovery.",
    });
  const digest = ({ lineage, epoch, revision }: Position): Buffer =>
    createHmac("sha256", key)
      .update(JSON.stringify([lineage, epoch, revision]))
      .digest()
      .subarray(0, SEAL_BYTES);
  return {
    seal: (position) => digest(position).toString("base64url"),
    proves(position) {
      const given = Buffer.from(position.seal ?? "", "base64url");
      return given.length === SEAL_BYTES && timingSafeEqual(given, digest(position));
    },
  };
}
