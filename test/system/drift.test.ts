/**
 * What others take away from the kernel comes back, and so does everything after a reboot or `kill -9` at any moment, with the
 * controller dead (I1, I2, I10). Needs root. `ISTHMUS_KILLS=200` kills more often, `ISTHMUS_SEED` repeats a run.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../../lab/shell.ts";
import { expectInSync, INTERNET, type Plane, planeUp, settled } from "./plane.ts";

const KILLS = Number(process.env["ISTHMUS_KILLS"] ?? 50);
const SEED = Number(process.env["ISTHMUS_SEED"] ?? Date.now() % 100_000);
const NODE = "datacenter1";

let plane: Plane;

beforeAll(async () => {
  plane = await planeUp(`t-${process.pid}-kd`);
}, 120_000);

afterAll(async () => plane.down());

/** Everything of ours and of others in the node's kernel that `ip`, `nft` and `wg` list, without what counts or ages. */
async function kernelOf(node: string): Promise<string> {
  const script = [
    "ip -4 rule; ip -6 rule",
    "ip -4 route show table all | grep -v 'table local' | sort",
    "ip -6 route show table all proto 157 | sort",
    "ip nexthop | sort; cat /proc/sys/net/ipv4/conf/all/src_valid_mark",
    "ip -o addr show dev lo | sed 's/ valid_lft.*//' | sort",
    "nft -s list table inet isthmus; nft -s list table inet theirs 2>/dev/null",
    "for i in $(wg show interfaces | tr ' ' '\\n' | sort); do echo $i",
    "for what in public-key listen-port fwmark allowed-ips persistent-keepalive preshared-keys; do wg show $i $what | sort; done; done",
  ];
  const text = await plane.sh(node, script.join("\n"));
  // Which gateway carries is the election's to say, and losing a link makes it say something else for a while.
  return text.replace(/(group) 1570\d\d/g, "$1 LINK").replace(/(nhid \d+|nexthop) dev ismg\d/g, "$1 dev LINK");
}

/** Both gateways answer: nothing is left to settle. */
async function bothUp(): Promise<void> {
  await eventually(
    "both links are up",
    60_000,
    async () => ((await plane.status(NODE)).links.every(({ verdict }) => verdict === "Up") ? true : undefined),
    {
      everyMs: 100,
    },
  );
}

/** Takes something away by hand, and gives back after how many milliseconds it was there again. */
async function backAfter(script: string, before: string): Promise<number> {
  // What a shell does to the kernel may come in several steps; the agent may be back between them.
  await plane.sh(NODE, script);
  const started = performance.now();
  await eventually(`back after: ${script}`, 20_000, async () => ((await kernelOf(NODE)) === before ? true : undefined), { everyMs: 20 }).catch(
    async (error: unknown) => {
      expect(await kernelOf(NODE), String(error)).toBe(before);
    },
  );
  return Math.round(performance.now() - started);
}

