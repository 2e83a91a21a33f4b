import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { AgentReport } from "../../mesh/model/wire.ts";
import { changedFields, createReporter } from "../../node-agent/report.ts";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

test("the first report goes at once, the next ones at most once a second and with changed fields only", () => {
  const sent: AgentReport[] = [];
  const reporter = createReporter((report) => sent.push(report) > 0, Date.now);
  reporter.set({ kernel: "6.1", links: { g1: 51831 } });
  vi.advanceTimersByTime(1);
  expect(sent).toEqual([{ t: "report", kernel: "6.1", links: { g1: 51831 } }]);
  reporter.set({ kernel: "6.1", links: { g1: 51831, g2: 51832 } });
  reporter.set({ links: { g2: 51832 } });
  vi.advanceTimersByTime(900);
  expect(sent.length).toBe(1);
  vi.advanceTimersByTime(200);
  expect(sent[1]).toEqual({ t: "report", links: { g1: null, g2: 51832 } });
});

test("without a connection nothing is lost, and a new one is told everything", () => {
  const sent: AgentReport[] = [];
  let connected = false;
  const reporter = createReporter(
    (report) => connected && sent.push(report) > 0,
    () => 7,
  );
  reporter.set({ kernel: "6.1" });
  reporter.event({ type: "Warning", reason: "Drift", message: "m", about: "node" });
  vi.advanceTimersByTime(5_000);
  connected = true;
  reporter.connected();
  vi.advanceTimersByTime(1);
  expect(sent).toEqual([{ t: "report", kernel: "6.1", events: [{ at: 7, type: "Warning", reason: "Drift", message: "m", about: "node" }] }]);
  reporter.connected();
  vi.advanceTimersByTime(1);
  expect(sent[1]).toEqual({ t: "report", kernel: "6.1" });
});

test("what did not change is not said", () => {
  expect(
    changedFields({ kernel: "a", observed: { g1: "1.2.3.4:1" as never } }, { kernel: "a", observed: { g1: "1.2.3.4:1" as never } }),
  ).toBeUndefined();
});
