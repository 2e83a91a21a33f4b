import { expect, test } from "vitest";
import type { Fault } from "../../lab/blueprint.ts";
import { expectedBack } from "../../lab/expected.ts";
import type { HostStatus } from "../../lab/lab.ts";
import { renderStatus } from "../../lab/render.ts";

const host = (name: string, role: HostStatus["role"], more: Partial<HostStatus> = {}): HostStatus => ({
  name,
  role,
  power: "on",
  addresses: [],
  netns: "",
  ...more,
});
const HOSTS = [
  host("ctl", "controller", { service: "running" }),
  host("dc-router", "router", { site: "dc1" }),
  host("dc", "node", { site: "dc1", service: "running" }),
  host("do1", "node", { site: "do1", service: "running" }),
  host("do2", "node", { site: "do2", service: "running" }),
];
const shown = (hosts: readonly HostStatus[], faults: readonly Fault[] = []): string =>
  renderStatus({ name: "l", createdAt: "now", joined: true, hosts, faults });

test("a healed controller is not kept waiting for nodes that another fault cuts off", () => {
  expect(expectedBack({ hosts: HOSTS, faults: [] })).toEqual(["dc", "do1", "do2"]);
  expect(expectedBack({ hosts: HOSTS, faults: [{ kind: "uplink", host: "dc-router" }] })).toEqual(["do1", "do2"]);
  expect(expectedBack({ hosts: HOSTS, faults: [{ kind: "link", a: "do1", b: "ctl" }] })).toEqual(["dc", "do2"]);
  expect(expectedBack({ hosts: HOSTS, faults: [{ kind: "agent", host: "do2" }] })).toEqual(["dc", "do1"]);
});

test("hosts that do not run although nobody failed them are named", () => {
  expect(shown(HOSTS)).toContain("nothing is broken");
  const half = HOSTS.map((one) =>
    one.name === "do1" ? { ...one, power: "off" as const } : one.name === "ctl" ? { ...one, service: "stopped" as const } : one,
  );
  expect(shown(half)).toMatch(/not running, though nobody failed them: ctl \(service stopped\), do1 \(off\); `isthmus lab down`/);
  expect(shown(half)).not.toContain("nothing is broken");
  const broken = shown(half, [
    { kind: "node", host: "do1" },
    { kind: "controller", host: "ctl" },
  ]);
  expect(broken).not.toContain("nobody failed");
});
