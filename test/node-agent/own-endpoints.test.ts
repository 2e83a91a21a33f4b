import { expect, test } from "vitest";
import { ownCandidates, underlayFamilies } from "../../node-agent/own-endpoints.ts";

const at = (ifname: string, address: string): { ifname: string; address: string } => ({ ifname, address });

test("candidates are ranked: public before private, v4 before v6", () => {
  const found = [at("eth1", "192.168.88.10"), at("eth0", "2001:db8::5"), at("eth0", "203.0.113.2"), at("eth1", "fd00:9::1")];
  expect(ownCandidates(found, 51820, [])).toEqual(["203.0.113.2:51820", "[2001:db8::5]:51820", "192.168.88.10:51820", "[fd00:9::1]:51820"]);
});

test.each([
  ["lo", "203.0.113.9"],
  ["docker0", "172.17.0.1"],
  ["br-1a2b3c", "172.18.0.1"],
  ["veth12ab", "203.0.113.9"],
  ["cni0", "10.42.0.1"],
  ["flannel.1", "10.42.0.0"],
  ["cilium_host", "10.0.0.1"],
  ["cali1234", "169.254.1.1"],
  ["virbr0", "192.168.122.1"],
  ["ism0", "203.0.113.9"],
  ["tun0", "10.8.0.1"],
  ["wg0", "10.9.0.1"],
  ["eth0", "169.254.10.10"],
  ["eth0", "fe80::1"],
  ["eth0", "127.0.0.2"],
  ["eth0", "10.101.3.4"],
])("%s %s is none", (ifname, address) => {
  expect(ownCandidates([at(ifname, address)], 51820, ["10.101.0.0/16"])).toEqual([]);
  expect(underlayFamilies([at(ifname === "eth0" ? "lo" : ifname, address)]).size).toBe(0);
});

test("a bridge that carries the machine's own address counts", () => {
  expect(ownCandidates([at("br0", "192.168.1.2")], 51820, [])).toEqual(["192.168.1.2:51820"]);
});
