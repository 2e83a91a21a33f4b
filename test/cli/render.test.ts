import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { renderTable } from "../../cli/render/table.ts";
import { ageSince, ageText } from "../../cli/render/time.ts";
import { renderStatus } from "../../cli/render/status.ts";
import { renderError } from "../../cli/errors.ts";
import { spanMs } from "../../cli/span.ts";
import { IsthmusError } from "../../mesh/errors.ts";

const S = 1_000;
const M = 60 * S;
const H = 60 * M;
const D = 24 * H;

describe("ages", () => {
  it.each([
    [-5, "0s"],
    [0, "0s"],
    [119 * S, "119s"],
    [2 * M, "2m"],
    [9 * M + 59 * S, "9m59s"],
    [10 * M, "10m"],
    [3 * H - 1, "179m"],
    [3 * H + 5 * M, "3h5m"],
    [9 * H, "9h"],
    [2 * D + 3 * H, "2d3h"],
    [30 * D, "30d"],
    [800 * D, "2y70d"],
  ])("of %i ms are %j", (ms, text) => {
    expect(ageText(ms)).toBe(text);
  });

  it("are unknown where there is no time", () => {
    expect(ageSince(undefined, 0)).toBe("<unknown>");
    expect(ageSince("yesterday", 0)).toBe("<unknown>");
  });
});

describe("spans", () => {
  it.each([
    ["90s", 90 * S],
    ["1h30m", 90 * M],
    ["7d", 7 * D],
    ["250ms", 250],
  ])("%j is %i ms", (text, ms) => {
    expect(spanMs(text, "--x")).toBe(ms);
  });

  it.each(["", "5", "h", "1x", "-1h", "1h "])("%j is none", (text) => {
    expect(() => spanMs(text, "--x")).toThrow(/--x/);
  });
});

describe("tables", () => {
  it("align every column, whatever stands in the cells", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.stringMatching(/^[a-z ]{0,12}$/), fc.stringMatching(/^[a-z]{1,9}$/)), { minLength: 1, maxLength: 8 }),
        (rows) => {
          const { text } = renderTable(
            [
              { header: "ONE", value: (row: [string, string]) => row[0] },
              { header: "TWO", value: (row) => row[1] },
            ],
            rows,
            { headers: true, wide: false },
          );
          const [header = "", ...lines] = text.trimEnd().split("\n");
          const start = header.indexOf("TWO");
          expect(lines.map((line) => line.slice(start))).toEqual(rows.map(([, two]) => two));
        },
      ),
    );
  });
});

describe("status of a node", () => {
  it("says that forwarding goes on while the controller is away", () => {
    const text = renderStatus(
      {
        node: "do1",
        network: "isthmus",
        site: "do",
        overlay: ["10.101.0.1"],
        version: "0.1.0",
        controller: { connected: false, error: "connection refused", known: ["c:8443"] },
        position: { revision: 7 },
        applied: { revision: 7 },
        peers: [{ node: "do2", site: "do", overlay: ["10.101.0.2"], handshakeAgeMs: 4_000, behindNat: false, rxBytes: 2048, txBytes: 3_000_000 }],
        links: [{ gateway: "do2", interface: "ismg1", verdict: "Down", since: 0, state: "Unknown", downPaths: ["egress/web"], rttMs: 1.25 }],
        paths: [{ id: "egress/web", active: ["do1"], reason: "GatewayDown", since: 60_000 }],
        results: { "lanroute/x": { ok: false, reason: "NotReachable", message: "no LAN" } },
        conditions: [],
        drift: { count: 0 },
        events: [],
      },
      120_000,
      (_, text) => text,
    );
    expect(text).toContain("not connected; connection refused; forwarding and failing over go on without it");
    expect(text).toMatch(/do2 +do +10\.101\.0\.2 +<none> +4s ago +2\.0 KiB +2\.9 MiB/);
    expect(text).toMatch(/do2 +ismg1 +Down +Unknown \(not for egress\/web\)/);
    expect(text).toMatch(/egress\/web +do1 +GatewayDown +60s/);
    expect(text).toMatch(/lanroute\/x +NotReachable +no LAN/);
  });
});

describe("errors", () => {
  it("say what, where and what to do", () => {
    const error = new IsthmusError("Invalid", "2 documents are not valid", {
      remedy: "Correct them.",
      faults: [{ path: "spec.x", message: "unknown field", value: 5, suggestion: "y", file: "a.yaml", document: 2 }],
    });
    expect(renderError(error)).toBe(
      'error: 2 documents are not valid\n  a.yaml, document 3: spec.x: unknown field (it is 5); did you mean "y"?\ntry: Correct them.\n',
    );
  });

  it("keep a long value short", () => {
    const error = new IsthmusError("Invalid", "x", { faults: [{ path: "a", message: "wrong", value: "v".repeat(5_000) }] });
    expect(renderError(error).length).toBeLessThan(300);
  });
});
