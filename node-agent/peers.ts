/** Looks after the peers' sessions: reads WireGuard's state, moves dials on, and gives silent sessions a new start. */
import { asIsthmusError } from "../mesh/errors.ts";
import { linkInterface } from "../mesh/kernel/layout.ts";
import type { Operation } from "../mesh/kernel/operations.ts";
import type { KernelState, PeerDial } from "../mesh/kernel/types.ts";
import { silentDrift, type SilentState } from "../mesh/kernel/silent-drift.ts";
import type { Plan } from "../mesh/model/plan.ts";
import type { NodeName } from "../mesh/model/scalars.ts";
import { pause } from "./backoff.ts";
import type { Kernel } from "./drivers/index.ts";
import type { Health } from "./elections.ts";
import { createDialer, type PeerReach, type WgStatus } from "./endpoints.ts";
import { silentLinks } from "./health.ts";
import type { Links } from "./links.ts";
import { interfaceAddresses, underlayFamilies } from "./own-endpoints.ts";
import { muteOf, type Pass } from "./reconcile.ts";

/**
 * WireGuard tells nobody that someone changed it: what is found within this time is back within a second (I10). Beyond 160
 * peers looks are further apart, so that they take no more of the processor.
 */
const LOOK_MS = 800;
const LOOK_MS_PER_PEER = 5;
/** Sessions are judged this often, and while a peer has no handshake more often. */
const ROUND_MS = 5_000;
const BUSY_ROUND_MS = 1_000;
const FAILED_LOOK_MS = 5_000;
/** Many peers' first handshakes fall due at different times: looks are not closer together than this. */
const SHORTEST_LOOK_MS = 50;
/** A session is stale when its link has been silent for so long; it starts anew at most every `RESET_MS`. */
const SILENT_MS = 3_000;
const RESET_MS = 5_000;

export interface PeerPorts {
  readonly kernel: Pick<Kernel, "observeSilent">;
  /** Milliseconds since 1970, as the handshakes that the kernel shows; a clock that nobody sets. */
  now(): number;
  /** File of the endpoints that were proven. */
  readonly file: string;
  lastPass(): Pass | undefined;
  health(): Health;
  /** Puts operations between two passes. */
  also(operations: readonly Operation[]): void;
  /** Something else is to be dialed. */
  onDial(): void;
  /** WireGuard or a sysctl is not as it was written. */
  onDrift(): void;
  onReach(reach: PeerReach): void;
  readonly log: (line: string) => void;
}

export interface PeerKeeper {
  /** What to dial, new peers included; called inside a pass. */
  dial(plan: Plan, links: Links, observed: KernelState): ReadonlyMap<NodeName, PeerDial>;
  reach(plan: Plan, links: Links): PeerReach;
  readonly wireguard: WgStatus;
  /** The clock of the handshakes in `wireguard`. */
  now(): number;
  /** Looks at once. */
  wake(): void;
  run(signal: AbortSignal): Promise<void>;
}

export function createPeerKeeper(ports: PeerPorts): PeerKeeper {
  const dialer = createDialer(ports.file, ports.log);
  const resetAt = new Map<NodeName, number>();
  let wireguard: WgStatus = new Map();
  let found = "";
  /** On the clock of `performance.now`. */
  let roundAt = 0;
  let woken = new AbortController();

  /** The peer as it is wanted, at the endpoint of its turn. */
  const resetOf = (link: string, publicKey: string): Operation[] => {
    const peers = ports.lastPass()?.desired.state.wireguard.get(link)?.peers.values() ?? [];
    const peer = [...peers].find((one) => one.publicKey === publicKey);
    if (peer === undefined) return [];
    const endpoint = dialer.endpointOf(link, publicKey) ?? peer.endpoint;
    return [{ op: "peer.reset", link, peer: endpoint === undefined ? peer : { ...peer, endpoint } }];
  };

  /** Links whose probes fail and whose last handshake is older than the silence: the gateway may have forgotten the session. */
  const staleSessions = (plan: Plan, links: Links, now: number): Operation[] =>
    [...silentLinks(ports.health().links)].flatMap(([node, since]) => {
      const link = linkInterface(links.get(node) ?? 0);
      const publicKey = plan.peers.get(node)?.k;
      const silentFor = performance.now() - since;
      if (publicKey === undefined || silentFor < SILENT_MS || now - (resetAt.get(node) ?? 0) < RESET_MS) return [];
      const handshake = (wireguard.get(link)?.get(publicKey)?.latestHandshake ?? 0) * 1_000;
      if (handshake >= now - silentFor) return [];
      resetAt.set(node, now);
      return resetOf(link, publicKey);
    });

  /** What could not be put back is tried again by the reconciler, at its own pace. */
  const compare = ({ desired, failures, mute }: Pass, seen: SilentState): void => {
    if (muteOf(seen.wireguard).join() !== mute.join()) return ports.onDrift();
    const before = found;
    found = silentDrift(desired.state, seen);
    if (found !== "" && !(found === before && failures.length > 0)) ports.onDrift();
  };

  /** Looks, acts, and says after how long to look again. */
  const look = async (): Promise<number> => {
    const pass = ports.lastPass();
    if (pass === undefined) return BUSY_ROUND_MS;
    const seen = await ports.kernel.observeSilent();
    wireguard = new Map([...seen.wireguard].map(([name, { peers }]) => [name, peers]));
    // A pass that ended meanwhile wrote what was not there when we looked.
    if (pass === ports.lastPass()) compare(pass, seen);
    if (performance.now() >= roundAt) roundAt = performance.now() + judge(pass);
    const peers = [...wireguard.values()].reduce((sum, { size }) => sum + size, 0);
    return Math.max(SHORTEST_LOOK_MS, Math.min(Math.max(LOOK_MS, peers * LOOK_MS_PER_PEER), roundAt - performance.now()));
  };

  /** Moves dials on, starts silent sessions anew, and says after how long to do so again. */
  const judge = ({ input }: Pass): number => {
    const now = ports.now();
    const round = dialer.round(input.plan, input.links, underlayFamilies(interfaceAddresses()), wireguard, now);
    const resets = [...round.resets.flatMap(({ ifname, publicKey }) => resetOf(ifname, publicKey)), ...staleSessions(input.plan, input.links, now)];
    if (resets.length > 0) ports.also(resets);
    else if (round.changed) ports.onDial();
    ports.onReach(dialer.reach(input.plan, input.links, wireguard, now));
    const busy = round.unproven || silentLinks(ports.health().links).size > 0;
    return Math.min(busy ? BUSY_ROUND_MS : ROUND_MS, round.dueAt - now);
  };

  return {
    dial(plan, links, observed) {
      dialer.ensure(plan, links, underlayFamilies(interfaceAddresses()), wireguard, ports.now());
      return dialer.dialFor(observed);
    },
    reach: (plan, links) => dialer.reach(plan, links, wireguard, ports.now()),
    get wireguard() {
      return wireguard;
    },
    now: () => ports.now(),
    wake: () => woken.abort(),
    async run(signal) {
      while (!signal.aborted) {
        woken = new AbortController();
        const afterMs = await look().catch((thrown: unknown) => {
          if (!signal.aborted) ports.log(`reading WireGuard's state failed: ${asIsthmusError(thrown).message}`);
          return FAILED_LOOK_MS;
        });
        await pause(afterMs, signal, woken.signal);
        if (woken.signal.aborted) roundAt = 0;
      }
      dialer.flush();
    },
  };
}
