/**
 * Text of a join token: `ist1.<base64url of JSON>.<CRC-32 of the part before, hex>`. The checksum only tells a token that
 * was cut short or mistyped from one that the controller does not know; the secret inside is what authorises.
 */
import { z } from "zod";
import { IsthmusError } from "../errors.ts";
import { ObjectName } from "./scalars.ts";

const PREFIX = "ist1";

const Payload = z.object({
  c: z.array(z.string().min(3).max(256)).min(1).max(16),
  s: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
  i: ObjectName,
  p: z.string().regex(/^[0-9a-f]{64}$/),
});

/** What a token carries. */
export interface JoinTokenText {
  /** `HOST:PORT` of the controllers, in the order to try. */
  readonly controllers: readonly string[];
  /** 32 random bytes, base64url without padding. */
  readonly secret: string;
  /** Name of the JoinToken object. */
  readonly name: string;
  /** SHA-256 of the root CA's SubjectPublicKeyInfo (DER), lower-case hex. */
  readonly pin: string;
}

export function formatJoinToken(token: JoinTokenText): string {
  const json = JSON.stringify({ c: token.controllers, s: token.secret, i: token.name, p: token.pin });
  const head = `${PREFIX}.${toBase64Url(new TextEncoder().encode(json))}`;
  return `${head}.${checksum(head)}`;
}

/** @throws {IsthmusError} `TokenMalformed`; the message never repeats the token. */
export function parseJoinToken(text: string): JoinTokenText {
  const trimmed = text.trim();
  if (!trimmed.startsWith(`${PREFIX}.`)) throw malformed(`does not start with ${PREFIX}.`);
  const dot = trimmed.lastIndexOf(".");
  const head = trimmed.slice(0, dot);
  if (dot <= PREFIX.length || trimmed.slice(dot + 1) !== checksum(head)) throw malformed("was cut short or mistyped: its checksum does not match");
  const parsed = Payload.safeParse(decode(head.slice(PREFIX.length + 1)));
  if (!parsed.success) throw malformed("has a form that this version does not know");
  return { controllers: parsed.data.c, secret: parsed.data.s, name: parsed.data.i, pin: parsed.data.p };
}

function malformed(why: string): IsthmusError {
  return new IsthmusError("TokenMalformed", `the join token ${why}`, {
    remedy: "Copy the whole token as `isthmus create token` printed it, in one line.",
  });
}

function decode(text: string): unknown {
  try {
    const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(binary, (char) => char.charCodeAt(0))));
  } catch {
    return undefined;
  }
}

function toBase64Url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}

/** CRC-32 as in IEEE 802.3 (the one of zip and PNG), 8 hex digits. */
function checksum(text: string): string {
  let crc = 0xffffffff;
  for (const byte of new TextEncoder().encode(text)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ((crc ^ 0xffffffff) >>> 0).toString(16).padStart(8, "0");
}
