/**
 * Egress from datacenter1 to the internet host while gateways die: the longest gap that a stream of packets sees, one every
 * 5 ms. The controller is dead all the time. The two gateways take turns: the one in use is broken, and healed once the other carries the traffic.
 * After that, a route through routers of a LAN while the first of them dies.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { FaultKind } from "../lab/faults.ts";
import { REPOSITORY } from "../lab/names.ts";
import { loadTopology } from "../lab/topology-file.ts";
import type { BenchOptions } from "./main.ts";
import { type BenchMesh, INTERNET, pathView, until, withMesh } from "./mesh.ts";
import type { Row } from "./stats.ts";

const TIMES = 100;
const CLIENT = "datacenter1";
const PATH = "egress/bench";
const BETWEEN_MS = 150;
/** At first contact the gateway that answered first is used, and left for the best one once that has answered, too. */
const FIRST_CONTACT_MS = 3_000;

/**
 * The defaults but for what comes after a failure: no quiet time before a healed gateway is used again, and no return to the
 * better one, so that the next failure can follow at once. What is measured is before that.
 */
const INTENT = {
  apiVersion: "isthmus.dev/v1alpha1",
  kind: "EgressGateway",
  metadata: { name: "bench" },
  spec: {
    destinations: [INTERNET],
    sources: { nodeSelector: { location: "onprem" } },
    gateways: [{ nodeSelector: { egress: "true" } }],
    failback: { type: "Manual" },
    health: { holdDown: "0s", uplink: [{ type: "tcp", tcp: { address: INTERNET, port: 80 } }] },
  },
};

/** A cloud node reaches a partner's network through two routers of its VPC; their health is checked as by default. */
const LAN_CLIENT = "do1";
const LAN_ROUTE = "lanroute/bench";
const PARTNER = "34.160.112.9";
const LAN_INTENT = {
  apiVersion: "isthmus.dev/v1alpha1",
  kind: "MeshRoute",
  metadata: { name: "bench" },
  spec: {
    destinations: ["34.160.112.0/24"],
    nodeSelector: { location: "cloud" },
    gateways: [{ address: "10.116.0.5" }, { address: "10.116.0.12" }],
    health: { holdDown: "0s" },
  },
};

interface Kind {
  readonly what: string;
  fault(active: string): [FaultKind, ...string[]];
}

const KINDS: readonly Kind[] = [
  { what: "host of the gateway dead", fault: (active) => ["node", active] },
  { what: "gateway's uplink dead", fault: (active) => ["uplink", active] },
  { what: "only the client's link to it dead", fault: (active) => ["link", CLIENT, active] },
];

export async function failover(options: BenchOptions): Promise<Row[]> {
  const times = options.n ?? TIMES;
  const topology = await loadTopology(`${REPOSITORY}/lab/topology/default.yaml`);
  return withMesh(topology, options, async (mesh) => {
    await mesh.call("POST", "/v1/apply", { documents: [INTENT, LAN_INTENT] });
    const rows: Row[] = [];
    const boots: number[] = [];
    await ready(mesh, options.signal);
    await delay(FIRST_CONTACT_MS);
    await mesh.lab.fail("controller");
    for (const kind of KINDS) {
      const gaps: number[] = [];
      for (let i = 0; i < times; i++) {
        options.signal.throwIfAborted();
        gaps.push(await one(mesh, kind, options.signal));
        const booted = performance.now();
        await ready(mesh, options.signal);
        if (kind === KINDS[0]) boots.push(performance.now() - booted);
        if ((i + 1) % 10 === 0) options.log(`${kind.what}: ${i + 1} of ${times}, longest so far ${Math.max(...gaps).toFixed(0)} ms`);
      }
      rows.push({ what: kind.what, unit: "ms", samples: gaps, judge: "p99", target: 500 });
    }
    rows.push({ what: "the dead host, from its boot until its link is up and it serves", unit: "ms", samples: boots, judge: "p99", target: 1_000 });
    rows.push({ what: "LAN router dead", unit: "ms", samples: await lanRouters(mesh, times, options), judge: "p99", target: 1_000 });
    return rows;
  });
}

/** The first router of a MeshRoute loses power, while the controller is dead like all along; it is taken again when it is back. */
async function lanRouters({ lab, status }: BenchMesh, times: number, { signal, log }: BenchOptions): Promise<number[]> {
  const [first, second] = LAN_INTENT.spec.gateways.map(({ address }) => address);
  const router = lab.topology.hosts.find(({ nics }) => nics.some(({ address }) => address === first))?.name ?? "";
  const uses = async (gateway: string | undefined): Promise<true> =>
    until(
      `${LAN_CLIENT} routes through ${gateway}`,
      async () => ((await status(LAN_CLIENT)).results[LAN_ROUTE]?.nextHop === gateway ? true : undefined),
      { signal, withinMs: 60_000, everyMs: 40 },
    );
  const gaps: number[] = [];
  for (let i = 0; i < times; i++) {
    signal.throwIfAborted();
    await uses(first);
    const stream = await lab.startGapStream({ from: LAN_CLIENT, to: PARTNER, intervalMs: 5, protocol: "udp" });
    await delay(BETWEEN_MS);
    await lab.fail("node", router);
    await uses(second).catch(() => undefined);
    await delay(BETWEEN_MS);
    const report = await stream.stop();
    if (report.rttMs === undefined) throw new Error(`nothing came back from ${PARTNER} before ${router} died: its death cannot be measured`);
    gaps.push(report.longestGapMs);
    await lab.heal("node", router);
    if ((i + 1) % 10 === 0) log(`LAN router dead: ${i + 1} of ${times}, longest so far ${Math.max(...gaps).toFixed(0)} ms`);
  }
  return gaps;
}

/** The gateway in use, once both could be. */
async function ready({ status }: BenchMesh, signal: AbortSignal): Promise<string> {
  return until("both gateways are ready", async () => bothReady(pathView(await status(CLIENT), PATH)), { signal, withinMs: 60_000, everyMs: 20 });
}

async function one(mesh: BenchMesh, kind: Kind, signal: AbortSignal): Promise<number> {
  const { lab, status } = mesh;
  const active = await ready(mesh, signal);
  const stream = await lab.startGapStream({ from: CLIENT, to: INTERNET, intervalMs: 5, protocol: "udp" });
  await delay(BETWEEN_MS);
  const broken = kind.fault(active);
  await lab.fail(...broken);
  await until("the other gateway is used", async () => (movedFrom(active, pathView(await status(CLIENT), PATH)) ? true : undefined), {
    signal,
    everyMs: 40,
  }).catch(() => undefined);
  await delay(BETWEEN_MS);
  const report = await stream.stop();
  await lab.heal(...(broken[0] === "link" ? ["link"] : broken));
  return report.longestGapMs;
}

function bothReady({ active, ready }: ReturnType<typeof pathView>): string | undefined {
  return ready.size >= 2 ? active : undefined;
}

function movedFrom(before: string, { active }: ReturnType<typeof pathView>): boolean {
  return active !== undefined && active !== before;
}
