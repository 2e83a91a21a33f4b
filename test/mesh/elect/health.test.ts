import { describe, expect, test } from "vitest";
import {
  collectMisses,
  createLinkHealth,
  deadlineMs,
  linkView,
  MAX_HOLD_DOWN_MS,
  onAnswer,
  onGatewayState,
  onSent,
  onVoidWindow,
  settle,
  STATE_SILENCE_MS,
  type HealthState,
} from "../../../mesh/elect/health.ts";
import { isLate, isSilent, judgeLinks, voidAll } from "../../../mesh/elect/stall.ts";
import type { NodeName } from "../../../mesh/model/scalars.ts";

const config = { intervalMs: 100, threshold: 3, holdDownMs: 5_000 };
const name = "gw" as NodeName;

/** Drives links over time: every interval each sends; `answers(link, at)` says after how many ms the answer comes, if one does. */
function drive(links: readonly HealthState[], from: number, to: number, answers: (link: number, at: number) => number | undefined): void {
  const flying: { link: HealthState; seq: number; at: number }[] = [];
  for (let now = from; now < to; now += 5) {
    for (const one of flying.filter(({ at }) => at <= now)) onAnswer(one.link, one.seq, now);
    flying.splice(0, flying.length, ...flying.filter(({ at }) => at > now));
    if (now % 100 !== 0) continue;
    judgeLinks(links, now);
    links.forEach((link, i) => {
      const seq = onSent(link, now);
      const rtt = answers(i, now);
      if (rtt !== undefined) flying.push({ link, seq, at: now + rtt });
    });
  }
}

const verdicts = (links: readonly HealthState[]): string[] => links.map(({ verdict }) => verdict);

