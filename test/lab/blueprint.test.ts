import { describe, expect, test } from "vitest";
import { blocks, faultId, linkLines, worldInterface } from "../../lab/blueprint.ts";
import { parseFaults } from "../../lab/faults.ts";
import { hostNamed } from "../../lab/topology.ts";
import { loadTopology, parseTopology } from "../../lab/topology-file.ts";

const topology = await loadTopology(new URL("../../lab/topology/default.yaml", import.meta.url).pathname);

test("the controller fails where it stands, and not where somebody takes it to be", () => {
  expect(parseFaults(topology, "controller", [])).toEqual([{ kind: "controller", host: "ctl" }]);
  expect(parseFaults(topology, "controller", ["ctl"])).toEqual([{ kind: "controller", host: "ctl" }]);
  expect(() => parseFaults(topology, "controller", ["do1"])).toThrow("the controller stands on ctl, not on do1");
});

describe("faults as levels", () => {
  test("a link between a hidden and a public host is cut at the hidden one's router, so that its neighbour is spared", () => {
    const { pairs, down } = blocks(topology, [{ kind: "link", a: "datacenter1", b: "do1" }]);
    expect(pairs.get("dc-router")).toEqual(["192.168.88.11 . 203.0.113.10", "203.0.113.10 . 192.168.88.11"]);
    expect(pairs.get("wan")).toEqual([]);
    expect(down.size).toBe(0);
  });

  test("a link between hosts that share a VPC is cut on both ways", () => {
    const { pairs } = blocks(topology, [{ kind: "link", a: "do1", b: "do2" }]);
    expect(pairs.get("wan")).toEqual([
      "10.116.0.2 . 10.116.0.3",
      "10.116.0.3 . 10.116.0.2",
      "198.51.100.66 . 203.0.113.10",
      "203.0.113.10 . 198.51.100.66",
    ]);
  });

  test("an uplink of a host loses the internet hosts and their prefixes, not the other sites", () => {
    const { pairs } = blocks(topology, [{ kind: "uplink", host: "do1" }]);
    expect(pairs.get("wan")).toContain("203.0.113.10 . 34.160.112.0/24");
    expect(pairs.get("wan")?.some((pair) => pair.includes("198.51.100.66"))).toBe(false);
  });

  test("an uplink of a router is its whole WAN link", () => {
    const { pairs, down } = blocks(topology, [{ kind: "uplink", host: "dc-router" }]);
    expect([...down]).toEqual(["w-dc-router"]);
    expect(pairs.get("wan")).toEqual([]);
  });

  test("healing one of two faults that overlap leaves the other's blocks", () => {
    const link = { kind: "link", a: "do1", b: "inet" } as const;
    const both = blocks(topology, [link, { kind: "uplink", host: "do1" }]);
    const left = blocks(topology, [link]);
    expect(both.pairs.get("wan")).toEqual(left.pairs.get("wan"));
    expect(left.pairs.get("wan")).not.toEqual([]);
  });

  test("the same fault has one name, whichever way round it is said", () => {
    expect(faultId({ kind: "link", a: "do1", b: "inet" })).toBe(faultId({ kind: "link", a: "inet", b: "do1" }));
  });
});

test("interface names fit into 15 characters and stay different", () => {
  const large = parseTopology(
    "internet: [{name: web, address: 34.160.111.145}]\nsites: [{name: a, kind: cloud, nodes: [{name: a-rather-long-name, count: 40}]}]",
  );
  const names = large.hosts.map((host) => worldInterface(large, host, host.nics[0]!));
  expect(new Set(names).size).toBe(names.length);
  expect(Math.max(...names.map((name) => name.length))).toBeLessThanOrEqual(15);
});

test("a host's cables are named after the host at the far end and keep their hardware addresses over a reboot", () => {
  const lines = linkLines("x", topology, hostNamed(topology, "do1"));
  expect(lines).toEqual(linkLines("x", topology, hostNamed(topology, "do1")));
  expect(lines[0]).toMatch(/^link add name w-do1 address (\S+) netns isthmus-x-wan type veth peer name eth0 address (\S+) netns isthmus-x-do1$/);
  const addresses = topology.hosts.flatMap((host) => linkLines("x", topology, host)).flatMap((line) => line.match(/(?<=address )\S+/g) ?? []);
  expect(new Set(addresses).size).toBe(addresses.length);
});
