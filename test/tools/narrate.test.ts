import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { clock, narrator } from "../../tools/vm/narrate.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const told = (): { said: string[]; one: ReturnType<typeof narrator> } => {
  const said: string[] = [];
  return {
    said,
    one: narrator(
      "node",
      () => Date.now(),
      (line) => said.push(line),
    ),
  };
};

test("what comes in pieces is said in lines, with the time and whose it is", () => {
  const { said, one } = told();
  one.take("one li");
  vi.advanceTimersByTime(61_000);
  one.take("ne\n\nthe end");
  one.end();
  expect(said).toEqual(["  1:01 node | one line", "  1:01 node | the end"]);
});

test("each file has the time since the one before it, and what was green and red", () => {
  const { one } = told();
  vi.advanceTimersByTime(30_000);
  one.take("\n RUN  v5.1.1 /opt/isthmus\n");
  vi.advanceTimersByTime(60_000);
  one.take(" ✓ |kernel| test/kernel/a.test.ts > a machine > works 12ms\n × |kernel| test/kernel/a.test.ts > a machine > stays 12ms\n");
  vi.advanceTimersByTime(5_000);
  one.take("   → test/kernel/c.test.ts > said\n ✓ |kernel| test/kernel/b.test.ts > b 1ms\n");
  one.end();
  expect(one.files()).toEqual([
    { file: "test/kernel/a.test.ts", ms: 60_000, green: 1, red: 1 },
    { file: "test/kernel/b.test.ts", ms: 5_000, green: 1, red: 0 },
  ]);
});

test("a sign of life where nothing comes for long, and none after the end", () => {
  const { said, one } = told();
  vi.advanceTimersByTime(300_000);
  one.end();
  expect(said).toEqual(["  2:00 node | … still running, 0 tests over so far", "  4:00 node | … still running, 0 tests over so far"]);
  vi.advanceTimersByTime(600_000);
  expect(said).toHaveLength(2);
});

test("minutes and seconds", () => {
  expect([0, 59_600, 3_725_000].map(clock)).toEqual(["  0:00", "  1:00", " 62:05"]);
});