describe("one link", () => {
  test("the first answer ever makes it Up at once", () => {
    const link = createLinkHealth(config, 0);
    expect(linkView(name, link).verdict).toBe("Unknown");
    onAnswer(link, onSent(link, 0), 20);
    expect(linkView(name, link)).toMatchObject({ verdict: "Up", since: 20, srttMs: 20 });
  });

  test("it is Down after three misses in a row and not after two", () => {
    const link = createLinkHealth(config, 0);
    drive([link], 0, 1_000, () => 10);
    drive([link], 1_000, 1_205, () => undefined);
    expect(link.verdict).toBe("Up");
    drive([link], 1_300, 1_405, () => undefined);
    expect(link.verdict).toBe("Down");
  });

  test("every third probe lost is not down", () => {
    const link = createLinkHealth(config, 0);
    drive([link], 0, 20_000, (_, at) => (at % 300 === 0 ? undefined : 10));
    expect(link.verdict).toBe("Up");
  });

  test("an answer after more than an interval is life, and stretches the deadline", () => {
    const link = createLinkHealth(config, 0);
    drive([link], 0, 1_000, () => 10);
    drive([link], 1_000, 5_000, () => 250);
    expect(link.verdict).toBe("Up");
    expect(deadlineMs(link)).toBeGreaterThan(240);
  });

  test("a round trip of 250 ms from the start is Up and stays so", () => {
    const link = createLinkHealth(config, 0);
    drive([link], 0, 5_000, () => 250);
    expect(linkView(name, link)).toMatchObject({ verdict: "Up", since: 250 });
  });

  test.each([0, 5_000])("what waited out a silence is no measure of the way: hold-down of %s ms", (holdDownMs) => {
    const link = createLinkHealth({ ...config, holdDownMs }, 0);
    drive([link], 0, 1_000, () => 10);
    // Like a TCP handshake or WireGuard's queue: all is answered together when the way is back.
    drive([link], 1_000, 3_005, (_, at) => 3_000 - at || undefined);
    drive([link], 3_100, 3_200, () => 10);
    expect(deadlineMs(link)).toBe(config.intervalMs);
    drive([link], 3_200, 9_000, () => 10);
    expect(link.verdict).toBe("Up");
    drive([link], 9_000, 9_405, () => undefined);
    expect(link.verdict).toBe("Down");
  });

  test("nor is it before the first answer ever", () => {
    const link = createLinkHealth(config, 0);
    drive([link], 0, 2_005, (_, at) => 2_000 - at || undefined);
    drive([link], 2_100, 2_200, () => 10);
    expect(linkView(name, link)).toMatchObject({ verdict: "Up", srttMs: 10 });
  });

  test("after Down it must answer for the quiet period; until then it is a last resort", () => {
    const link = createLinkHealth(config, 0);
    drive([link], 0, 1_000, () => 10);
    drive([link], 1_000, 2_000, () => undefined);
    drive([link], 2_000, 4_000, () => 10);
    expect(linkView(name, link)).toMatchObject({ verdict: "Down", holdDownUntil: 7_010 });
    drive([link], 4_000, 7_305, () => 10);
    expect(linkView(name, link)).toMatchObject({ verdict: "Up" });
    expect(linkView(name, link).holdDownUntil).toBeUndefined();
  });

  test("single losses do not restart the quiet period, silence does", () => {
    const link = createLinkHealth(config, 0);
    drive([link], 0, 1_000, () => 10);
    drive([link], 1_000, 2_000, () => undefined);
    drive([link], 2_000, 7_500, (_, at) => (at % 500 === 0 ? undefined : 10));
    expect(link.verdict).toBe("Up");
    drive([link], 7_500, 8_000, () => undefined);
    drive([link], 8_000, 10_000, () => 10);
    drive([link], 10_000, 10_500, () => undefined);
    expect(linkView(name, link).holdDownUntil).toBeUndefined();
  });

  test("the quiet period doubles with flapping up to five minutes and shrinks after steady minutes", () => {
    const link = createLinkHealth(config, 0);
    const periods: number[] = [];
    let now = 0;
    for (let flap = 0; flap < 9; flap++) {
      drive([link], now, now + 400_000, () => 10);
      // Steady for 2 s only: it has been Up since the end of the quiet period.
      link.since = now + 398_000;
      drive([link], now + 400_000, now + 401_000, () => undefined);
      periods.push(link.holdDownMs);
      now += 401_000;
    }
    expect(periods).toEqual([5, 10, 20, 40, 80, 160, 300, 300, 300].map((s) => s * 1_000));
    expect(MAX_HOLD_DOWN_MS).toBe(300_000);
    drive([link], now, now + 1_800_000, () => 10);
    drive([link], now + 1_800_000, now + 1_801_000, () => undefined);
    expect(link.holdDownMs).toBe(5_000);
  });

  test("a gateway's good word fades after ten silent seconds, a bad one stays", () => {
    const link = createLinkHealth(config, 0);
    onGatewayState(link, "Serving", [], 0);
    settle(link, STATE_SILENCE_MS - 1);
    expect(link.gateway).toBe("Serving");
    settle(link, STATE_SILENCE_MS);
    expect(link.gateway).toBe("Unknown");
    onGatewayState(link, "UplinkDown", ["egress/a"], 20_000);
    settle(link, 90_000);
    expect(linkView(name, link)).toMatchObject({ gateway: "UplinkDown", downPaths: ["egress/a"] });
  });

  test("an answer that was never asked for, came twice or is ancient is refused", () => {
    const link = createLinkHealth(config, 0);
    const seq = onSent(link, 0);
    expect(onAnswer(link, seq + 1, 5)).toBe(false);
    expect(onAnswer(link, seq, 5)).toBe(true);
    expect(onAnswer(link, seq, 6)).toBe(false);
    for (let i = 0; i < 100; i++) onSent(link, 10 + i);
    expect(onAnswer(link, 2, 200)).toBe(false);
  });

  test("answers that were read late because we stood still do not stretch the deadline", () => {
    const link = createLinkHealth(config, 0);
    drive([link], 0, 1_000, () => 10);
    const seq = onSent(link, 1_000);
    onVoidWindow(link);
    onAnswer(link, seq, 6_000);
    expect(deadlineMs(link)).toBe(100);
    collectMisses(link, 6_000);
    expect(link.missed).toBe(0);
  });
});

