/** A way that swallows large packets without a word (RFC 2923) stalls no connection, and one that has grown is used again. Needs root. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { netnsName, WORLD } from "../../lab/names.ts";
import { eventually, netnsScript } from "../../lab/shell.ts";
import { egress, expectInSync, INTERNET, type Plane, planeUp, settled, steady } from "./plane.ts";

const NAME = `t-${process.pid}-mtu`;
const CLIENT = "datacenter1";
/** What WireGuard takes of a packet of the underlay (RFC 791, UDP, 32 bytes of its own). */
const OVERHEAD = 60;
const BYTES = 300_000;

let plane: Plane;

beforeAll(async () => {
  plane = await planeUp(NAME, { manifests: false });
  await settled(plane);
  await plane.apply(egress());
  await steady(plane, CLIENT, "do1");
}, 120_000);

afterAll(async () => plane.down());

/** Between the datacenter and do1 packets of the underlay that are larger vanish; nobody is told. */
async function hole(bytes: number): Promise<void> {
  const ends = [plane.addressOf("dc-router"), plane.addressOf("do1")];
  const drops = [ends, ends.toReversed()].map(([from, to]) => `ip saddr ${from} ip daddr ${to} meta length > ${bytes} drop`);
  await netnsScript(
    netnsName(NAME, WORLD),
    `nft -f - <<'END'\ntable inet hole {\n  chain forward { type filter hook forward priority -10; ${drops.join("; ")}; }\n}\nEND\n`,
  );
}

/** Bytes that an echo service gave back of those that were sent on one connection. */
const SENDER = `
  const [address, bytes] = process.argv.slice(1);
  let back = 0;
  const end = () => { console.log(back); process.exit(0); };
  const socket = require("node:net").connect(7, address, () => socket.write(Buffer.alloc(Number(bytes))));
  socket.on("data", (part) => { back += part.length; if (back >= Number(bytes)) end(); });
  socket.on("error", end);
  setTimeout(end, 5_000);
`;
const echoed = async (): Promise<number> => Number((await plane.lab.exec(CLIENT, [process.execPath, "-e", SENDER, INTERNET, String(BYTES)])).stdout);
const linkTo = async (gateway: string): Promise<number> => {
  const { links } = await plane.status(CLIENT);
  const name = links.find((link) => link.gateway === gateway)?.interface ?? "";
  return Number(await plane.sh(CLIENT, `cat /sys/class/net/${name}/mtu`));
};
const condition = async (wanted: string): Promise<string | undefined> =>
  (await plane.status(CLIENT)).conditions.find(({ type }) => type === wanted)?.message;
const said = async (type: string): Promise<true> =>
  eventually(`${type} is said`, 60_000, async () => ((await condition(type).catch(() => undefined)) === undefined ? undefined : true));
const unsaid = async (type: string): Promise<true> =>
  eventually(`${type} is said no more`, 60_000, async () => ((await condition(type).catch(() => "")) === undefined ? true : undefined));
const wholeWidth = async (full: number): Promise<true> =>
  eventually("the whole width is used again", 60_000, async () => ((await linkTo("do1").catch(() => 0)) === full ? true : undefined));
/** IPv6 routes of flows that are pinned to a link. */
const pinned = async (): Promise<number> => Number(await plane.sh(CLIENT, "ip -6 route show table all proto 157 | grep -c '^default nhid' || true"));
/** The next packet by the mesh to do1 may be so large. */
const meshMtu = async (): Promise<number | undefined> => {
  const address = await plane.lab.overlayAddress("do1");
  const mtu = /mtu ([0-9]+)/.exec(await plane.sh(CLIENT, `ip route get ${address}`))?.[1];
  return mtu === undefined ? undefined : Number(mtu);
};

test("a black hole for large packets is measured, said, and no connection stalls in it; when it is gone, all sizes are used", async () => {
  const full = await linkTo("do1");
  expect(await echoed()).toBe(BYTES);
  await hole(1400);
  expect(await echoed()).toBeLessThan(BYTES);

  // Measured when sessions begin; an agent that starts anew is one case of it.
  await plane.lab.crash(CLIENT);
  await said("SmallMtu");
  expect(await condition("SmallMtu")).toContain("do1");
  expect(await condition("SmallMtu")).not.toContain("do2");
  const [link, mesh] = [await linkTo("do1"), await meshMtu()];
  expect(link).toBeLessThanOrEqual(1400 - OVERHEAD);
  expect(link).toBeGreaterThan(1400 - OVERHEAD - 16);
  expect(mesh).toBe(link);
  expect(await linkTo("do2")).toBe(full);
  await plane.becomes("egress by do1", CLIENT, plane.addressOf("do1"));
  expect(await echoed()).toBe(BYTES);
  await expectInSync(plane, CLIENT);

  // What was found stands after a restart, before anything is measured again.
  await plane.lab.crash(CLIENT);
  expect(await eventually("the agent is back", 30_000, async () => linkTo("do1").catch(() => undefined))).toBe(link);

  await netnsScript(netnsName(NAME, WORLD), "nft delete table inet hole");
  await plane.lab.crash(CLIENT);
  await wholeWidth(full);
  await unsaid("SmallMtu");
  expect(await meshMtu()).toBeUndefined();
  expect(await echoed()).toBe(BYTES);
});

test("a way that is too narrow for IPv6 has none, and says so; IPv4 goes on, and IPv6 comes back with the width", async () => {
  const [full, before] = [await linkTo("do1"), await pinned()];
  expect(before).toBeGreaterThan(0);
  await hole(1300);
  await plane.lab.crash(CLIENT);
  await said("NoIPv6");
  expect(await linkTo("do1")).toBeLessThanOrEqual(1300 - OVERHEAD);
  await plane.becomes("egress by do1", CLIENT, plane.addressOf("do1"));
  expect(await echoed()).toBe(BYTES);
  await expectInSync(plane, CLIENT);
  expect(await pinned()).toBe(0);

  await netnsScript(netnsName(NAME, WORLD), "nft delete table inet hole");
  await plane.lab.crash(CLIENT);
  await wholeWidth(full);
  await unsaid("NoIPv6");
  await expectInSync(plane, CLIENT);
  expect(await pinned()).toBe(before);
});

test("a node that leaves takes along what it had measured", async () => {
  expect(await plane.sh(CLIENT, "ls /var/lib/isthmus")).toContain("mtu.json");
  await plane.sh(CLIENT, "isthmus leave");
  expect(await plane.sh(CLIENT, "ls -A /var/lib/isthmus 2>&1 || true")).toMatch(/No such file/);
});