describe("what someone else removes by hand", () => {
  test("comes back, and what is theirs stays", async () => {
    await settled(plane);
    await bothUp();
    await plane.sh(
      NODE,
      [
        "ip route add 198.18.7.0/24 via 192.168.88.1 proto static",
        "ip route add 198.18.8.0/24 via 192.168.88.1 table 99",
        "ip rule add pref 15000 to 198.18.8.0/24 lookup 99",
        "ip addr add 127.77.0.1/32 dev lo",
        "ip nexthop add id 77 dev eth0",
        "nft add table inet theirs",
        "nft add chain inet theirs c '{ type filter hook input priority 5; }'",
        "nft add rule inet theirs c ip saddr 198.18.9.9 drop",
      ].join(" && "),
    );
    await expectInSync(plane, NODE);
    const { overlay } = await plane.status(NODE);
    const before = await kernelOf(NODE);
    for (const theirs of ["198.18.7.0/24", "198.18.8.0/24", "15000:", "127.77.0.1", "id 77", "inet theirs"]) expect(before).toContain(theirs);
    const took: Record<string, number> = {};
    const victims: Record<string, string> = {
      route: `ip route del ${INTERNET} table 157 metric 1024`,
      fallback: `ip route del unreachable ${INTERNET} table 157`,
      rule: "ip rule del pref 15790",
      "rule v6": "ip -6 rule del pref 15790",
      "all rules": "for p in 15700 15710 15715 15790; do ip rule del pref $p; done",
      // Its nexthop routes cannot be flushed by the tool; they go with their nexthops.
      "overlay table": "ip nexthop flush proto 157; ip route flush table 157 2>/dev/null; true",
      "nft table": "nft delete table inet isthmus",
      "nft chain": "nft flush chain inet isthmus translate",
      address: `ip addr del ${overlay[0]}/32 dev lo`,
      nexthop: "ip nexthop del id 157001",
      "link (gateway)": "ip link del ismg1",
      "link (mesh)": "ip link del ism0",
      "link down": "ip link set ismg2 down",
      "all peers of a link": "wg set ismg1 peer $(wg show ismg1 peers | head -1) remove",
      "a mesh peer": "wg set ism0 peer $(wg show ism0 peers | head -1) remove",
      "a peer's allowed addresses": "wg set ism0 peer $(wg show ism0 peers | head -1) allowed-ips 198.18.55.0/24",
      "a peer's keepalive": "wg set ism0 peer $(wg show ism0 peers | head -1) persistent-keepalive 0",
      "a peer's preshared key": "wg genpsk >/tmp/psk; wg set ismg1 peer $(wg show ismg1 peers | head -1) preshared-key /tmp/psk; rm /tmp/psk",
      "a peer that is not ours": "wg set ism0 peer $(wg genkey | wg pubkey) allowed-ips 198.18.55.0/24",
      "a sysctl": "echo 0 >/proc/sys/net/ipv4/conf/all/src_valid_mark",
      "an interface's port": "wg set ism0 listen-port 40000",
      "an interface's mark": "wg set ismg1 fwmark 0",
      "an interface's key": "wg genkey >/tmp/key; wg set ism0 private-key /tmp/key; rm /tmp/key",
    };
    for (const [what, script] of Object.entries(victims)) took[what] = await backAfter(script, before);
    console.log(`back after (ms, looking included): ${JSON.stringify(took)}`);
    expect((await plane.status(NODE)).drift.count).toBeGreaterThan(5);
    await plane.becomes("traffic flows as before", NODE, [plane.addressOf("do1"), plane.addressOf("do2")]);
  });
});

describe("with the controller dead", () => {
  test("everything comes back after the kernel was wiped", async () => {
    await settled(plane);
    await expectInSync(plane, NODE);
    const before = await kernelOf(NODE);
    await plane.lab.fail("controller");
    await plane.lab.fail("agent", NODE);
    await plane.sh(
      NODE,
      [
        "for l in $(ip -o link | grep -o 'ism[a-z]*[0-9]*' | sort -u); do ip link del $l; done",
        "ip nexthop flush proto 157; ip route flush table 157; ip route flush table 221; ip -6 route flush table 157; ip -6 route flush table 221",
        "for f in -4 -6; do while ip $f rule del proto 157 2>/dev/null; do :; done; done",
        "nft delete table inet isthmus; ip addr show dev lo | grep -o '10\\.10[1-3][0-9./]*' | while read a; do ip addr del $a dev lo; done",
      ].join("\n"),
    );
    expect(await plane.sh(NODE, "ip rule; ip nexthop; wg show interfaces")).not.toContain("157");
    await plane.lab.heal("agent");
    await eventually("the agent is back", 30_000, async () =>
      (await plane.reconcile(NODE).catch(() => undefined)) === undefined ? undefined : true,
    );
    await expectInSync(plane, NODE);
    await eventually("the kernel is as before", 20_000, async () => ((await kernelOf(NODE)) === before ? true : undefined), { everyMs: 100 }).catch(
      async (error: unknown) => expect(await kernelOf(NODE), String(error)).toBe(before),
    );
    await plane.becomes("traffic flows again", NODE, [plane.addressOf("do1"), plane.addressOf("do2")]);
    await plane.lab.heal();
  });

  test("a gateway dies and comes back, the client reboots, the gateway in use reboots: all from what their disks hold", async () => {
    await settled(plane);
    await bothUp();
    await plane.lab.fail("controller");
    const usable: Record<string, number> = {};
    await plane.lab.fail("node", "do1");
    await plane.becomes("the other gateway carries", NODE, plane.addressOf("do2"));
    usable["do1, which was dead"] = await boot("do1", await linkTo("do1"));
    await bothUp();

    const far = await linkTo("do1");
    await plane.lab.fail("node", NODE);
    usable["the client"] = await boot(NODE, far);
    await plane.becomes("the client's traffic leaves by a gateway", NODE, [plane.addressOf("do1"), plane.addressOf("do2")]);
    await bothUp();
    await expectInSync(plane, NODE);

    const inUse = (await plane.status(NODE)).paths.find(({ id }) => id === "egress/internet")?.active[0] ?? "";
    const other = inUse === "do1" ? "do2" : "do1";
    expect([inUse, other]).toContain("do1");
    const link = await linkTo(inUse);
    await plane.lab.fail("node", inUse);
    usable[`${inUse}, the gateway in use`] = await boot(inUse, link);
    await bothUp();
    await expectInSync(plane, inUse);
    await plane.becomes("traffic leaves by a gateway", NODE, [plane.addressOf("do1"), plane.addressOf("do2")]);
    // Carried by one that has booted since: the other is away.
    await plane.lab.fail("node", other);
    await plane.becomes(`${inUse} carries again`, NODE, plane.addressOf(inUse));
    expect((await plane.status(NODE)).controller.connected, "the controller was dead throughout").toBe(false);
    console.log(`usable after the boot (ms, controller dead): ${JSON.stringify(usable)}`);
    await plane.lab.heal();
    await settled(plane);
  });
});