describe("several links", () => {
  const pair = (): HealthState[] => [createLinkHealth(config, 0), createLinkHealth(config, 0)];

  test("the dead one is Down in four intervals while the other answers", () => {
    const links = pair();
    drive(links, 0, 1_000, () => 10);
    drive(links, 1_000, 1_405, (link) => (link === 0 ? undefined : 10));
    expect(verdicts(links)).toEqual(["Down", "Up"]);
  });

  test("a witness with a round trip of 250 ms delays it by its round trip only", () => {
    const links = pair();
    drive(links, 0, 5_000, (link) => (link === 0 ? 10 : 250));
    drive(links, 5_000, 5_705, (link) => (link === 0 ? undefined : 250));
    expect(verdicts(links)).toEqual(["Down", "Up"]);
  });

  test("all silent: nothing moves, and it shows", () => {
    const links = pair();
    drive(links, 0, 1_000, () => 10);
    drive(links, 1_000, 6_000, () => undefined);
    expect(verdicts(links)).toEqual(["Up", "Up"]);
    expect(isSilent(links)).toBe(true);
  });

  test.each([350, 1_000, 2_500, 5_000, 9_000])("after %d ms of our own outage the first link to answer does not condemn the other", (outage) => {
    for (const [rttA, rttB] of [
      [50, 10],
      [10, 50],
      [10, 250],
      [250, 10],
      [90, 20],
    ] as const) {
      for (let phase = 0; phase < 100; phase += 15) {
        const links = pair();
        const from = 5_000 + phase;
        // Lost when the outage covers any part of the way.
        const answers = (link: number, at: number): number | undefined => {
          const rtt = link === 0 ? rttA : rttB;
          return at + rtt > from && at < from + outage ? undefined : rtt;
        };
        drive(links, 0, 5_000 + outage + 3_000, answers);
        expect([outage, rttA, rttB, phase, ...verdicts(links)]).toEqual([outage, rttA, rttB, phase, "Up", "Up"]);
        expect(isSilent(links)).toBe(false);
      }
    }
  });

  test("one dies during our own outage: it is Down soon after the other answers again", () => {
    const links = pair();
    drive(links, 0, 1_000, () => 10);
    drive(links, 1_000, 4_000, () => undefined);
    drive(links, 4_000, 4_805, (link) => (link === 0 ? undefined : 10));
    expect(verdicts(links)).toEqual(["Down", "Up"]);
  });

  test("silent for longer than ten seconds they are called Down", () => {
    const links = pair();
    drive(links, 0, 1_000, () => 10);
    drive(links, 1_000, 12_000, () => undefined);
    expect(verdicts(links)).toEqual(["Down", "Down"]);
    expect(isSilent(links)).toBe(false);
  });

  test("the last living link goes Down without a witness", () => {
    const links = pair();
    drive(links, 0, 1_000, () => 10);
    drive(links, 1_000, 2_000, (link) => (link === 0 ? undefined : 10));
    drive(links, 2_000, 2_505, () => undefined);
    expect(verdicts(links)).toEqual(["Down", "Down"]);
  });

  test("a window in which our loop stood still counts nothing, yet a starved prober still finds the dead link", () => {
    const links = pair();
    drive(links, 0, 1_000, () => 10);
    // Throttled: every window is late. The second link answers, the first never.
    const late = (from: number, to: number): void => {
      for (let now = from; now < to; now += 100) {
        voidAll(links);
        judgeLinks(links, now);
        links.forEach((link) => onSent(link, now));
        onAnswer(links[1]!, links[1]!.lastSeq, now + 10);
      }
    };
    late(1_000, 3_000);
    expect(verdicts(links)).toEqual(["Up", "Up"]);
    late(3_000, 6_000);
    expect(verdicts(links)).toEqual(["Down", "Up"]);
  });

  test("late means more than half an interval", () => {
    expect(isLate(1_000, 1_050, 100)).toBe(false);
    expect(isLate(1_000, 1_051, 100)).toBe(true);
  });
});
