import { describe, expect, test } from "vitest";
import { IsthmusError } from "../../mesh/errors.ts";
import { hostNamed, publicAddress } from "../../lab/topology.ts";
import { loadTopology, parseTopology } from "../../lab/topology-file.ts";

const DEFAULT = new URL("../../lab/topology/default.yaml", import.meta.url).pathname;
const refused = (text: string): IsthmusError => {
  try {
    parseTopology(text);
  } catch (error) {
    if (error instanceof IsthmusError) return error;
    throw error;
  }
  throw new Error("the topology was accepted");
};

test("the larger topology has 16 nodes in five sites, two of them behind NAT, and gateways in three", async () => {
  const { hosts, sites } = await loadTopology(new URL("../../lab/topology/five-sites.yaml", import.meta.url).pathname);
  const nodes = hosts.filter(({ role }) => role === "node");
  expect([nodes.length, sites.length, sites.filter(({ router }) => router !== undefined).length]).toEqual([16, 5, 2]);
  expect(new Set(nodes.filter(({ labels }) => labels["egress"] === "true").map(({ site }) => site)).size).toBe(3);
});

describe("the default topology", () => {
  test("is that of the public guides", async () => {
    const topology = await loadTopology(DEFAULT);
    expect(topology.hosts.map((host) => `${host.name}/${host.role}`)).toEqual([
      "inet/internet",
      "ctl/controller",
      "dc-router/router",
      "datacenter1/node",
      "datacenter2/node",
      "lanhost/machine",
      "do1/node",
      "do2/node",
      "gw-a/router",
      "gw-b/router",
    ]);
    expect(hostNamed(topology, "do1").nics).toEqual([
      { name: "eth0", segment: "wan", address: "203.0.113.10", bits: 30, peer: "203.0.113.9" },
      { name: "eth1", segment: "vpc", address: "10.116.0.2", bits: 20 },
    ]);
    expect(hostNamed(topology, "lanhost")).toMatchObject({ gateway: "192.168.88.1", routes: [{ to: "10.101.0.0/16", via: "192.168.88.11" }] });
  });

  test("shows a host behind NAT to the internet as its router", async () => {
    const topology = await loadTopology(DEFAULT);
    expect(publicAddress(topology, hostNamed(topology, "datacenter1"))).toBe("192.0.2.10");
    expect(publicAddress(topology, hostNamed(topology, "do2"))).toBe("198.51.100.66");
  });
});

describe("a topology file", () => {
  const base = "internet: [{name: web, address: 34.160.111.145}]\n";

  test("gives every node of a count a name and an address of its own", () => {
    const topology = parseTopology(`${base}sites: [{name: a, kind: cloud, nodes: [{name: edge, count: 200}]}]`);
    const nodes = topology.hosts.filter((host) => host.role === "node");
    expect(nodes).toHaveLength(200);
    expect(nodes.at(-1)?.name).toBe("edge200");
    expect(new Set(nodes.map((node) => node.nics[0]?.address)).size).toBe(200);
  });

  test("numbers a LAN around the addresses that are taken", () => {
    const topology = parseTopology(
      `${base}sites: [{name: a, kind: onprem, lan: {subnet: 10.0.0.0/24, router: {name: r}}, nodes: [{name: x, address: 10.0.0.10}, {name: n, count: 2}]}]`,
    );
    expect(topology.hosts.filter((host) => host.role === "node").map((host) => host.nics[0]?.address)).toEqual([
      "10.0.0.10",
      "10.0.0.11",
      "10.0.0.12",
    ]);
  });

  test.each([
    ["an unknown field", "sites: [{name: a, kind: cloud, nods: []}]", "sites.a"],
    ["a wrong kind", "sites: [{name: a, kind: moon}]", "sites.a.kind"],
    ["host bits in a prefix", "sites: [{name: a, kind: onprem, lan: {subnet: 10.0.0.1/24, router: {name: r}}}]", "sites.a.lan.subnet"],
    ["an IPv6 address", "sites: [{name: a, kind: cloud, nodes: [{name: n, address: '2001:db8::1'}]}]", "sites.a.nodes.n.address"],
    ["an address that no /30 can hold", "sites: [{name: a, kind: cloud, nodes: [{name: n, address: 203.0.113.8}]}]", "sites.a.nodes.n.address"],
    [
      "an address outside of its LAN",
      "sites: [{name: a, kind: onprem, lan: {subnet: 10.0.0.0/24, router: {name: r}}, nodes: [{name: n, address: 10.9.0.1}]}]",
      "sites.a.nodes.n.address",
    ],
    ["a name given twice", "sites: [{name: a, kind: cloud, nodes: [{name: web}]}]", "name"],
    [
      "a VPC member that is nobody",
      "sites: [{name: a, kind: cloud, nodes: []}]\nvpcs: [{name: v, subnet: 10.1.0.0/24, members: {ghost: 10.1.0.2}}]",
      "vpcs.v.members.ghost",
    ],
    ["a site without a name", "sites: [{name: a, kind: cloud}, {kind: moon}]", "sites.1.name"],
    ["a machine on a site that has no LAN", "sites: [{name: a, kind: cloud, machines: [{name: m}]}]", "sites.a.machines"],
    [
      "a VPC router outside of its VPC",
      "sites: [{name: a, kind: cloud}]\nvpcs: [{name: v, subnet: 10.1.0.0/24, routers: [{name: g, address: 10.9.0.1}]}]",
      "vpcs.v.routers.g.address",
    ],
    ["text that is not YAML", "sites: [", ""],
    ["nothing in it", undefined, ""],
  ])("with %s is refused with the place", (_what, text, path) => {
    const error = refused(text === undefined ? "# nothing" : `${base}${text}`);
    expect(error.code).toBe("Invalid");
    expect(error.faults[0]?.path).toBe(path);
    // Said once, with its place; the headline is about the file.
    expect(error.message).toBe("topology is not a topology that can be built");
    expect(error.faults[0]?.message).not.toContain("received null");
  });

  test("asked for a host that it does not have, names those that it has", () => {
    const topology = parseTopology(`${base}sites: [{name: a, kind: cloud, nodes: [{name: n1}]}]`);
    expect(() => hostNamed(topology, "n2")).toThrowError(expect.objectContaining({ code: "NotFound", remedy: expect.stringContaining("n1") }));
  });
});
