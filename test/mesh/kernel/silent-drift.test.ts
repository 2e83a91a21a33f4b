import { describe, expect, it } from "vitest";
import { desiredKernel } from "../../../mesh/kernel/desired.ts";
import { diffKernel } from "../../../mesh/kernel/diff.ts";
import type { WgDevice, WgPeerSeen } from "../../../mesh/kernel/types.ts";
import { silentDrift } from "../../../mesh/kernel/silent-drift.ts";
import type { WgPublicKey } from "../../../mesh/model/scalars.ts";
import { cidr, clientInput, keyOf } from "./fixtures.ts";

const desired = desiredKernel(clientInput()).state;

type Seen = { -readonly [K in keyof WgDevice]: WgDevice[K] } & { peers: Map<WgPublicKey, WgPeerSeen> };

/** What WireGuard says when all is as written, and time has gone by. */
function untouched(): Map<string, Seen> {
  return new Map(
    [...desired.wireguard].map(([name, { listenPort, fwmark, publicKey, peers }]) => [
      name,
      {
        listenPort,
        fwmark,
        publicKey,
        peers: new Map(
          [...peers].map(([key, peer]) => [key, { ...peer, endpoint: "192.0.2.77:9" as never, latestHandshake: 5, rxBytes: 6, txBytes: 7 }]),
        ),
      },
    ]),
  );
}

const first = (device: Seen): WgPeerSeen => [...device.peers.values()][0]!;
const put = (device: Seen, change: Partial<WgPeerSeen>): void => void device.peers.set(first(device).publicKey, { ...first(device), ...change });

describe("what someone else changed without a word", () => {
  it("is nothing while only sessions, endpoints and counters move", () => {
    expect(silentDrift(desired, { wireguard: untouched(), sysctls: desired.sysctls })).toBe("");
  });

  it.each<[string, (mesh: Seen, all: Map<string, Seen>) => void]>([
    ["ism0 publicKey", (mesh) => (mesh.publicKey = keyOf(20))],
    ["ism0 listenPort", (mesh) => (mesh.listenPort = 1)],
    ["ism0 fwmark", (mesh) => (mesh.fwmark = 0)],
    [`ism0 ${keyOf(2)}`, (mesh) => put(mesh, { allowedIps: [cidr("198.18.55.0/24")] })],
    [`ism0 ${keyOf(2)}`, (mesh) => put(mesh, { allowedIps: first(mesh).allowedIps.slice(1) })],
    [`ism0 ${keyOf(2)}`, (mesh) => put(mesh, { allowedIps: [...first(mesh).allowedIps, cidr("198.18.55.0/24")].sort() })],
    [`ism0 ${keyOf(2)}`, (mesh) => put(mesh, { keepalive: 0 })],
    [`ism0 ${keyOf(2)}`, (mesh) => put(mesh, { presharedKey: true })],
    [`ism0 ${keyOf(2)}`, (mesh) => void mesh.peers.delete(keyOf(2))],
    [`ism0 ${keyOf(21)}`, (mesh) => void mesh.peers.set(keyOf(21), { ...first(mesh), publicKey: keyOf(21) })],
    ["ismg1", (_, all) => void all.delete("ismg1")],
  ])("is named (%s), and put back by what the observed difference asks for", (named, change) => {
    const seen = untouched();
    change(seen.get("ism0")!, seen);
    expect(silentDrift(desired, { wireguard: seen, sysctls: desired.sysctls })).toBe(named);
    const wireguard = new Map([...seen].map(([name, device]) => [name, { ...desired.wireguard.get(name)!, ...device }]));
    expect(diffKernel(desired, { ...desired, wireguard })).not.toEqual([]);
  });

  it("is named where it is a sysctl, also one that is gone", () => {
    const [name = ""] = desired.sysctls.keys();
    expect(silentDrift(desired, { wireguard: untouched(), sysctls: new Map([...desired.sysctls, [name, "7"]]) })).toBe(name);
    const gone = new Map([...desired.sysctls].filter(([one]) => one !== name));
    expect(silentDrift(desired, { wireguard: untouched(), sysctls: gone })).toBe(name);
  });
});
