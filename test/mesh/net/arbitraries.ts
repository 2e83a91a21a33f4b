/** Generators of addresses and prefixes, canonical by construction and without the code under test. */
import * as fc from "fast-check";
import type { ParsedCidr } from "../../../mesh/net/ip.ts";

const mapped = (value: bigint): boolean => value >> 32n === 0xffffn;

export const v4Value = fc.bigInt({ min: 0n, max: 2n ** 32n - 1n });
export const v6Value = fc
  .oneof(
    fc.bigInt({ min: 0n, max: 2n ** 128n - 1n }),
    // Many groups of zeros, so that shortening is exercised.
    fc
      .array(fc.constantFrom(0n, 0n, 1n, 0xabcdn), { minLength: 8, maxLength: 8 })
      .map((parts) => parts.reduce<bigint>((sum, part) => (sum << 16n) | part, 0n)),
  )
  .filter((value) => !mapped(value));

const cut = (value: bigint, width: bigint, bits: number): bigint => {
  const shift = width - BigInt(bits);
  return (value >> shift) << shift;
};

export const v4Cidr: fc.Arbitrary<ParsedCidr> = fc
  .tuple(v4Value, fc.integer({ min: 0, max: 32 }))
  .map(([value, bits]) => ({ family: 4, value: cut(value, 32n, bits), bits }));
export const v6Cidr: fc.Arbitrary<ParsedCidr> = fc
  .tuple(v6Value, fc.integer({ min: 0, max: 128 }))
  .map(([value, bits]): ParsedCidr => ({ family: 6, value: cut(value, 128n, bits), bits }))
  .filter(({ value }) => !mapped(value));
export const anyCidr = fc.oneof(v4Cidr, v6Cidr);

/** Prefixes of a tiny world of 64 addresses in each family: a model can list them all. */
export const tinyCidr: fc.Arbitrary<string> = fc
  .tuple(fc.boolean(), fc.integer({ min: 0, max: 63 }), fc.integer({ min: 0, max: 6 }))
  .map(([v4, host, free]) => {
    const start = (host >> free) << free;
    return v4 ? `10.0.0.${start}/${32 - free}` : `fd00::${start === 0 ? "" : start.toString(16)}/${128 - free}`;
  });
export const tinyCidrs = fc.array(tinyCidr, { maxLength: 12 });

/** The addresses of a tiny prefix, as names. */
export function listTiny(cidrs: readonly string[]): Set<string> {
  const out = new Set<string>();
  for (const cidr of cidrs) {
    const [address = "", length = ""] = cidr.split("/");
    const v4 = !address.includes(":");
    const start = v4 ? Number(address.split(".")[3]) : Number.parseInt(address.slice("fd00::".length) || "0", 16);
    const size = 2 ** ((v4 ? 32 : 128) - Number(length));
    for (let i = 0; i < size; i++) out.add(`${v4 ? "4" : "6"}:${start + i}`);
  }
  return out;
}
