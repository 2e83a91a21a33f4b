/**
 * Branded scalars, parsed once at the edge. Patterns are RE2 and lengths are bounded so that the same schemas can become
 * structural CRD schemas; what a pattern cannot say is a refinement that calls `mesh/net`.
 */
import { z } from "zod";
import { canonicalCidr, canonicalIp } from "../net/ip.ts";

/** Lower-case DNS label (RFC 1123 §2.1), the name of every object. */
export const ObjectName = z
  .string()
  .min(1)
  .max(63)
  .regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, "must be lower-case letters, digits, '-' and '.', starting and ending with a letter or digit")
  .brand<"ObjectName">();
export type ObjectName = z.infer<typeof ObjectName>;

/** A node's name: one DNS label, because it becomes `<node>.<network>` in name resolution. */
export const NodeName = z
  .string()
  .min(1)
  .max(63)
  .regex(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/, "must be one DNS label: lower-case letters, digits and '-'")
  .brand<"NodeName">();
export type NodeName = z.infer<typeof NodeName>;

/** An IPv4 or IPv6 address in canonical form (RFC 5952); v4-mapped v6 is refused. */
export const IpAddress = z
  .string()
  .max(45)
  .superRefine((text, ctx) => {
    const parsed = canonicalIp(text);
    if (!parsed.ok) ctx.addIssue({ code: "custom", message: parsed.fault });
  })
  .overwrite((text) => {
    const parsed = canonicalIp(text);
    return parsed.ok ? parsed.text : text;
  })
  .brand<"IpAddress">();
export type IpAddress = z.infer<typeof IpAddress>;

/** A prefix in canonical form. Host bits are refused; a bare address means /32 or /128. */
export const Cidr = z
  .string()
  .max(49)
  .superRefine((text, ctx) => {
    const parsed = canonicalCidr(text);
    if (!parsed.ok) ctx.addIssue({ code: "custom", message: parsed.fault });
  })
  .overwrite((text) => {
    const parsed = canonicalCidr(text);
    return parsed.ok ? parsed.text : text;
  })
  .brand<"Cidr">();
export type Cidr = z.infer<typeof Cidr>;

/** Curve25519 public key, base64 (44 characters). */
export const WgPublicKey = z
  .string()
  .length(44)
  .regex(/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/, "must be a WireGuard public key: 32 bytes in base64")
  .brand<"WgPublicKey">();
export type WgPublicKey = z.infer<typeof WgPublicKey>;

export const Port = z.int().min(1).max(65535);

/** `ADDR:PORT`, a v6 address in brackets. */
export const Endpoint = z
  .string()
  .max(54)
  .regex(/^([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$/, "must be ADDR:PORT, a v6 address in brackets")
  .brand<"Endpoint">();
export type Endpoint = z.infer<typeof Endpoint>;

/** A length of time: `100ms`, `5s`, `2m`, `24h`. */
export const Duration = z
  .string()
  .max(12)
  .regex(/^[0-9]{1,9}(ms|s|m|h)$/, "must be a number with a unit: ms, s, m or h (for example 100ms)");
export type Duration = z.infer<typeof Duration>;

const UNIT_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;

/** Milliseconds of a duration that the schema accepted. */
export function durationMs(text: Duration): number {
  const unit = text.endsWith("ms") ? "ms" : (text.slice(-1) as "s" | "m" | "h");
  return Number.parseInt(text, 10) * UNIT_MS[unit];
}

const LABEL_KEY = /^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/;
const LABEL_VALUE = /^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$/;

/** Kubernetes label syntax, so that the same selectors serve both worlds. */
export const Labels = z
  .record(z.string(), z.string().max(63).regex(LABEL_VALUE, "must be empty or up to 63 letters, digits, '-', '_' and '.'"))
  .superRefine((labels, ctx) => {
    for (const key of Object.keys(labels)) {
      if (!LABEL_KEY.test(key)) {
        ctx.addIssue({
          code: "custom",
          path: [key],
          params: { about: "key" },
          message: "must be a label key: [prefix/]name, name up to 63 letters, digits, '-', '_' and '.'",
        });
      }
    }
  });
export type Labels = z.infer<typeof Labels>;
