/** The routes bench's part in the namespace: the agent's reconciler on the real kernel, with probes that say what they are told. */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { parsePlan } from "../mesh/compile/parse-plan.ts";
import type { LanHealthView } from "../mesh/elect/lan.ts";
import type { LinkVerdict, LinkView } from "../mesh/elect/types.ts";
import type { Plan } from "../mesh/model/plan.ts";
import type { IpAddress, NodeName, WgPublicKey } from "../mesh/model/scalars.ts";
import { createKernel } from "../node-agent/drivers/index.ts";
import { type Health, NO_ELECTIONS } from "../node-agent/elections.ts";
import { createReconciler, type Pass } from "../node-agent/reconcile.ts";

export interface Sample {
  /** What the drivers took. */
  readonly applyMs: number;
  /** From the wake-up to the last operation: elections, desired state, difference, drivers. */
  readonly passMs: number;
}

export interface Moves {
  readonly program: Sample[];
  readonly move: Sample[];
  readonly change: Sample[];
  readonly lanMove: Sample[];
  readonly lanChange: Sample[];
}

const MANY = 2_000;
const GATEWAYS = ["g1", "g2"];
const LAN_GATEWAYS = ["192.168.88.5", "192.168.88.6"];
const PATH = "egress/bench";
const LAN_ROUTE = "lanroute/bench";
/** Rounds whose times do not count: the compiler has not seen the code yet. */
const WARM_UP = 2;

const [dir = "", rounds = "1"] = process.argv.slice(2);
const sh = (script: string): string => execFileSync("sh", ["-c", script], { encoding: "utf8" });

sh(`set -e; mkdir -p /var/run/wireguard; mount -t tmpfs tmpfs /var/run/wireguard; mount -t sysfs sysfs /sys
  ip link set lo up; ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up
  ip addr add 192.168.88.11/24 dev eth0; ip route add default via 192.168.88.1`);
for (const folder of ["data", "run"]) mkdirSync(`${dir}/${folder}`, { mode: 0o700 });
writeFileSync(`${dir}/hosts`, "127.0.0.1 localhost\n");
writeFileSync(`${dir}/key`, sh("wg genkey"), { mode: 0o600 });
const publicKey = sh(`wg pubkey <${dir}/key`).trim() as WgPublicKey;

const kernel = createKernel({ dataDir: `${dir}/data`, runDir: `${dir}/run`, privateKeyFile: `${dir}/key`, hostsFile: `${dir}/hosts` });
let applyMs = 0;
const down = new Set<string>();
let passed: ((pass: Pass) => void) | undefined;
const reconciler = createReconciler({
  kernel: {
    observe: () => kernel.observe(),
    hostFacts: () => kernel.hostFacts(),
    async apply(operations, signal) {
      const started = performance.now();
      const results = await kernel.apply(operations, signal);
      applyMs += performance.now() - started;
      return results;
    },
  },
  publicKey,
  health,
  dial: () => new Map(),
  now: () => performance.now(),
  random: Math.random,
  stored: { links: new Map(), elections: NO_ELECTIONS },
  onPass: (pass) => passed?.(pass),
  onDrift: () => undefined,
  log: (line) => process.stderr.write(`${line}\n`),
});
const stop = new AbortController();
const running = reconciler.run(stop.signal);

const moves: Moves = { program: [], move: [], change: [], lanMove: [], lanChange: [] };
for (let round = 0; round < Number(rounds) + WARM_UP; round++) {
  const keep = round >= WARM_UP;
  const take = async (into: Sample[] | undefined, least: number, change: () => void): Promise<void> => {
    const sample = await step(least, change);
    if (keep) into?.push(sample);
  };
  await take(undefined, 0, () => reconciler.setPlan(planOf([], [])));
  await take(moves.program, MANY, () => reconciler.setPlan(planOf(overlay(round), [])));
  await take(moves.move, 1, () => fail("g1"));
  await take(moves.change, 1, () => reconciler.setPlan(planOf(changed(overlay(round)), [])));
  await take(undefined, MANY, () => reconciler.setPlan(planOf([], lan(round))));
  await take(moves.lanMove, MANY, () => fail(LAN_GATEWAYS[0]!));
  await take(moves.lanChange, 1, () => reconciler.setPlan(planOf([], changed(lan(round)))));
  down.clear();
}
stop.abort();
await running;
process.stdout.write(JSON.stringify(moves), () => process.exit(0));

