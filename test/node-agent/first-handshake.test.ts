import * as fc from "fast-check";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import type { WgPeer } from "../../mesh/kernel/types.ts";
import { createDialer, type Dialer, type WgStatus } from "../../node-agent/endpoints.ts";
import { PATIENCE_MS, type Tries, tryAgain } from "../../node-agent/first-handshake.ts";
import { key, rawViews } from "./plans.ts";

const NOW = 1_800_000_000_000;

describe("an initiation that got no answer", () => {
  test("is made anew a few times, each time later, and then left to WireGuard", () => {
    const again: number[] = [];
    let tries: Tries | undefined;
    for (let at = 0; at < 600_000; at += 10) {
      const look = tryAgain(tries, "a", NOW + at, 0.5);
      tries = look.tries;
      if (look.again) again.push(at);
    }
    expect(again).toEqual([350, 1_050, 2_450]);
  });

  test("is worth as many tries again when the plan names other endpoints", () => {
    let tries: Tries = { made: PATIENCE_MS.length, dueAt: Infinity, offered: "a" };
    const news = tryAgain(tries, "b", NOW, 0);
    expect(news.again).toBe(false);
    ({ tries } = news);
    expect(tryAgain(tries, "b", tries.dueAt, 0).again).toBe(true);
  });

  test("is never made anew sooner than a quarter of a second after the one before, whatever chance says", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ after: fc.integer({ min: 0, max: 5_000 }), random: fc.double({ min: 0, max: 0.999, noNaN: true }) })),
        (looks) => {
          let tries: Tries | undefined;
          let [now, last, made] = [NOW, NOW, 0];
          for (const { after, random } of looks) {
            now += after;
            const look = tryAgain(tries, "a", now, random);
            if (tries === undefined) last = now;
            tries = look.tries;
            if (!look.again) continue;
            expect(now - last).toBeGreaterThanOrEqual(250);
            [last, made] = [now, made + 1];
          }
          expect(made).toBeLessThanOrEqual(PATIENCE_MS.length);
        },
      ),
    );
  });
});

describe("a node's peers", () => {
  const folder = mkdtempSync(join(tmpdir(), "isthmus-first-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const families = new Set([4] as const);
  const plan = (nat: boolean) => {
    const raw = rawViews();
    if (nat) raw.get("mesh")?.set("peer/g2", { i: 3, k: key(3), s: "two", e: ["10.0.0.4:51820"], n: 1 });
    const parsed = parsePlan(raw).plan;
    if (parsed === undefined) throw new Error("no plan");
    return parsed;
  };
  const status = (handshakes: Readonly<Record<string, number>>): WgStatus => {
    const peers = Object.entries(handshakes).map(
      ([publicKey, latestHandshake]) =>
        [publicKey, { publicKey, allowedIps: [], keepalive: 25, latestHandshake, rxBytes: 0, txBytes: 0 } as unknown as WgPeer] as const,
    );
    return new Map([["ism0", new Map(peers)]]) as unknown as WgStatus;
  };
  const dialer = (name: string): Dialer => createDialer(join(folder, name), () => {});
  const half = (): number => 0.5;

  test("that never answered are dialed anew at the same endpoint; one that answered is left alone", () => {
    const { round, endpointOf } = dialer("again");
    const first = round(plan(false), new Map(), families, status({ [key(2)]: 0, [key(3)]: 0 }), NOW, half);
    expect(first).toMatchObject({ resets: [], dueAt: NOW + 350 });
    const second = round(plan(false), new Map(), families, status({ [key(2)]: NOW / 1_000, [key(3)]: 0 }), NOW + 350, half);
    expect(second.resets.map(({ node }) => node)).toEqual(["g2"]);
    expect(endpointOf("ism0", key(3))).toBe("203.0.113.4:51820");
    const third = round(plan(false), new Map(), families, status({ [key(2)]: NOW / 1_000, [key(3)]: NOW / 1_000 }), NOW + 1_050, half);
    expect(third).toMatchObject({ resets: [], dueAt: Infinity });
  });

  test("that dial themselves, from behind a NAT, are looked at as often, and never reset", () => {
    const { round } = dialer("nat");
    const looks = [0, 350, 1_050, 2_450].map((at) =>
      round(plan(true), new Map(), families, status({ [key(2)]: NOW / 1_000, [key(3)]: 0 }), NOW + at, half),
    );
    expect(looks.flatMap(({ resets }) => resets)).toEqual([]);
    expect(looks.map(({ dueAt }) => dueAt)).toEqual([NOW + 350, NOW + 1_050, NOW + 2_450, Infinity]);
  });

  test("that are not written yet wait for that", () => {
    const { round } = dialer("absent");
    expect(round(plan(false), new Map(), families, new Map(), NOW, half)).toMatchObject({ resets: [], dueAt: Infinity });
  });
});
