import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatJoinToken, parseJoinToken } from "../../../mesh/model/token.ts";

const token = {
  controllers: ["203.0.113.10:8443", "ctl.example.org:8443"],
  secret: "A".repeat(43),
  name: "dc1",
  pin: "ab".repeat(32),
};

describe("join token text", () => {
  test("what was formatted is parsed back", () => {
    expect(parseJoinToken(`  ${formatJoinToken(token)}\n`)).toEqual(token);
  });

  test("a token that lost characters anywhere is told to be cut short", () => {
    const text = formatJoinToken(token);
    fc.assert(
      fc.property(fc.integer({ min: 5, max: text.length - 1 }), fc.integer({ min: 1, max: 20 }), (at, count) => {
        const cut = text.slice(0, at) + text.slice(at + count);
        expect(() => parseJoinToken(cut)).toThrowError(/cut short or mistyped/);
      }),
    );
  });

  test("arbitrary text never passes and never throws anything but TokenMalformed", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(() => parseJoinToken(text)).toThrowError(expect.objectContaining({ code: "TokenMalformed" }));
        expect(() => parseJoinToken(`ist1.${text}`)).toThrowError(expect.objectContaining({ code: "TokenMalformed" }));
      }),
    );
  });

  test("the error does not repeat the secret", () => {
    try {
      parseJoinToken(formatJoinToken(token).slice(0, -3));
      expect.unreachable();
    } catch (thrown) {
      expect(JSON.stringify(thrown)).not.toContain(token.secret.slice(0, 10));
    }
  });
});