/** The gateway's end of the client's link to it. */
async function linkTo(gateway: string): Promise<string> {
  const link = (await plane.status(NODE)).links.find((one) => one.gateway === gateway);
  return (await plane.sh(NODE, `ip -4 -o route show table 157 dev ${link?.interface} | grep -o '10.103[0-9.]*'`)).trim();
}

/** Powers a node on, and gives how many ms after its boot the client gets an answer from an address. */
async function boot(node: string, address: string): Promise<number> {
  const healing = plane.lab.heal("node", node).then(() => performance.now());
  await eventually(`${address} answers after the boot of ${node}`, 60_000, async () =>
    (await plane.lab.exec(NODE, ["ping", "-c", "1", "-W", "0.2", address], { mayFail: true }).catch(() => undefined))?.code === 0 ? true : undefined,
  );
  const answered = performance.now();
  return Math.round(answered - (await healing));
}

describe(`the agent killed with -9 at ${KILLS} random moments`, () => {
  test("while 2,000 routes change leaves the kernel as planned each time, and unchanged paths lose nothing", { timeout: 600_000 }, async () => {
    await settled(plane);
    const random = seeded(SEED);
    const destinations = (set: number): string[] => Array.from({ length: 2_000 }, (_, i) => `198.${18 + set}.${i >> 8}.${i & 255}/32`);
    const document = (set: number): object => ({
      apiVersion: "isthmus.dev/v1alpha1",
      kind: "EgressGateway",
      metadata: { name: "many" },
      spec: { destinations: destinations(set), sources: { nodeSelector: { location: "onprem" } }, gateways: [{ nodeSelector: { egress: "true" } }] },
    });
    await plane.apply(document(0));
    await hasExactly(destinations(0));
    const stream = await plane.lab.startGapStream({ from: NODE, to: INTERNET, protocol: "udp", intervalMs: 10 });
    const moments: number[] = [];
    for (let i = 1; i <= KILLS; i++) {
      const set = i % 2;
      // From before the plan arrives until after it is applied.
      const moment = Math.round(random() * 700);
      moments.push(moment);
      const applied = plane.apply(document(set));
      await new Promise((wake) => setTimeout(wake, moment));
      await plane.lab.crash(NODE);
      await applied;
      await hasExactly(destinations(set)).catch((error: unknown) => {
        throw new Error(`seed ${SEED}, kill ${i} after ${moment} ms: ${String(error)}`, { cause: error });
      });
      await expectInSync(plane, NODE);
    }
    const report = await stream.stop();
    console.log(`seed ${SEED}: killed after ${moments.join(", ")} ms; ${report.sent} packets over the unchanged path, ${report.lost} lost`);
    expect(report.lost).toBe(0);
    await plane.remove("egressgateways", "many");
    await hasExactly([]);
  });
});

/** Waits until the overlay table holds exactly these of the test's range, each with its fallback. */
async function hasExactly(destinations: readonly string[]): Promise<void> {
  const wanted = destinations
    .map((one) => one.replace("/32", ""))
    .toSorted()
    .join("\n");
  let last = "";
  await eventually(
    `the table holds ${destinations.length} destinations`,
    60_000,
    async () => {
      const rows = (await plane.sh(NODE, "ip -4 -o route show table 157 | grep -E '198\\.1[89]\\.' || true")).split("\n");
      const steered = rows.flatMap((row) => (/^198\S+ nhid/.test(row) ? [row.split(" ")[0] ?? ""] : []));
      const fallbacks = rows.flatMap((row) => (row.startsWith("unreachable") ? [row.split(" ")[1] ?? ""] : []));
      last = `${steered.length} steered, ${fallbacks.length} fallbacks`;
      return steered.toSorted().join("\n") === wanted && fallbacks.toSorted().join("\n") === wanted ? true : undefined;
    },
    { everyMs: 100 },
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${last}`, { cause: error });
  });
}

/** Mulberry32: enough to repeat a run. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