/** One change, one pass. @throws Error when the kernel refused something, or when the pass did less than it must */
async function step(least: number, change: () => void): Promise<Sample> {
  applyMs = 0;
  const pass = await new Promise<Pass>((done) => {
    passed = done;
    change();
  });
  passed = undefined;
  if (pass.failures.length > 0) throw new Error(`the kernel refused: ${pass.failures[0]?.error ?? ""}`);
  if (pass.operations < least) throw new Error(`${pass.operations} operations, expected at least ${least}`);
  return { applyMs, passMs: pass.tookMs };
}

function fail(gateway: string): void {
  down.add(gateway);
  reconciler.wake("health");
}

function health(): Health {
  const verdict = (gateway: string): LinkVerdict => (down.has(gateway) ? "Down" : "Up");
  const link = (node: string): LinkView => ({ node: node as NodeName, verdict: verdict(node), since: 0, gateway: "Serving", srttMs: 1 });
  const lanView = (gateway: string): LanHealthView => ({ verdict: verdict(gateway), since: 0 });
  return {
    links: new Map(GATEWAYS.map((node) => [node as NodeName, link(node)])),
    stalled: false,
    lan: new Map([[LAN_ROUTE, new Map(LAN_GATEWAYS.map((gateway) => [gateway as IpAddress, lanView(gateway)]))]]),
  };
}

function overlay(round: number): string[] {
  return Array.from({ length: MANY }, (_, i) => `100.${64 + (round % 64)}.${i >> 8}.${i & 255}/32`);
}

function lan(round: number): string[] {
  return Array.from({ length: MANY }, (_, i) => `198.${18 + (round % 2)}.${i >> 8}.${i & 255}/32`);
}

/** The first destination is another one. */
function changed(destinations: readonly string[]): string[] {
  return [destinations[0]!.replace(/\.0\.0\/32$/, ".255.1/32"), ...destinations.slice(1)];
}

/** From views, as the agent gets them. */
function planOf(destinations: readonly string[], lanDestinations: readonly string[]): Plan {
  const peers = [
    ["c", "home"],
    ["g1", "one"],
    ["g2", "two"],
  ].map(([name, site], i) => [
    `peer/${name}`,
    { i: i + 1, k: i === 0 ? publicKey : Buffer.alloc(32, i).toString("base64"), s: site, e: [`203.0.113.${i + 1}:51820`] },
  ]);
  const network = {
    name: "isthmus",
    overlay: { v4: "10.101.0.0/16", v6: "fd00:1:2::/48" },
    links: { v4: "10.102.0.0/15" },
    ports: { mesh: 51820, gateway: 51821, links: 51830, echo: 51819, state: 51818 },
    markMask: "0x7f000000",
    controllers: ["203.0.113.9:8443"],
  };
  const path = {
    created: 1,
    gateways: GATEWAYS.map((node, i) => ({ node, priority: 100 - i })),
    intervalMs: 100,
    threshold: 3,
    holdDownMs: 5_000,
    strategy: "Failover",
    failback: { type: "Immediate", delayMs: 0 },
    drainTimeoutMs: 60_000,
    onNoGateway: "Unreachable",
  };
  const health = { type: "icmp", interval: "100ms", threshold: 3, holdDown: "5s" };
  const route = { created: 1, gateways: LAN_GATEWAYS, table: 254, strategy: "Failover", health };
  const keys = (all: readonly string[]): (readonly [string, unknown])[] => all.map((cidr) => [`d/${cidr}`, 1] as const);
  const views = new Map<string, ReadonlyMap<string, unknown>>([
    ["mesh", new Map<string, unknown>([["network", network], ...(peers as [string, unknown][])])],
    ["node/c", new Map([["self", { name: "c", index: 1, site: "home", labels: {}, advertise: [], subnets: [] }]])],
    [PATH, new Map<string, unknown>([["path", path], ...keys(destinations)])],
    ...(lanDestinations.length === 0 ? [] : [[LAN_ROUTE, new Map<string, unknown>([["lan", route], ...keys(lanDestinations)])] as const]),
  ]);
  const { plan, faults } = parsePlan(views);
  if (plan === undefined || faults.length > 0) throw new Error(`the bench's plan is not understood: ${JSON.stringify(faults.slice(0, 3))}`);
  return plan;
}
