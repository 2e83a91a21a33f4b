import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { gapReport, parsePing, withoutUnderWay } from "../../lab/gap.ts";

describe("the report of a stream", () => {
  test("without a loss has no gap, however slow the answers were", () => {
    expect(gapReport([0, 10, 20], [1, 900, 2], 30)).toMatchObject({
      sent: 3,
      lost: 0,
      longestGapMs: 0,
      gaps: [],
      rttMs: { min: 1, median: 2, max: 900 },
    });
  });

  test("counts a gap from the first lost packet to the next answered one", () => {
    expect(gapReport([0, 10, 20, 30, 40], [1, undefined, undefined, 1, 1], 50)).toMatchObject({ lost: 2, longestGapMs: 20, gaps: [[10, 20]] });
  });

  test("counts a gap that never ended up to the end of the stream", () => {
    expect(gapReport([0, 10, 20], [1, undefined, undefined], 45)).toMatchObject({ lost: 2, longestGapMs: 35 });
  });

  test("of an empty stream is empty", () => {
    expect(gapReport([], [], 0)).toEqual({ sent: 0, lost: 0, longestGapMs: 0, gaps: [], rttMs: undefined });
  });

  test("has gaps that never overlap and never exceed the stream", () => {
    fc.assert(
      fc.property(fc.array(fc.record({ step: fc.integer({ min: 1, max: 50 }), answered: fc.boolean() }), { maxLength: 200 }), (packets) => {
        let at = 0;
        const sentAt = packets.map(({ step }) => (at += step));
        const { gaps, lost, longestGapMs } = gapReport(
          sentAt,
          packets.map((packet) => (packet.answered ? 1 : undefined)),
          at + 1,
        );
        expect(lost).toBe(packets.filter((packet) => !packet.answered).length);
        let end = -1;
        for (const [from, length] of gaps) {
          expect(from).toBeGreaterThan(end);
          end = from + length;
        }
        expect(longestGapMs).toBeLessThanOrEqual(Math.max(0, at + 1 - (sentAt[0] ?? 0)));
      }),
    );
  });
});

describe("the output of ping", () => {
  const line = (at: number, seq: number, rtt: number): string => `[${at}] 64 bytes from 10.0.0.1: icmp_seq=${seq} ttl=63 time=${rtt} ms`;

  test("gives sending times, and those of lost packets by the interval", () => {
    const output = [line(1000.011, 1, 1), line(1000.052, 5, 2), "", "5 packets transmitted, 2 received, 60% packet loss, time 40ms"].join("\n");
    const { sentAt, rtt } = parsePing(output, 10);
    expect(rtt).toEqual([1, undefined, undefined, undefined, 2]);
    expect(sentAt.map(Math.round)).toEqual([1000010, 1000020, 1000030, 1000040, 1000050]);
    expect(Math.round(gapReport(sentAt, rtt, sentAt.at(-1)! + 10).longestGapMs)).toBe(30);
  });

  test("goes on counting when the 16-bit sequence number wraps", () => {
    const lines = [line(10, 65_535, 1), line(10.01, 0, 1), line(10.02, 1, 1), "65537 packets transmitted, 3 received"];
    const { rtt } = parsePing(lines.join("\n"), 10);
    expect(rtt.slice(-3)).toEqual([1, 1, 1]);
    expect(rtt).toHaveLength(65_537);
  });

  test("with nothing received is all loss", () => {
    expect(parsePing("3 packets transmitted, 0 received, 100% packet loss", 10).rtt).toEqual([undefined, undefined, undefined]);
  });
});

describe("a stream that was ended early", () => {
  const ended = (rtt: (number | undefined)[]): number => withoutUnderWay({ sentAt: rtt.map((_, i) => i * 20), rtt }, 20).rtt.length;

  test("does not count packets that were still under way", () => {
    expect(ended([4, 4, undefined])).toBe(2);
    expect(ended([4, 55, undefined, undefined, undefined, undefined])).toBe(2);
    expect(ended([4, undefined, 4])).toBe(3);
  });

  test("counts an outage at its end whole", () => {
    expect(ended([4, 4, undefined, undefined, undefined])).toBe(5);
    expect(ended([undefined, undefined, undefined])).toBe(3);
  });
});
