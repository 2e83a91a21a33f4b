import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parsePlan } from "../../mesh/compile/parse-plan.ts";
import type { GatewayHealth } from "../../mesh/model/health.ts";
import type { Plan } from "../../mesh/model/plan.ts";
import { missingForChecks, missingHelp } from "../../node-agent/requirements.ts";
import { rawViews } from "./plans.ts";

const parsed = parsePlan(rawViews()).plan;
if (parsed === undefined) throw new Error("no plan");
const PLAN: Plan = parsed;

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ist-f-tools-"));
  writeFileSync(join(folder, "ping"), "#!/bin/sh\n", { mode: 0o755 });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const serving = (type: "icmp" | "tcp"): Plan => ({
  ...PLAN,
  serves: new Map([["egress/web", { snat: { type: "None" }, uplink: [{ type } as never], uplinkIntervalMs: 100, threshold: 3, holdDownMs: 5_000 }]]),
});
const routing = (type: GatewayHealth["type"]): Plan => ({
  ...PLAN,
  lanRoutes: new Map([["lanroute/a", { health: { type } } as never]]),
});

test.each([
  ["an uplink that is checked by icmp", serving("icmp")],
  ["a LAN gateway that is checked by icmp", routing("icmp")],
])("%s needs ping, and its absence is said with the package", (_what, plan) => {
  expect(missingForChecks(plan, ["/nonexistent"])).toMatch(/ping .*iputils-ping/);
  expect(missingForChecks(plan, ["/nonexistent", folder])).toBeUndefined();
});

test.each([
  ["no plan", undefined],
  ["no checks", PLAN],
  ["tcp checks of an uplink", serving("tcp")],
  ["an agent at the LAN gateway", routing("agent")],
])("%s: ping is not needed", (_what, plan) => {
  expect(missingForChecks(plan, ["/nonexistent"])).toBeUndefined();
});

test.each([
  ["none", [], /ping .*iputils-ping.*conntrack/],
  ["another ping, as BusyBox has one", ["busybox", "conntrack"], /ping .*iputils-ping/],
  ["no conntrack", ["ping"], /conntrack is not installed/],
  ["both", ["ping", "conntrack"], undefined],
])("without tools that help something is worse, and it is said what: %s", (_what, tools, said) => {
  const here = mkdtempSync(join(folder, "bin-"));
  for (const tool of tools) writeFileSync(join(here, tool), "#!/bin/sh\n", { mode: 0o755 });
  if (tools.includes("busybox")) symlinkSync(join(here, "busybox"), join(here, "ping"));
  const message = missingHelp(PLAN, [here]);
  if (said === undefined) expect(message).toBeUndefined();
  else expect(message).toMatch(said);
});

test("what checks need and what only helps is said in one line, and nothing without a plan", () => {
  expect(missingHelp(serving("icmp"), ["/nonexistent"])).toMatch(/checks of type icmp.*conntrack/);
  expect(missingHelp(undefined, ["/nonexistent"])).toBeUndefined();
});
