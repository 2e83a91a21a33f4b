/** What a stream of numbered packets says about an outage: how many were lost, and for how long nothing came through. */

export interface GapReport {
  readonly sent: number;
  readonly lost: number;
  /**
   * The longest outage in milliseconds: from the sending of the first packet of a run of lost ones to the sending of the next
   * packet that was answered (or the end of the stream). 0 when none was lost.
   */
  readonly longestGapMs: number;
  /** Every outage, as [start since the stream's first packet, length], both in milliseconds. */
  readonly gaps: readonly (readonly [number, number])[];
  readonly rttMs: { readonly min: number; readonly median: number; readonly max: number } | undefined;
}

/**
 * @param sentAt sending time of each packet in milliseconds, in order
 * @param rtt round-trip time of each packet, undefined when it was never answered
 * @param endAt when the stream ended
 */
export function gapReport(sentAt: readonly number[], rtt: readonly (number | undefined)[], endAt: number): GapReport {
  const gaps: [number, number][] = [];
  const origin = sentAt[0] ?? 0;
  let lost = 0;
  let from: number | undefined;
  const close = (at: number): void => {
    if (from !== undefined) gaps.push([round(from - origin), round(at - from)]);
    from = undefined;
  };
  for (const [i, at] of sentAt.entries()) {
    if (rtt[i] !== undefined) close(at);
    else {
      lost++;
      from ??= at;
    }
  }
  close(endAt);
  const times = rtt.filter((time) => time !== undefined).sort((a, b) => a - b);
  return {
    sent: sentAt.length,
    lost,
    longestGapMs: gaps.reduce((longest, [, length]) => Math.max(longest, length), 0),
    gaps,
    rttMs: times.length === 0 ? undefined : { min: round(times[0]!), median: round(times[times.length >> 1]!), max: round(times.at(-1)!) },
  };
}

const round = (ms: number): number => Math.round(ms * 10) / 10;

/** Reads the output of iputils `ping -D -n`: sending time is the time of the answer less its round trip. */
export function parsePing(output: string, intervalMs: number): { sentAt: number[]; rtt: (number | undefined)[]; endAt: number } {
  const answers = new Map<number, { at: number; rtt: number }>();
  let wraps = 0;
  let last = 0;
  for (const match of output.matchAll(/^\[([0-9.]+)\] [0-9]+ bytes from .* icmp_seq=([0-9]+) .*time=([0-9.]+) ms/gm)) {
    const low = Number(match[2]);
    // The sequence number has 16 bits.
    if (last - low > 32_768) wraps++;
    if (low - last > 32_768 && wraps > 0) continue;
    last = low;
    const rtt = Number(match[3]);
    const seq = wraps * 65_536 + low;
    if (!answers.has(seq)) answers.set(seq, { at: Number(match[1]) * 1000 - rtt, rtt });
  }
  const transmitted = Number(/^([0-9]+) packets transmitted/m.exec(output)?.[1] ?? Math.max(0, ...answers.keys()));
  const sentAt: number[] = [];
  const rtt: (number | undefined)[] = [];
  // A lost packet's sending time is counted on from the packet before it; ping keeps its interval.
  const firstAnswered = [...answers.entries()][0];
  let clock = firstAnswered === undefined ? 0 : firstAnswered[1].at - firstAnswered[0] * intervalMs;
  for (let seq = 1; seq <= transmitted; seq++) {
    const answer = answers.get(seq);
    clock = answer?.at ?? clock + intervalMs;
    sentAt.push(clock);
    rtt.push(answer?.rtt);
  }
  return { sentAt, rtt, endAt: clock + intervalMs };
}

/**
 * For a stream that was ended while packets were under way: without the last ones that were not answered, as many as can be on
 * their way at once. More of them are an outage, and all count.
 */
export function withoutUnderWay<T extends { sentAt: number[]; rtt: (number | undefined)[] }>(stream: T, intervalMs: number): T {
  const answered = stream.rtt.findLastIndex((time) => time !== undefined) + 1;
  const slowest = stream.rtt.reduce((most: number, time) => Math.max(most, time ?? 0), 0);
  const underWay = stream.rtt.length - answered;
  if (underWay > Math.ceil(slowest / intervalMs) + 1) return stream;
  return { ...stream, sentAt: stream.sentAt.slice(0, answered), rtt: stream.rtt.slice(0, answered) };
}
